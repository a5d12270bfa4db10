"""Regions of an image given by shares of its sides, so that they fit every size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trompe.errors import UsageError

Box = tuple[float, float, float, float]
"""Top, left, bottom, right, as shares 0..1 of the height and the width."""


def check_box(box: Box) -> None:
    """Refuse a box that is none.

    Raises:
        UsageError: if an edge is out of range or the box is empty.
    """
    top, left, bottom, right = box
    if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
        raise UsageError(
            f"the box {box} is none: give top, left, bottom and right, shares of the sides within "
            "0..1, in this order"
        )


def box_mask(box: Box, height: int, width: int, like: Tensor) -> Tensor:
    """1 within the box and 0 outside, [H, W], in the dtype and on the device of ``like``.

    Its edges are rounded to whole pixels; at least one pixel is within.
    """
    top, left, bottom, right = box
    mask = torch.zeros(height, width, dtype=like.dtype, device=like.device)
    first_row, first_column = (
        min(math.floor(share * side + 0.5), side - 1)
        for share, side in ((top, height), (left, width))
    )
    last_row = max(first_row + 1, math.floor(bottom * height + 0.5))
    last_column = max(first_column + 1, math.floor(right * width + 0.5))
    mask[first_row:last_row, first_column:last_column] = 1.0
    return mask


def frame_mask(height: int, width: int, like: Tensor) -> Tensor:
    """1 on a frame as wide as a seventh of the shorter side and 0 inside, [H, W].

    That is the region of Heo et al. (2019), "location fooling"; at least one pixel wide.
    """
    wide = max(1, min(height, width) // 7)
    mask = torch.ones(height, width, dtype=like.dtype, device=like.device)
    mask[wide : height - wide, wide : width - wide] = 0.0
    return mask
