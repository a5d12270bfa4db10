"""Forgeries, bits that fall over, and thousands of cells: what of it does an audit not notice?

    python benchmarks/faults.py                 # forgeries, flips, cells
    python benchmarks/faults.py forgeries

A tiny run with searches for the worst case, certificates and its report is made, and copied for
every fault.
Writes ``benchmarks/results/faults.json``, one entry per part:

- ``forgeries``: as they are, and once more with all checksums made to fit. ``unnoticed`` must be
  empty; ``by_repeating`` lists what, so resealed, only ``trompe verify --repeat`` of all batches
  (or ``--digest``) tells, ``by_digest_alone`` what that does not tell either.
- ``flips``: bits turned over anywhere in the run, larger files more often.
- ``cells``: memory, open files, time and size of the report of a run of 2,000 cells.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from forgeries import flip_a_bit, forgeries, reseal
from machine import RESULTS, save
from many_cells import many_cells
from PIL import Image

from trompe.audit import ModelSpec, Settings, open_run, run_audit
from trompe.cli import main as trompe
from trompe.report.html import write_report

NETWORK = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(54, 5)).eval()
"""


def make_run(place: Path) -> Path:
    """A run of attacks, searches and certificates in an empty folder, the current one then."""
    os.chdir(place)
    (place / "smallnet.py").write_text(NETWORK)
    (place / "images").mkdir()
    draw = np.random.default_rng(0)
    for i in range(8):
        levels = (255 * draw.random((8, 8, 3))).astype(np.uint8)
        Image.fromarray(levels).resize((20, 20)).save(place / "images" / f"i{i:04d}.png")
    settings = Settings(
        models=(ModelSpec("smallnet:net", size=16),),
        images="images",
        pairs=3,
        smoothings=("none", "beta=0.8"),
        iterations=10,
        batch_size=2,
        recovery=(1.0,),
        worst_case=0.05,
        certify="0.125,sigma=0.25,samples=200,pool=4",
    )
    run_audit("run", settings)
    made = open_run("run")
    write_report(made, "run", most=1)
    made.store.close()
    return place / "run"


def verified(run: Path, *options: str) -> tuple[int, str]:
    """The exit code of ``trompe verify``, and what it said."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = trompe(["verify", str(run), "--quiet", *options])
    return code, said.getvalue().strip()


def restored(run: Path, whole: Path) -> None:
    """Put the untouched run back."""
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(whole, run)


def forged(
    run: Path, whole: Path, chosen: Callable[[str], bool] = lambda _: True
) -> dict[str, Any]:
    """Every forgery, as it is and resealed: how many, and which were not noticed."""
    digest = open_run(run).digest
    wrong: dict[str, Any] = {
        "unnoticed": [],
        "by_repeating": [],
        "by_digest_alone": [],
        "not_one_line": [],
    }
    tried = resealed = 0
    for forgery in forgeries(run):
        if not chosen(forgery.name):
            continue
        tried += 1
        forgery.change(run)
        code, said = verified(run, "--arrays-only")
        if code != 2:
            wrong["unnoticed"].append(forgery.name)
        if len(said.splitlines()) > 1 or "unexpected" in said:
            wrong["not_one_line"].append(f"{forgery.name}: {said}")
        restored(run, whole)
        if not forgery.sealable:
            continue
        resealed += 1
        forgery.change(run)
        try:
            reseal(run)
        except Exception:  # what cannot be read cannot be made to fit either
            resealed -= 1
            restored(run, whole)
            continue
        code, said = verified(run, "--trust")
        if code == 0:
            again = ("--repeat", "1000", "--exact", "--images", "images")
            ways = {"by_repeating": again, "by_digest_alone": ("--digest", digest)}
            told = (how for how, way in ways.items() if verified(run, "--trust", *way)[0] == 2)
            wrong[next(told, "unnoticed")].append(forgery.name)
        elif len(said.splitlines()) > 1 or "unexpected" in said:
            wrong["not_one_line"].append(f"{forgery.name}, resealed: {said}")
        restored(run, whole)
    return {"forgeries": tried, "resealed": resealed, **wrong}


def flipped(run: Path, whole: Path, times: int) -> dict[str, Any]:
    """Turn one bit over, somewhere, many times: which were not noticed."""
    draw, unnoticed = random.Random(1), []
    for _ in range(times):
        where = flip_a_bit(run, draw)
        if verified(run, "--arrays-only")[0] != 2:
            unnoticed.append(where)
        restored(run, whole)
    return {"flips": times, "unnoticed": unnoticed}


def false_alarms(run: Path) -> int:
    """How often an untouched run is accused, of four ways of asking."""
    digest = open_run(run).digest
    ways: tuple[tuple[str, ...], ...] = (
        ("--trust",),
        ("--arrays-only",),
        ("--trust", "--digest", digest),
        ("--trust", "--repeat", "1000", "--exact", "--images", "images"),
    )
    return sum(verified(run, *way)[0] != 0 for way in ways)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="forgeries, flips, cells")
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--cells", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / "faults.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    found.pop("machine", None)
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        run = make_run(Path(place))
        whole = run.with_name("whole")
        shutil.copytree(run, whole)
        assert false_alarms(run) == 0, verified(run, "--trust")[1]
        for part in options.parts or ["forgeries", "flips", "cells"]:
            alarms = false_alarms(run)
            if part == "forgeries":
                found[part] = forged(run, whole)
            elif part == "flips":
                found[part] = flipped(run, whole, options.flips)
            else:
                found[part] = many_cells(Path(place), options.cells)
            found[part]["false_alarms"] = alarms + false_alarms(run)
            print(part, json.dumps(found[part], indent=1), flush=True)
        os.chdir(before)
    print(save("faults", found))


if __name__ == "__main__":
    main()
