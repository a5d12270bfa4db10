"""The time of one attack step, in forward passes of the same network and batch.

    python benchmarks/step.py --model vgg16 --method gradient --method lrp --reference DIR

All contenders run in one process, one after the other, round after round; the medians over all
steps count. DIR is a clone of pankessel/adv_explanation_ref made by you; its code is imported,
never copied. Peak memory is that of a fresh process per contender. ``--check`` compares the
contenders' gradients of the loss instead, in double precision. What was measured before, of other
models and methods, stays in ``benchmarks/results/step.json``; a GPU's results go to a file of their
own, ``step_CARD.json``, or ``step_CARD_tf32.json`` with ``--tf32``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from accelerator import (
    count_processor_time,
    forward_operations,
    matrix_rate,
    now,
    peak_mib,
    precision,
    results_name,
)
from contenders import contenders, disagreement, in_double
from machine import RESULTS, describe, save
from problem import METHODS, MODELS, PAPER, Problem, images, network, problem
from torch import Tensor, nn


def forward(model: nn.Module, x: Tensor, count: int) -> list[float]:
    """Seconds of forward passes alone."""
    times = []
    with torch.inference_mode():
        for _ in range(count):
            start = now(x.device)
            model(x)
            times.append(now(x.device) - start)
    return times


def task_of(name: str, method: str, batch: int, device: torch.device) -> Problem:
    """The problem of attacking one method on one network."""
    model, size = network(name)
    return problem(model.to(device), images(batch, size).to(device), method)


def measure(task: Problem, chosen: argparse.Namespace) -> dict[str, Any]:
    """Interleaved times of all contenders."""
    model, x, floor = task.model, task.x, task.case.floor
    runs = {name: found.run for name, found in contenders(task, chosen.reference).items()}
    if chosen.alone:
        runs = {"trompe": runs["trompe"]}
    passes: list[float] = []
    times: dict[str, list[float]] = {contender: [] for contender in runs}
    forward(model, x, 3)
    for run in runs.values():  # what is made once: split weights, buffers
        run(1)
    for _ in range(chosen.rounds):
        passes += forward(model, x, 2)
        for contender, run in runs.items():
            times[contender] += run(chosen.steps)
        passes += forward(model, x, 2)
    unit = statistics.median(passes)
    needed = forward_operations(model, x) * (floor or 0)
    result: dict[str, Any] = {
        "batch": len(x),
        "size": x.shape[-1],
        "threads": describe()["threads"],
        "clock": "processor" if chosen.processor_time else "wall",
        "forward_seconds": unit,
        "floor": floor,
        "contenders": {},
    }
    for contender, found in times.items():
        seconds = statistics.median(found)
        result["contenders"][contender] = {
            "seconds": seconds,
            "forwards": seconds / unit,
            "images_per_second": len(x) / seconds,
            "steps": len(found),
            "operations_per_second": needed / seconds if floor else None,
        }
    return result


def peak(name: str, method: str, batch: int, contender: str, chosen: argparse.Namespace) -> float:
    """Peak memory in MiB of a fresh process that makes two steps, without that of the network."""
    command = [sys.executable, __file__, "--model", name, "--method", method]
    command += ["--batch", str(batch), "--threads", str(torch.get_num_threads())]
    command += ["--device", str(chosen.device), "--only", contender]
    command += ["--tf32"] if chosen.tf32 else []
    command += ["--reference", str(chosen.reference)] if chosen.reference else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def row_of(key: str, result: dict[str, Any]) -> str:
    """A result in one line, with the ratio to plain autograd where that was measured."""
    found = result["contenders"]
    parts = [
        f"{contender} {entry['forwards']:.1f}"
        + (f" ({entry['peak_mib']:.0f} MiB)" if "peak_mib" in entry else "")
        for contender, entry in found.items()
    ]
    line = f"{key}: forward {1e3 * result['forward_seconds']:.1f} ms; floor {result['floor']}; "
    line += "  ".join(parts)
    if "autograd" in found:
        line += f"; {found['trompe']['seconds'] / found['autograd']['seconds']:.2f} x autograd"
    return line


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", help=f"{', '.join(MODELS)} if not given")
    parser.add_argument(
        "--method",
        action="append",
        choices=(*METHODS, "paper", "all"),
        help="paper: the six of the paper; all if not given",
    )
    parser.add_argument("--reference", type=Path, help="clone of the reference")
    parser.add_argument("--batch", type=int, action="append", help="1 if not given")
    parser.add_argument("--alone", action="store_true", help="trompe only: for throughput")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="per round and contender")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", type=torch.device, default="cpu", help="cpu or cuda")
    parser.add_argument("--tf32", action="store_true", help="let a GPU round factors to TF32")
    parser.add_argument("--processor-time", action="store_true", help="of one thread; no waiting")
    parser.add_argument("--memory", action="store_true", help="measure the peak memory too")
    parser.add_argument("--check", action="store_true", help="compare gradients, time nothing")
    parser.add_argument("--print", dest="keep", action="store_false", help="write nothing")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    groups = {"all": tuple(METHODS), "paper": PAPER}
    if chosen.processor_time and (chosen.threads > 1 or chosen.device.type != "cpu"):
        parser.error("--processor-time counts one thread on a processor")
    named = (groups.get(method, (method,)) for method in chosen.method or ["all"])
    chosen.method = list(dict.fromkeys(itertools.chain.from_iterable(named)))
    return chosen


def main() -> None:
    """Measure, print, write."""
    chosen = arguments()
    torch.set_num_threads(chosen.threads)
    precision(chosen.tf32)
    if chosen.processor_time:
        count_processor_time()
    cases = itertools.product(chosen.model or MODELS, chosen.method, chosen.batch or [1])
    if chosen.only:
        for case in cases:
            run = contenders(task_of(*case, chosen.device), chosen.reference)[chosen.only].run
            print(peak_mib(chosen.device, lambda run=run: run(2)))
        return
    base = results_name("step", chosen.device, chosen.tf32)
    known = RESULTS / f"{base}.json"
    results: dict[str, Any] = {"models": {}}
    if known.exists():
        results["models"] = json.loads(known.read_text())["models"]
    if not chosen.check:
        results["tf32"] = chosen.tf32
        results["matrix_operations_per_second"] = matrix_rate(chosen.device)
    for name, method, batch in cases:
        key = method if batch == 1 else f"{method} x{batch}"
        if method in ("pattern_attribution", "pattern_net") and name == "resnet18":
            continue  # not defined for networks with batch norm
        task = task_of(name, method, batch, chosen.device)
        if chosen.check:
            errors = disagreement(in_double(task), chosen.reference)
            print(name, key, {who: f"{error:.0e}" for who, error in errors.items()}, flush=True)
            continue
        found = measure(task, chosen)
        if chosen.memory:
            for contender, entry in found["contenders"].items():
                entry["peak_mib"] = peak(name, method, batch, contender, chosen)
        results["models"].setdefault(name, {})[key] = found
        print(f"{name} {row_of(key, found)}", flush=True)
        if chosen.keep:
            save(base, results)


if __name__ == "__main__":
    main()
