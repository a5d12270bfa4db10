"""Maps that are aimed at where nobody names one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trompe.attacks.observation import Observation, observe
from trompe.types import Explainer


def moved_away(maps: Tensor) -> Tensor:
    """Each map rolled so that its centre of mass comes to the corner farthest from it, [B, H, W].

    Its entries stay the same numbers, so the target looks as plausible as the original.
    """
    height, width = maps.shape[-2:]
    found = []
    for one in maps:
        row = float((one.sum(dim=1) * torch.arange(height).to(one)).sum() / one.sum())
        column = float((one.sum(dim=0) * torch.arange(width).to(one)).sum() / one.sum())
        to = (
            height - 1 if row < (height - 1) / 2 else 0,
            width - 1 if column < (width - 1) / 2 else 0,
        )
        shifts = (round(to[0] - row), round(to[1] - column))
        found.append(torch.roll(one, shifts=shifts, dims=(0, 1)))
    return torch.stack(found)


def inverted(maps: Tensor) -> Tensor:
    """``max h - h`` of each map, divided by its sum, [B, H, W]; a flat map stays flat."""
    flat = maps.flatten(1)
    turned = flat.amax(dim=1, keepdim=True) - flat
    total = turned.sum(dim=1, keepdim=True)
    even = torch.full_like(flat, 1 / flat.shape[1])
    return torch.where(total > 0, turned / total.clamp_min(1e-30), even).view_as(maps)


def others(model: nn.Module, explainer: Explainer, reference: Observation) -> Tensor:
    """The map of the next image of the batch; of a single image, of its second class, [B, H, W]."""
    if len(reference.x) > 1:
        return reference.map.roll(1, dims=0)
    if reference.logits.shape[1] < 2:
        return reference.map.flip(-1)
    second = reference.logits.topk(2, dim=1).indices[:, 1]
    with torch.no_grad():
        heat = observe(model, explainer, reference.x, second).map.detach()
    return heat if bool(torch.isfinite(heat).all()) else reference.map.flip(-1)
