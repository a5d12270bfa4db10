"""Attack steps and maps beside those of an earlier commit: is anything slower than it was?

    python benchmarks/against_commit.py c2afa08 --model tiny-vgg --method gradient --method lrp

Two processes stand side by side, one with the code of this tree and one with that of the commit,
unpacked into a temporary folder; each builds the same networks, images and problems
(``problem.py``). They work in turns, never at once, on one thread and by processor time, in pairs
whose order is drawn anew; the ratio is the median over the pairs. What is done once per model and
shape, recording and checks, is not in it (docs/decisions.md states its cost). Written to
``benchmarks/results/against_commit.json``.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from machine import RESULTS, save

ROOT = Path(__file__).parents[1]

WORKER = """
import json, statistics, sys, time
import torch
torch.set_num_threads(1)
import trompe
from accelerator import count_processor_time
from contenders import contenders
from problem import images, network, problem

count_processor_time()
tasks = {}

def task_of(name, method, batch):
    if (name, method) not in tasks:
        model, size = network(name)
        task = problem(model, images(batch, size), method)
        explainer = task.explainer()
        step = contenders(task, None)["trompe"].run
        tasks[name, method] = step, lambda: explainer(task.model, task.x, task.target)
    return tasks[name, method]

print(json.dumps(trompe.__file__), flush=True)
for line in sys.stdin:
    what, name, method, batch, count = json.loads(line)
    step, map_once = task_of(name, method, batch)
    if what == "step":
        times = step(count)
    else:
        times = []
        for _ in range(count):
            start = time.process_time()
            map_once()
            times.append(time.process_time() - start)
    print(json.dumps(statistics.median(times)), flush=True)
"""


class Side:
    """A process with the code of one tree."""

    def __init__(self, tree: Path) -> None:
        path = os.pathsep.join(str(tree / name) for name in ("src", "benchmarks"))
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        home = Path(self.answer())
        if tree not in home.parents:
            raise SystemExit(f"{home} was imported instead of the code in {tree}")

    def answer(self) -> Any:
        """The next line that the process writes."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a process ended early; what it wrote is above")
        return json.loads(line)

    def seconds(self, what: str, name: str, method: str, batch: int, count: int) -> float:
        """Processor time of one of ``count`` steps or maps, the median."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([what, name, method, batch, count]) + "\n")
        self.process.stdin.flush()
        return float(self.answer())


def unpacked(commit: str, folder: Path) -> Path:
    """The source and benchmarks of a commit, in a folder."""
    command = ["git", "-C", str(ROOT), "archive", commit, "src", "benchmarks"]
    found = subprocess.run(command, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def compared(sides: list[Side], job: tuple[str, str, str, int], rounds: int) -> dict[str, Any]:
    """Ratios of this tree's times to the commit's, over pairs."""
    for side in sides:  # what is made once
        side.seconds(*job, 2)
    count = min(40, max(3, round(0.4 / sides[0].seconds(*job, 3))))
    draw = random.Random(0)
    pairs = []
    for _ in range(rounds):
        times: dict[Side, float] = {}
        for side in draw.sample(sides, 2):
            times[side] = side.seconds(*job, count)
        pairs.append([times[side] for side in sides])
    ratios = sorted(now / before for now, before in pairs)
    return {
        "seconds": statistics.median(now for now, _ in pairs),
        "seconds_before": statistics.median(before for _, before in pairs),
        "ratio": round(statistics.median(ratios), 3),
        "quartiles": [round(value, 3) for value in statistics.quantiles(ratios, n=4)[::2]],
        "pairs": rounds,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit")
    parser.add_argument("--model", action="append", help="repeat for several; tiny-vgg if none")
    parser.add_argument("--method", action="append", help="repeat for several")
    parser.add_argument("--what", choices=("step", "map"), action="append", help="both if none")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    path = RESULTS / "against_commit.json"
    known = json.loads(path.read_text()).get(options.commit, {}) if path.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        sides = [Side(ROOT), Side(unpacked(options.commit, Path(temporary).resolve()))]
        for name in options.model or ["tiny-vgg"]:
            for method in options.method or ["gradient", "lrp", "guided_backprop"]:
                for what in options.what or ["step", "map"]:
                    job = (what, name, method, options.batch)
                    row = compared(sides, job, options.rounds)
                    known[f"{name}/{method}/{what}/{options.batch}"] = row
                    print(json.dumps({f"{name}/{method}/{what}": row}), flush=True)
                    save("against_commit", {options.commit: known})


if __name__ == "__main__":
    main()
