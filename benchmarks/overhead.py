"""What a change costs: maps and attack steps of two source trees, side by side.

    python benchmarks/overhead.py --before TREE/src --after src

Each tree runs in a process of its own, on one thread. The processes take turns, call by call, and
count the time that their processor spent on them, so that other work on the machine changes little.
The ratio of a round is taken of its two medians; the median over the rounds counts, and its
quartiles are reported. A step's time is that between two reports of an attack's progress: all of
the step, its constraint and its notes included, judging every tenth iterate apart.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODELS = ("plain", "tiny-vgg", "resnet18")
METHODS = ("gradient", "lrp", "guided_backprop")
TASKS = ("map", "map, smoothed", "step", "step, captured")
_STEPS = 9  # the tenth is judged on the original model


def _network(name: str) -> tuple[Any, int]:
    import torch
    from torch import nn

    torch.manual_seed(0)
    if name == "tiny-vgg":
        import trompe

        return trompe.load_model(name).model, 64
    if name == "resnet18":
        import torchvision

        return torchvision.models.resnet18(num_classes=10).eval().requires_grad_(False), 64
    net = nn.Sequential(
        *(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(5, 6, 3), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(24, 7), nn.ReLU(), nn.Linear(7, 4)),
    )
    with torch.no_grad():
        net[-1].bias += 3.0  # logits above zero, without which there is no map of LRP
    return net.eval().requires_grad_(False), 8


def _work(model_name: str, method: str, task: str) -> Callable[[], list[float]]:
    """A function that does the work once or a few times, and returns the seconds of each."""
    import torch

    import trompe
    from trompe.engine import smooth

    model, size = _network(model_name)
    x = 0.5 * torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    target = model(x).argmax(1)
    explainer = trompe.explainer(method)
    if task.startswith("map"):
        explained = smooth(model, beta=10.0) if "smoothed" in task else model
        count = 10 if model_name == "plain" else 1

        def maps() -> list[float]:
            times = []
            for _ in range(count):
                start = time.thread_time()
                explainer(explained, x, target)
                times.append(time.thread_time() - start)
            return times

        return maps
    aim = torch.rand(size, size, generator=torch.Generator().manual_seed(2))
    capture: Any = "graph" if "captured" in task else "never"

    def steps() -> list[float]:
        ends: list[float] = []
        trompe.manipulate(
            model,
            x,
            aim,
            explainer=explainer,
            preset="paper",
            iterations=_STEPS,
            capture=capture,
            progress=lambda *_: ends.append(time.thread_time()),
        )
        return [later - sooner for sooner, later in itertools.pairwise(ends)]

    return steps


def worker() -> None:
    """Answer each line, a case as JSON, with the seconds of its work."""
    import torch

    torch.set_num_threads(1)
    known: dict[str, Callable[[], list[float]]] = {}
    for line in sys.stdin:
        if line not in known:
            known[line] = _work(*json.loads(line))
            known[line]()
        print(json.dumps(known[line]()), flush=True)


class Worker:
    """A process with one source tree.

    Args:
        tree: the folder that holds the package ``trompe``.
    """

    def __init__(self, tree: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(tree.resolve()), "OMP_NUM_THREADS": "1"},
        )

    def times(self, case: tuple[str, str, str]) -> list[float]:
        """Seconds of one turn.

        Raises:
            RuntimeError: if the process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(case) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{case} failed")
        found: list[float] = json.loads(answer)
        return found

    def end(self) -> None:
        """Let the process end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def compare(before: Worker, after: Worker, case: Any, rounds: int) -> dict[str, float]:
    """The medians of both, and of their ratios, over all rounds."""
    sums: dict[Worker, list[float]] = {before: [], after: []}
    for worker in sums:
        worker.times(case)
    for number in range(rounds):
        pair = (before, after) if number % 2 == 0 else (after, before)
        for worker in pair:
            sums[worker].append(statistics.median(worker.times(case)))
    ratios = [new / old for old, new in zip(sums[before], sums[after], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "before_ms": round(1e3 * statistics.median(sums[before]), 3),
        "after_ms": round(1e3 * statistics.median(sums[after]), 3),
        "ratio": round(middle, 3),
        "ratio_low": round(low, 3),
        "ratio_high": round(high, 3),
        "rounds": rounds,
    }


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="the folder with the package as it was")
    parser.add_argument("--after", type=Path, help="the folder with the package as it is")
    parser.add_argument("--model", action="append", choices=MODELS, help="all if not given")
    parser.add_argument("--method", action="append", choices=METHODS, help="all if not given")
    parser.add_argument("--task", action="append", choices=TASKS, help="all if not given")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--print", dest="keep", action="store_false", help="write nothing")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        worker()
        return
    if chosen.before is None or chosen.after is None:
        parser.error("give both trees: --before and --after")
    before, after = Worker(chosen.before), Worker(chosen.after)
    cases = itertools.product(
        chosen.model or MODELS, chosen.task or TASKS, chosen.method or METHODS
    )
    results: dict[str, Any] = {}
    for model, task, method in cases:
        found = compare(before, after, (model, method, task), chosen.rounds)
        results.setdefault(model, {}).setdefault(task, {})[method] = found
        print(f"{model} {task} {method}: {found}", flush=True)
    before.end()
    after.end()
    if chosen.keep:
        import torch
        from machine import save

        torch.set_num_threads(1)
        save("overhead", {"clock": "processor time of one thread", "models": results})


if __name__ == "__main__":
    main()
