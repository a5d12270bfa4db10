"""Gradients of batch norms on the CPU, right for one image too.

PyTorch (2.14) takes the gradient that reaches a batch norm or instance norm for one in the order of
its input where the batch is of one image and the gradient is a transposed view, as behind
``.flatten(2).transpose(1, 2)``, the step from a convolutional stem to a transformer: then it is
that of other pixels. ``engine.adapt`` goes this way where differences in double precision show that
the gradient is wrong without, and right with it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_NORMS = ("batch_norm", "instance_norm")


class InOrder(nn.Module):
    """A model whose norms receive their gradients in memory of the usual order.

    Args:
        model: any module; its outputs and its true derivatives are unchanged.
    """

    wraps = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, x: Tensor) -> Any:
        """What the model returns."""
        with _InOrder():
            return self.model(x)


class _InOrder(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        norm = getattr(func, "__name__", "").partition(".")[0] in _NORMS
        if norm and isinstance(out, Tensor) and out.requires_grad and out.dim() > 2:
            # Choosing all images changes nothing, and its derivative is written to new memory.
            return out.index_select(0, torch.arange(len(out), device=out.device))
        return out
