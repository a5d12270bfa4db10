"""The time of one attack step, in forward passes of the same network and batch.

    python benchmarks/step.py --model vgg16 --method gradient --method lrp --reference DIR

All contenders run in one process, one after the other, round after round; the medians over all
steps count. DIR is a clone of pankessel/adv_explanation_ref made by you; its code is imported,
never copied. Peak memory is that of a fresh process per contender. Weights are random: they change
no time. What was measured before, of other models and methods, stays in
``benchmarks/results/step.json``.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from contenders import FLOORS, contenders
from machine import RESULTS, describe, save
from torch import Tensor, nn

import trompe

METHODS = ("gradient", "grad_times_input", "guided_backprop", "lrp")
MODELS = ("vgg16", "squeezenet1_1", "resnet18", "tiny-vgg")


def network(name: str) -> tuple[nn.Module, int]:
    """A network and the size of its images, in pixels."""
    if name.startswith("tiny"):
        return trompe.load_model(name).model, 64
    import torchvision

    torch.manual_seed(0)
    return torchvision.models.get_model(name).eval().requires_grad_(False), 224


def images(count: int, size: int) -> Tensor:
    """The default photos, normalised, [count, 3, size, size]."""
    from trompe.types import InputSpace
    from trompe.zoo.images import default_images

    pixels = list(default_images(size).values())
    return InputSpace().from_pixels(torch.stack([pixels[i % len(pixels)] for i in range(count)]))


def forward(model: nn.Module, x: Tensor, count: int) -> list[float]:
    """Seconds of forward passes alone."""
    times = []
    with torch.inference_mode():
        for _ in range(count):
            start = time.perf_counter()
            model(x)
            times.append(time.perf_counter() - start)
    return times


def measure(
    name: str, method: str, batch: int, folder: Path | None, chosen: argparse.Namespace
) -> dict[str, Any]:
    """Interleaved times of all contenders on one network."""
    model, size = network(name)
    x = images(batch, size)
    runs = contenders(model, x, method, folder)
    if chosen.alone:
        runs = {"trompe": runs["trompe"]}
    passes: list[float] = []
    times: dict[str, list[float]] = {contender: [] for contender in runs}
    forward(model, x, 1)
    for run in runs.values():  # what is made once: split weights, buffers
        run(1)
    for _ in range(chosen.rounds):
        passes += forward(model, x, 2)
        for contender, run in runs.items():
            times[contender] += run(chosen.steps)
        passes += forward(model, x, 2)
    unit = statistics.median(passes)
    return {
        "batch": batch,
        "size": size,
        "forward_seconds": unit,
        "floor": FLOORS.get(method),
        "contenders": {
            contender: {
                "seconds": statistics.median(found),
                "forwards": statistics.median(found) / unit,
                "steps": len(found),
            }
            for contender, found in times.items()
        },
    }


def peak(name: str, method: str, batch: int, contender: str, folder: Path | None) -> float:
    """Peak memory in MiB of a fresh process that makes two steps, without that of the network."""
    command = [sys.executable, __file__, "--model", name, "--method", method]
    command += ["--batch", str(batch), "--threads", str(torch.get_num_threads())]
    command += ["--only", contender]
    if folder is not None:
        command += ["--reference", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def only(name: str, method: str, batch: int, contender: str, folder: Path | None) -> float:
    """The growth of this process's memory at its peak, in MiB, by the steps of one contender."""
    model, size = network(name)
    run = contenders(model, images(batch, size), method, folder)[contender]
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not hide what is used now
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    before = _status("VmRSS")
    run(2)
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    """An entry of this process's status, in KiB."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)
    )
    return int(line.split()[1])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", help=f"{', '.join(MODELS)} if not given")
    parser.add_argument("--method", action="append", help=f"{', '.join(METHODS)} if not given")
    parser.add_argument("--reference", type=Path, help="clone of the reference")
    parser.add_argument("--batch", type=int, action="append", help="1 if not given")
    parser.add_argument("--alone", action="store_true", help="trompe only: for throughput")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="per round and contender")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", action="store_true", help="measure the peak memory too")
    parser.add_argument("--print", dest="keep", action="store_false", help="write nothing")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.only:
        found = only(
            *(chosen.model[0], chosen.method[0], chosen.batch[0]), chosen.only, chosen.reference
        )
        print(found)
        return
    known = RESULTS / "step.json"
    results: dict[str, Any] = {"models": {}}
    if known.exists():
        results["models"] = json.loads(known.read_text())["models"]
    cases = itertools.product(chosen.model or MODELS, chosen.method or METHODS, chosen.batch or [1])
    for name, method, batch in cases:
        found = measure(name, method, batch, chosen.reference, chosen)
        if chosen.memory:
            for contender, entry in found["contenders"].items():
                entry["peak_mib"] = peak(name, method, batch, contender, chosen.reference)
        found["threads"] = describe()["threads"]
        key = method if batch == 1 else f"{method} x{batch}"
        results["models"].setdefault(name, {})[key] = found
        row = "  ".join(
            f"{contender} {entry['forwards']:.1f}"
            + (f" ({entry['peak_mib']:.0f} MiB)" if "peak_mib" in entry else "")
            for contender, entry in found["contenders"].items()
        )
        print(f"{name} {key}: forward {found['forward_seconds']:.3f} s; {row}", flush=True)
        if chosen.keep:
            save("step", results)


if __name__ == "__main__":
    main()
