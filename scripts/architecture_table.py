"""Try every method on every architecture; the tables of the README and the docs are made from it.

Random weights, images of 32 to 64 pixels (those a network needs), double precision:

    python scripts/architecture_table.py               # what is missing
    python scripts/architecture_table.py resnet18      # what is missing of these
    python scripts/architecture_table.py --redo swin_t
    python scripts/architecture_table.py --maps        # all again but derivatives: soon done
    python scripts/architecture_table.py --method rise # again, of this method alone

Each network's rows are added to ``benchmarks/results/architectures.json`` as soon as they are
there; the same command goes on where it was, and several may run at once. timm's networks and
Hugging Face's need those packages. ``scripts/render_readme.py`` writes the tables.
"""

from __future__ import annotations

import argparse
import copy
import fcntl
import importlib.metadata
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from networks import NETWORKS
from oracles import agreement
from torch import Tensor, nn

import trompe
from trompe.atomic import atomic_path
from trompe.cli.coverage import candidates, check

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "architectures.json"


def versions() -> dict[str, str]:
    """The installed versions of the packages that networks come from."""
    found = {}
    for package in ("torch", "torchvision", "timm", "transformers"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def known() -> dict[str, Any]:
    """What was tried so far."""
    networks: dict[str, Any] = (
        json.loads(RESULTS.read_text())["networks"] if RESULTS.exists() else {}
    )
    return networks


def keep(name: str, entry: dict[str, Any]) -> None:
    """Add one network to the results, which other processes may be adding to."""
    with RESULTS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        networks = {**known(), name: entry}
        ordered = {key: networks[key] for key in NETWORKS if key in networks}
        with atomic_path(RESULTS) as fresh:
            fresh.write_text(json.dumps({"networks": ordered}, indent=1) + "\n")


def attempt(
    name: str, derivative: bool = True, methods: Sequence[str] | None = None
) -> dict[str, Any]:
    """All methods on one network, or some again.

    Args:
        name: Of ``NETWORKS``.
        derivative: Whether derivatives are tried too; without, those known already are kept, and
            the entry says that they are older than the maps.
        methods: Those to try; all by default. The rows of others are kept as they are, and so is
            what the entry says of the whole network.
    """
    make, size = NETWORKS[name]
    torch.manual_seed(0)
    model = make()
    pixels = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    x = trompe.InputSpace().from_pixels(pixels)  # within the bounds of z_B
    start = time.perf_counter()
    found = check(model, x, methods, derivative=derivative)
    rows = {
        row.method: {key: value for key, value in asdict(row).items() if key != "method"}
        for row in found
    }
    entry = known().get(name, {})
    earlier = entry.get("methods", {})
    if not derivative:
        merge(rows, earlier)
    for method, (oracle, error) in compared(model, x).items():
        if method in rows:
            rows[method] |= {"oracle": oracle, "oracle_error": error}
    seconds = round(time.perf_counter() - start)
    whole = {
        "size": size,
        "seconds": seconds if derivative else entry.get("seconds", seconds),
        "versions": versions(),
    }
    if methods is not None and entry:
        whole = {key: entry[key] for key in whole}
        every = {**earlier, **rows}
        rows = {method: every[method] for method in candidates() if method in every}
        derivative = derivative and entry["derivatives"] == "with the maps"
    return {**whole, "derivatives": _tried(rows, derivative), "methods": rows}


def _tried(rows: dict[str, Any], derivative: bool) -> str:
    """When the derivatives of a network were tried."""
    if derivative:
        return "with the maps"
    earlier = any(row["derivative_error"] is not None for row in rows.values())
    return "older than the maps" if earlier else "not tried"


def merge(rows: dict[str, Any], earlier: dict[str, Any]) -> None:
    """Keep the derivatives that were found before, where map and derivative were fine."""
    for method, row in rows.items():
        before = earlier.get(method)
        if before is not None and before["status"] == row["status"] == "works":
            row["derivative_error"] = before["derivative_error"]


def compared(model: nn.Module, x: Tensor) -> dict[str, tuple[str, float]]:
    """The oracles' verdicts, in double precision."""
    exact = copy.deepcopy(model).double().eval().requires_grad_(False)
    x = x.double()
    with torch.no_grad():
        target = exact(x).argmax(dim=1)
    return agreement(exact, x, target)


def main() -> None:
    """Try what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="all if none is given")
    parser.add_argument("--redo", action="store_true", help="also what was tried before")
    parser.add_argument("--maps", action="store_true", help="all again but the derivatives")
    parser.add_argument("--method", action="append", choices=candidates(), help="this alone again")
    arguments = parser.parse_args()
    again = arguments.redo or arguments.maps or arguments.method
    torch.set_num_threads(1)
    for name in arguments.networks or NETWORKS:
        if name in known() and not again:
            continue
        try:
            entry = attempt(name, derivative=not arguments.maps, methods=arguments.method)
        except ImportError as missing:
            print(f"{name}: left out ({missing})", flush=True)
            continue
        keep(name, entry)
        count: dict[str, int] = {}
        for row in entry["methods"].values():
            count[row["status"]] = count.get(row["status"], 0) + 1
        print(f"{name}: {count}, {entry['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
