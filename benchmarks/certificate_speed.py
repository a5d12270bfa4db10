"""How long certificates from noise take: seconds of one core for 10,000 maps, streamed.

    --model tiny-vgg --samples 10000 --explainer gradient --explainer lrp

The whole of ``certify(method="noise")`` on one image counts: drawing the copies, their maps, the
sums over squares, and all bounds at three radii. Time is the processor's (``time.process_time``),
with one thread; the goal for tiny-vgg is 40 s. The process's memory is its peak. Written to
``benchmarks/results/certificate_speed.json``.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

import torch
from machine import save
from skimage.data import chelsea

import trompe
from trompe.explain import fitted
from trompe.zoo import load_model
from trompe.zoo.images import fit_pixels


def measured(name: str, explainer: str, options: argparse.Namespace) -> dict[str, Any]:
    """Certify one image, the first call's warming left out, and say what it took."""
    loaded = load_model(name)
    pixels = fit_pixels(torch.from_numpy(chelsea()).permute(2, 0, 1) / 255, loaded.preprocessing)
    x = loaded.input_space.from_pixels(pixels[None])
    method = fitted(explainer, loaded)

    def certified(samples: int) -> Any:
        return trompe.certify(
            loaded,
            x,
            method="noise",
            explainer=method,
            sigma=0.1,
            radius=[0.025, 0.05, 0.1],
            samples=samples,
            pool=options.pool,
            batch_size=options.batch_size,
        )

    certified(200)
    began, wall = time.process_time(), time.perf_counter()
    found = certified(options.samples)
    return {
        "model": name,
        "explainer": explainer,
        "samples": options.samples,
        "pool": options.pool,
        "batch_size": options.batch_size,
        "cpu_seconds": round(time.process_time() - began, 2),
        "seconds": round(time.perf_counter() - wall, 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "pcc": [round(value, 4) for value in found.pcc[0].tolist()],
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", help="repeat for several")
    parser.add_argument("--explainer", action="append", help="repeat for several")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--pool", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--print", action="store_true", help="write no file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in options.model or ["tiny-vgg"]:
        for explainer in options.explainer or ["gradient", "lrp", "grad_cam"]:
            rows.append(measured(name, explainer, options))
            print(rows[-1], flush=True)
    if not options.print:
        save("certificate_speed", {"goal_cpu_seconds": 40, "rows": rows})


if __name__ == "__main__":
    main()
