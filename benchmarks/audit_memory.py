"""Peak memory of an audit against the number of images: it must not grow.

Every audit runs in a process of its own, on the embedded network and crops of scikit-image's
photos, one cell per image; the processes run side by side, which has no part in their memory. The
peak is what the system reports of the process at its end (``ru_maxrss``: all memory in RAM,
libraries included).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from machine import save
from PIL import Image

#: Runs an audit and prints what it took; the folder, the images and their number are appended.
PROGRAM = """
import json, resource, sys
import torch
from trompe.audit import Settings, run_audit

torch.set_num_threads(1)
folder, images, count, iterations, batch = *sys.argv[1:3], *map(int, sys.argv[3:])
settings = Settings(
    images=images,
    presets=("fast",),
    pairs=count,
    iterations=iterations,
    batch_size=batch,
    recovery=(),
)
status = run_audit(folder, settings)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"cells": status.done, "errors": status.errors, "peak_mib": round(peak, 1)}))
"""


def write_crops(folder: Path, count: int) -> None:
    """Write ``count`` different crops of scikit-image's photos as JPEG files."""
    from skimage import data

    photos = [Image.fromarray(photo) for photo in (data.cat(), data.coffee(), data.rocket())]
    draw = torch.Generator().manual_seed(0)
    folder.mkdir()
    for number in range(count):
        photo = photos[number % len(photos)]
        room = (photo.width - 128, photo.height - 128)
        left, top = (int(torch.randint(side, (1,), generator=draw)) for side in room)
        photo.crop((left, top, left + 128, top + 128)).save(folder / f"{number:05d}.jpg")


def measured(iterations: int, batch: int, count: int) -> dict[str, float]:
    """Run one audit of ``count`` images and as many cells in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        images = Path(place) / "images"
        write_crops(images, count)
        arguments = [str(Path(place) / "run"), str(images), count, iterations, batch]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *map(str, arguments)],
            check=True,
            capture_output=True,
            text=True,
        )
    found: dict[str, float] = json.loads(done.stdout)
    return {"images": count, **found}


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, action="append", help="numbers of images")
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    counts = options.images or [10, 100, 1000]
    rows = []
    with ThreadPoolExecutor(len(counts)) as pool:
        for row in pool.map(partial(measured, options.iterations, options.batch_size), counts):
            rows.append(row)
            print(row, flush=True)
    growth = rows[-1]["peak_mib"] / rows[0]["peak_mib"]
    settings = {"model": "tiny-vgg", "method": "gradient", "preset": "fast"}
    settings |= {"iterations": options.iterations, "batch_size": options.batch_size}
    path = save("audit_memory", {"settings": settings, "rows": rows, "growth": round(growth, 3)})
    print(f"growth {growth:.3f}; written to {path}")


if __name__ == "__main__":
    main()
