"""The shape of a defence by training: what is added to the loss, and what the network sees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.errors import UsageError
from trompe.registry import Registry
from trompe.training import Batch


@dataclass(frozen=True)
class Defence:
    """A way to train a network whose explanations are harder to move.

    A frozen dataclass whose fields are its options; registered in ``defences`` it is a choice of
    ``trompe.harden`` and of the command line. A subclass fills in ``inputs``, ``penalty`` or both.

    Args:
        beta: The network is trained, and to be used, with softplus of this beta in place of ReLU
            (``trompe.smooth``); ``None``: as it is.

    Raises:
        UsageError: If an option is not a finite number, or negative.
    """

    beta: float | None = None

    source: ClassVar[str] = ""
    """The paper it comes from."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is None and name == "beta":
                continue
            if not isinstance(value, (int, float)) or not (0 <= value < math.inf):
                raise UsageError(f"{name} must be a finite number, not negative, not {value!r}")
        if self.beta is not None and self.beta <= 0:
            raise UsageError(f"beta must be positive, not {self.beta}")

    def inputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the network is shown in place of the images, [B, ...]."""
        return batch.x

    def penalty(self, model: nn.Module, batch: Batch) -> Tensor | None:
        """What is added to the cross entropy, weighted already, [B]; nothing by default."""
        return None

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss; an ``Objective``."""
        logits = model(self.inputs(model, batch))
        terms = {"cross_entropy": F.cross_entropy(logits, batch.y)}
        extra = self.penalty(model, batch)
        if extra is not None:
            terms["penalty"] = extra.mean()
        return terms


defences: Registry[type[Defence]] = Registry("defence", "trompe.defences.trained")
"""All defences by training, by name."""


def score_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of the classes' logits by the images, with a graph, [B, ...]."""
    if not x.requires_grad:
        x = x.detach().requires_grad_(True)
    score = model(x).gather(1, y[:, None]).sum()
    (found,) = torch.autograd.grad(score, x, create_graph=True)
    return found


def loss_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of each image's cross entropy by the image, with a graph, [B, ...]."""
    if not x.requires_grad:
        x = x.detach().requires_grad_(True)
    loss = F.cross_entropy(model(x), y, reduction="sum")
    (found,) = torch.autograd.grad(loss, x, create_graph=True)
    return found


def heat(gradient: Tensor) -> Tensor:
    """Magnitudes summed over the channels, each image's divided by their sum, [B, N]."""
    shares = gradient.abs().flatten(2).sum(dim=1) if gradient.dim() > 2 else gradient.abs()
    return shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-12)
