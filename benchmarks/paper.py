r"""The paper's figures on real networks, from what ``trompe reproduce`` wrote.

    trompe reproduce all --scale small --images PHOTOS --model squeezenet1_1=WEIGHTS \
        --cifar-model resnet20-cifar10=WEIGHTS --cifar-images cifar10_test.npz --output paper
    python benchmarks/paper.py paper/small

Gathers the ``figure_N.json`` of a folder in ``benchmarks/results/paper.json``, and copies the
drawings that show no photo to ``docs/figures/paper``. Figures of an earlier call that the folder
has not stay as they are.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from machine import RESULTS, save

DRAWINGS = Path(__file__).parents[1] / "docs" / "figures" / "paper"
PHOTOS = (1, 2, 8, 9)
"""Figures that show photos, which are not ours to give away."""


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    path = RESULTS / "paper.json"
    figures = json.loads(path.read_text())["figures"] if path.exists() else {}
    for found in sorted(folder.glob("figure_*.json")):
        content = json.loads(found.read_text())
        number = content["figure"]
        figures[str(number)] = {key: content[key] for key in ("made_with", "claims")}
        drawing = folder / f"figure_{number}.png"
        if number not in PHOTOS and drawing.exists():
            DRAWINGS.mkdir(parents=True, exist_ok=True)
            shutil.copy(drawing, DRAWINGS / drawing.name)
    save("paper", {"figures": dict(sorted(figures.items(), key=lambda item: int(item[0])))})


if __name__ == "__main__":
    main()
