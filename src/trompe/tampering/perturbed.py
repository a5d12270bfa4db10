"""Images as perturbation methods show them to a network: parts of them covered."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def random_masks(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """What is kept of each image, 0..1, [B, 1, H, W]: in turn as LIME, occlusion and RISE do it.

    LIME keeps cells of a grid at random, occlusion covers one window, RISE keeps a soft pattern;
    sizes and shares are drawn anew for each image. Every mask covers something.

    Args:
        shape: Of the images, [B, C, H, W].
        generator: Source of the random numbers, on the CPU.
    """
    height, width = shape[-2:]
    masks = [_mask(number % 3, height, width, generator) for number in range(shape[0])]
    return torch.stack(masks)[:, None]


def _mask(kind: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """One mask, [H, W]."""

    def between(low: int, high: int) -> int:
        return int(torch.randint(low, max(low, high) + 1, (), generator=generator))

    if kind == 1:
        rows, columns = (between(max(1, side // 8), side // 2) for side in (height, width))
        top, left = between(0, height - rows), between(0, width - columns)
        mask = torch.ones(height, width)
        mask[top : top + rows, left : left + columns] = 0
        return mask
    cells = between(2, min(8, height, width))
    kept = 0.1 + 0.8 * torch.rand((), generator=generator)
    grid = (torch.rand(cells, cells, generator=generator) < kept).float()
    grid[between(0, cells - 1), between(0, cells - 1)] = 0
    if kind == 0:
        return F.interpolate(grid[None, None], size=(height, width), mode="nearest")[0, 0]
    soft = F.interpolate(
        grid[None, None], size=(height, width), mode="bilinear", align_corners=False
    )
    return soft[0, 0].clamp(0, 1)
