"""Draw ``docs/figures/defences.svg`` from ``benchmarks/results/defences.json``.

    python scripts/plot_defences.py

Accuracy against the share of maps that withstand the ensemble, with 95 % intervals, one panel per
network; filled where no other row is better in both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def value(share: dict[str, Any]) -> float:
    """The share that a row holds as count and n."""
    found: float = share["count"] / share["n"]
    return found


def front(points: dict[str, tuple[float, float]]) -> set[str]:
    """The names of the points that no other is at least as good as in both and better in one."""
    return {
        name
        for name, (x, y) in points.items()
        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points.values())
    }


def main() -> None:
    """See the module."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "trompe"
    import matplotlib.pyplot as plt

    networks = json.loads((ROOT / "benchmarks/results/defences.json").read_text())["networks"]
    figure, panels = plt.subplots(
        1, len(networks), figsize=(7 * len(networks), 5), squeeze=False, layout="constrained"
    )
    for axes, (network, entry) in zip(panels[0], networks.items(), strict=True):
        rows, settings = entry["rows"], entry["settings"]
        points = {name: (value(r["accuracy"]), value(r["robust"])) for name, r in rows.items()}
        best = front(points)
        for index, (name, (x, y)) in enumerate(points.items()):
            row, colour = rows[name], f"C{index % 10}"
            axes.errorbar(
                x,
                y,
                xerr=[[x - row["accuracy"]["low"]], [row["accuracy"]["high"] - x]],
                yerr=[[y - row["robust"]["low"]], [row["robust"]["high"] - y]],
                fmt="o",
                color=colour,
                mfc=colour if name in best else "white",
                elinewidth=0.4,
            )
            axes.annotate(name, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8)
        axes.set(
            xlabel="accuracy",
            ylabel=f"maps that withstand {settings['radius']:g}/255 (of {settings['attacked']})",
            title=network,
            ylim=(-0.03, 1.05),
        )
    figure.savefig(ROOT / "docs/figures/defences.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
