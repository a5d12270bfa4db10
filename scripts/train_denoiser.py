"""Trains the denoiser that stands before networks which were not trained with noise.

Example::

    python scripts/train_denoiser.py --photos imagenet_samples --train train.npz

``--photos`` is a folder of photos of which every fifth, in the order of names, is held out;
``--train`` an ``.npz`` of JPEG files (see ``train_tiny.py``). Crops of 64 pixels, half of each
batch from either source, get Gaussian noise of a standard deviation drawn evenly from 0 to 0.25
(pixel units); the loss is the mean square of what is left. Writes ``denoiser.safetensors`` and a
log, ``denoiser.json``, with the PSNR on the held-out photos.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from train_tiny import read_data, update_average

from trompe.zoo.denoiser import LARGEST, Denoiser

CROP = 64
HELD_OUT = 5
"""Every so many-th photo is held out."""


def photos(folder: Path) -> tuple[list[Tensor], list[Tensor]]:
    """The photos to train with and the held-out ones, uint8 [3, H, W], shorter side 256."""
    train, held = [], []
    for index, path in enumerate(sorted(folder.glob("*.jpg"))):
        with Image.open(path) as image:
            rgb = image.convert("RGB")
        scale = 256 / min(rgb.size)
        sizes = (round(rgb.width * scale), round(rgb.height * scale))
        pixels = torch.from_numpy(np.asarray(rgb.resize(sizes, Image.Resampling.BICUBIC)).copy())
        (held if index % HELD_OUT == 0 else train).append(pixels.permute(2, 0, 1))
    return train, held


def crops(images: list[Tensor], count: int, generator: torch.Generator) -> Tensor:
    """Random crops of random photos, half of them mirrored, uint8 [count, 3, 64, 64]."""
    out = []
    for _ in range(count):
        chosen = images[int(torch.randint(len(images), (1,), generator=generator))]
        top = int(torch.randint(chosen.shape[1] - CROP + 1, (1,), generator=generator))
        left = int(torch.randint(chosen.shape[2] - CROP + 1, (1,), generator=generator))
        crop = chosen[:, top : top + CROP, left : left + CROP]
        out.append(crop.flip(2) if torch.rand(1, generator=generator) < 0.5 else crop)
    return torch.stack(out)


@torch.no_grad()
def psnr(model: Denoiser, images: list[Tensor], sigma: float) -> float:
    """The mean PSNR (dB) of the denoised centre crops of 224 pixels."""
    generator = torch.Generator().manual_seed(0)
    values = []
    for image in images:
        top, left = (image.shape[1] - 224) // 2, (image.shape[2] - 224) // 2
        clean = image[None, :, top : top + 224, left : left + 224].float() / 255
        noise = sigma * torch.randn(clean.shape, generator=generator)
        found = model(clean + noise, sigma).clamp(0, 1)
        values.append(-10 * math.log10(float((found - clean).square().mean())))
    return sum(values) / len(values)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/denoiser"))
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(args.seed)
    large, held = photos(args.photos)
    small, _ = read_data(args.train)
    model, average = Denoiser(), Denoiser()
    average.load_state_dict(model.state_dict())
    average.requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), args.lr)
    half, started, total = args.batch // 2, time.process_time(), 0.0
    log: dict[str, object] = {"settings": {k: str(v) for k, v in vars(args).items()}}
    rows: list[dict[str, float]] = []
    args.output.mkdir(parents=True, exist_ok=True)
    for step in range(1, args.steps + 1):
        rate = min(1.0, step / 100) * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * rate
        index = torch.randint(len(small), (args.batch - half,), generator=generator)
        clean = torch.cat([crops(large, half, generator), small[index]]).float() / 255
        sigma = torch.rand(len(clean), generator=generator) * LARGEST
        noise = torch.randn(clean.shape, generator=generator) * sigma.view(-1, 1, 1, 1)
        loss = F.mse_loss(model(clean + noise, sigma), clean)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        update_average(average, model, min(0.999, step / (step + 50)))
        total += float(loss)
        if step % 250 == 0 or step == args.steps:
            rows.append(
                {
                    "step": step,
                    "loss": total / 250,
                    **{f"psnr at {s:g}": psnr(average, held, s) for s in (0.05, 0.1, 0.25)},
                    "cpu_minutes": (time.process_time() - started) / 60,
                }
            )
            total = 0.0
            print(json.dumps(rows[-1]), flush=True)
            log["steps"] = rows
            metadata = {"format": "pt", "model": "denoiser", "largest": str(LARGEST)}
            save_file(
                {key: value.half().contiguous() for key, value in average.state_dict().items()},
                args.output / "denoiser.safetensors",
                metadata,
            )
            (args.output / "denoiser.json").write_text(json.dumps(log, indent=2) + "\n")


if __name__ == "__main__":
    main()
