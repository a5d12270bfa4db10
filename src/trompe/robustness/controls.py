"""The honest floor: how far a map moves where nobody attacks it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trompe.attacks.constraints import Ball
from trompe.attacks.observation import observe
from trompe.engine import adapted, frozen
from trompe.explain import given_explainer
from trompe.explain.base import Method
from trompe.robustness.likeness import compare
from trompe.types import Explainer, InputSpace

QUALITY, NOISES = 75, 4


@dataclass(frozen=True)
class Control:
    """What one harmless change of the clean images does to their maps.

    Args:
        likeness: by measure the likeness to the original map, [B]; the mean over draws.
        kept: whether the network's answer stayed, in every draw, bool [B].
    """

    likeness: dict[str, Tensor]
    kept: Tensor


def as_jpeg(pixels: Tensor, quality: int = QUALITY) -> Tensor:
    """Images after the real codec: pixels 0..1 [B, C, H, W], of one channel or three.

    Written and read by Pillow, colour at half the resolution as it does by default.
    """
    found = []
    for one in (pixels.clamp(0, 1) * 255).round().byte().cpu():
        array = one[0].numpy() if len(one) == 1 else one.permute(1, 2, 0).numpy()
        file = io.BytesIO()
        Image.fromarray(array).save(file, "JPEG", quality=quality)
        read = torch.from_numpy(np.array(Image.open(io.BytesIO(file.getvalue()))))
        found.append(read.unsqueeze(0) if len(one) == 1 else read.permute(2, 0, 1))
    return torch.stack(found).to(pixels) / 255


def floor(
    model: Any,
    x: Tensor,
    target: Tensor,
    *,
    explainer: str | Explainer,
    ball: Ball,
    input_space: InputSpace,
    generator: torch.Generator | None = None,
) -> dict[str, Control]:
    """What noise of the attack's size, rounding, JPEG and another draw do to maps.

    A worst case says nothing of an attack where these alone do as much.

    Args:
        model: see ``trompe.auto_attack``.
        x: the original images, normalised, [B, C, H, W].
        target: the classes explained, [B].
        explainer: the method.
        ball: of which ``noise`` is a random point; the mean over four.
        input_space: the model's normalisation.
        generator: of the noise; seeded with 0 if not given.

    Returns:
        By name: ``noise``; ``8 bits``; ``JPEG 75`` (of images with one channel or three);
        ``another draw``, for methods with a seed of their own.
    """
    draw = generator or torch.Generator().manual_seed(0)
    known = adapted(model, x)
    judge, x = frozen(known.model), known.x.detach()
    method = given_explainer(explainer)
    if isinstance(method, Method):
        method = method.within(input_space)
    target = target.to(x.device)
    pixels = input_space.to_pixels(x)

    def control(change: Callable[[], Tensor], by: Explainer = method, draws: int = 1) -> Control:
        seen: list[dict[str, Tensor]] = []
        kept = torch.ones(len(x), dtype=torch.bool, device=x.device)
        for _ in range(draws):
            now = observe(judge, by, change(), target)
            kept &= known.outputs.kept(now.logits, reference.logits)
            seen.append(compare(now.map, reference.map))
        means = {k: torch.stack([one[k] for one in seen]).mean(dim=0).cpu() for k in seen[0]}
        return Control(means, kept.cpu())

    with torch.no_grad():
        reference = observe(judge, method, x, target)
        found = {
            "noise": control(lambda: ball.start(x, input_space, draw), draws=NOISES),
            "8 bits": control(
                lambda: input_space.from_pixels((pixels.clamp(0, 1) * 255).round() / 255)
            ),
        }
        if x.shape[1] in (1, 3):
            found[f"JPEG {QUALITY}"] = control(lambda: input_space.from_pixels(as_jpeg(pixels)))
        if isinstance(method, Method):
            other = method.redrawn(int(torch.randint(2**31, (1,), generator=draw)))
            if other is not method:
                found["another draw"] = control(lambda: x, other)
    return found
