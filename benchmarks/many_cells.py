"""A run of thousands of cells: its memory, its open files, and the report of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

#: Runs an audit, and prints memory and open files after every tenth of it, and at the end what its
#: report took; the number of images is appended.
PROGRAM = """
import json, os, sys, time
import torch
from trompe.audit import ModelSpec, Settings, open_run, run_audit
from trompe.report.html import write_report
from trompe.robustness import batch

torch.set_num_threads(1)
batch.QUERIES = 40
count, seen, next_one = int(sys.argv[1]), [], 0

def now():
    pages = int(open("/proc/self/statm").read().split()[1])
    return {"mib": round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1),
            "files": len(os.listdir("/proc/self/fd"))}

def watch(status):
    global next_one
    if status.done + status.errors >= next_one:
        seen.append({"cells": status.done + status.errors, **now()})
        next_one += max(1, status.cells // 10)

settings = Settings(models=(ModelSpec("smallnet:net", size=16),), images="many", pairs=count,
                    iterations=2, batch_size=10, recovery=(), worst_case=0.01)
status = run_audit("large", settings, watch=watch)
run, began, cpu = open_run("large"), time.perf_counter(), time.process_time()
write_report(run, "out")
seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
run.store.close()
size = os.path.getsize("out/report.html") / 2**20
print(json.dumps({"cells": status.done, "failed": status.errors, "during": seen, "after": now(),
                  "report_seconds": round(seconds, 2),
                  "report_cpu_seconds": round(cpu, 2), "report_mib": round(size, 3)}))
"""


def many_cells(place: Path, cells: int) -> dict[str, Any]:
    """Run it in a process of its own, in a folder that holds ``smallnet.py``; half are searches."""
    import numpy as np
    from PIL import Image

    (place / "many").mkdir()
    draw = np.random.default_rng(1)
    for i in range(cells // 2):
        levels = (255 * draw.random((8, 8, 3))).astype(np.uint8)
        Image.fromarray(levels).resize((20, 20)).save(place / "many" / f"i{i:05d}.png")
    command = [sys.executable, "-c", PROGRAM, str(cells // 2)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=place)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    during = [one for one in found["during"] if one["cells"] >= cells // 10]
    if during:
        found["growth"] = round(during[-1]["mib"] / during[0]["mib"], 3)
        found["files_growth"] = during[-1]["files"] - during[0]["files"]
    return found
