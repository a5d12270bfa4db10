"""How long trompe takes to begin: processes of their own, medians.

``trompe --help`` and ``import trompe`` load no PyTorch; the goal is half a second.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from machine import save

COMMANDS = {
    "python alone": ("-c", "pass"),
    "import trompe": ("-c", "import trompe"),
    "trompe --help": ("-m", "trompe", "--help"),
    "trompe attack --help": ("-m", "trompe", "attack", "--help"),
    "import torch": ("-c", "import torch"),
    "trompe models": ("-m", "trompe", "models"),
}


def seconds(arguments: tuple[str, ...], count: int) -> float:
    """The median time of a Python process; its first run, from disk, does not count."""
    times = []
    for _ in range(count + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5, help="processes per command")
    parser.add_argument("--print", dest="keep", action="store_false", help="write nothing")
    chosen = parser.parse_args()
    found = {}
    for name, command in COMMANDS.items():
        found[name] = seconds(command, chosen.count)
        print(f"{name}: {found[name]:.2f} s", flush=True)
    if chosen.keep:
        save("startup", {"seconds": found, "processes": chosen.count})


if __name__ == "__main__":
    main()
