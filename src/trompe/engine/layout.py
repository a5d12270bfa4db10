"""The memory layout of images: channels first, or channels last.

On CPUs PyTorch's convolutions and pools are up to three times faster where the channels of a pixel
lie side by side (measured: ``docs/decisions.md``), as long as no operation changes the layout back.
"""

from __future__ import annotations

import torch
from torch import Tensor


def channels_last(t: Tensor) -> bool:
    """Whether ``t`` has this layout and no other: with one pixel or one channel it may be both."""
    last = t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last)
    return last and not t.is_contiguous()


def like(t: Tensor, other: Tensor) -> Tensor:
    """``t`` in the layout of ``other``, its own memory, not that of a larger tensor."""
    if channels_last(other):
        return t.contiguous(memory_format=torch.channels_last)
    return t.contiguous()
