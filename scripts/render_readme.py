"""Write the numbers of both READMEs from the JSON files under ``benchmarks/results``.

    python scripts/render_readme.py            # rewrites the blocks in the READMEs
    python scripts/render_readme.py --check    # exits with 1 where they are out of date

A block stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")


def load(name: str) -> dict[str, Any]:
    """A committed result."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def against_reference() -> str:
    """Agreement with the reference implementation."""
    result = load("against_reference")
    rows = []
    for method, maps in result["maps"].items():
        attack = result["attack"][method]
        worst = max(maps.values())
        rows.append([f"`{method}`", f"{worst:.0e}", f"{attack['largest_difference']:.0e}"])
    steps = next(iter(result["attack"].values()))["steps"]
    return table(["method", "heat maps", f"image after {steps} attack steps"], rows)


def tiny_models() -> str:
    """Accuracy of the embedded classifiers."""
    result = load("tiny_models")["models"]
    return ", ".join(f"`{name}` {100 * entry['top1']:.1f} %" for name, entry in result.items())


def quality() -> str:
    """Presets side by side on tiny-vgg."""
    result = load("quality")
    rows = []
    for method, presets in result["methods"].items():
        for preset, entry in presets.items():
            median = entry["median"]
            rows.append(
                [
                    f"`{method}`",
                    f"`{preset}`",
                    str(entry["iterations"]),
                    f"{median['map_pcc_before']:.2f} → {median['map_pcc']:.2f}",
                    f"{median['map_ssim']:.2f}",
                    f"{median['psnr_db']:.1f} dB",
                    f"{median['linf_255']:.0f}/255",
                    f"{median['softmax_l2']:.0e}",
                    f"{entry['class_kept']}/{entry['pairs']}",
                    f"{entry['cpu_seconds_per_image']:.0f} s",
                ]
            )
    header = ["method", "preset", "steps", "PCC to the target", "SSIM", "image PSNR", "largest"]
    return table([*header, "softmax change", "class kept", "CPU time"], rows)


def paper_preset() -> str:
    """The paper's preset on SqueezeNet and ImageNet photos."""
    if not (RESULTS / "paper_preset.json").exists():
        return "Not measured yet."
    rows = []
    for method, entry in load("paper_preset").items():
        if method == "machine":
            continue
        median = entry["median"]
        rows.append(
            [
                f"`{method}`",
                str(entry["pairs"]),
                f"{entry['class_kept']}/{entry['pairs']}",
                f"{median['map_to_target_ssim']:.2f}",
                f"{median['map_to_target_pcc']:.2f}",
                f"{median['image_ssim']:.3f}",
                f"{median['image_psnr_db']:.1f} dB",
                f"{median['softmax_l2']:.0e}",
            ]
        )
    header = ["method", "pairs", "class kept", "map SSIM", "map PCC", "image SSIM", "PSNR"]
    return table([*header, "softmax change"], rows)


def soundness() -> str:
    """How often an attack exceeded a bound."""
    result = load("soundness")
    return (
        f"{result['cases']:,} random networks, {result['comparisons']:,} comparisons of an attack "
        f"with a bound, {len(result['violations'])} violations"
    )


def step() -> str:
    """One attack step beside the peers'."""
    rows = []
    who = ("trompe", "autograd", "zennit", "reference")
    for model, methods in load("step")["models"].items():
        for method, entry in methods.items():
            found = entry["contenders"]
            cells = [f"`{model}`", f"`{method}`", str(entry["floor"] or "")]
            for name in who:
                if name not in found:
                    cells.append("")
                    continue
                memory = found[name].get("peak_mib")
                extra = "" if memory is None else f" ({memory:,.0f} MiB)"
                cells.append(f"{found[name]['forwards']:.1f}{extra}")
            rows.append(cells)
    return table(["network", "method", "floor", *who], rows)


def maps() -> str:
    """Explanations alone, maps per second."""
    rows = []
    who = ("trompe", "captum", "zennit")
    for model, entry in load("maps")["models"].items():
        for method, found in entry["methods"].items():
            cells = [f"`{model}` x{entry['batch']}", f"`{method}`"]
            for name in who:
                rate = found.get(name, {}).get("maps_per_second")
                cells.append("" if rate is None else f"{rate:.2g}")
            rows.append(cells)
    return table(["network", "method", *who], rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "against_reference": against_reference,
    "tiny_models": tiny_models,
    "quality": quality,
    "paper_preset": paper_preset,
    "soundness": soundness,
    "step": step,
    "maps": maps,
}


def rendered(text: str) -> str:
    """``text`` with every block filled anew."""
    for name, make in BLOCKS.items():
        pattern = re.compile(rf"(<!-- begin {name} -->)(.*?)(<!-- end {name} -->)", re.DOTALL)
        if pattern.search(text):
            content = make()
            inline = "\n" not in content
            body = content if inline else f"\n{content}\n"
            text = pattern.sub(lambda m, body=body: m[1] + body + m[3], text)
    return text


def main() -> int:
    """Rewrite or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    stale = False
    for path in PAGES:
        old = path.read_text()
        new = rendered(old)
        stale |= new != old
        if not arguments.check:
            path.write_text(new)
    return int(stale and arguments.check)


if __name__ == "__main__":
    sys.exit(main())
