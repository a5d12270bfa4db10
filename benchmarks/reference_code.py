"""The paper's own code around one of our networks, imported from a clone, never copied."""

from __future__ import annotations

import contextlib
import copy
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.types import IMAGENET_MEAN, IMAGENET_STD

_MEAN, _STD = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
_CLASSES = 1000
"""As many the code is written for."""


class Reference:
    """The reference's network around a network laid out as VGG, and its functions.

    Args:
        folder: a clone of pankessel/adv_explanation_ref.
        model: with at most 1000 classes; its weights are taken, in their precision.
    """

    def __init__(self, folder: Path, model: nn.Module) -> None:
        if str(folder / "src") not in sys.path:
            sys.path.insert(0, str(folder / "src"))
        with contextlib.redirect_stdout(io.StringIO()):
            from nn.enums import ExplainingMethod
            from nn.networks import ExplainableNet
            from nn.utils import clamp, get_expl

            self.net = ExplainableNet(_widened(model), data_mean=_MEAN, data_std=_STD).eval()
        self._methods, self._get_expl, self._clamp = ExplainingMethod, get_expl, clamp
        self.net.to(next(model.parameters()))

    def patterns(self) -> list[Tensor]:
        """Of every layer that has one."""
        return [layer.pattern for layer in self._with_pattern()]

    def take_patterns(self, patterns: list[Tensor]) -> None:
        """Use these patterns in place of learned ones; the added classes get zeros."""
        for layer, pattern in zip(self._with_pattern(), patterns, strict=True):
            grown = pattern.new_zeros(layer.pattern.shape[0], *pattern.shape[1:])
            grown[: len(pattern)] = pattern
            layer.pattern = grown

    def _with_pattern(self) -> list[Any]:
        return [layer for layer in self.net.layers if hasattr(layer, "pattern")]

    def explain(self, x: Tensor, method: str, index: Any = None) -> tuple[Tensor, Tensor, Tensor]:
        """Heat map [1, H, W], softmax output and predicted class."""
        return self._get_expl(self.net, x, getattr(self._methods, method), desired_index=index)

    def clamp(self, x: Tensor) -> Tensor:
        """The image within the values that pixels can have."""
        return self._clamp(x, _MEAN, _STD)

    def attack(self, x: Tensor, aim: Tensor, method: str, steps: int, lr: float, grow: bool) -> Any:
        """``steps`` steps with its own functions and Adam on its own loss."""
        _, output, index = self.explain(x.clone(), method)
        x_adv = x.clone().requires_grad_()
        optimiser = torch.optim.Adam([x_adv], lr=lr)
        for i in range(steps):
            if grow:
                self.net.change_beta(10.0 * 10.0 ** (i / steps))
            optimiser.zero_grad()
            heat, now, _ = self.explain(x_adv, method, index)
            loss = 1e11 * F.mse_loss(heat, aim) + 1e6 * F.mse_loss(now, output.detach())
            loss.backward()
            optimiser.step()
            x_adv.data = self.clamp(x_adv.data)
        self.net.change_beta(None)
        return x_adv.detach()


def _widened(model: nn.Module) -> nn.Module:
    """A copy with 1000 classes; those added are never predicted and take no probability."""
    model = copy.deepcopy(model)
    last: Any = model.classifier[-1]
    if isinstance(last, nn.Linear) and last.out_features < _CLASSES:
        wide = nn.Linear(last.in_features, _CLASSES).to(last.weight)
        with torch.no_grad():
            wide.weight.zero_()
            wide.bias.fill_(-1e4)
            wide.weight[: last.out_features] = last.weight
            wide.bias[: last.out_features] = last.bias
        model.classifier[-1] = wide
    return model
