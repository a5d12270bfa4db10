"""The shape of an attack on a model: what it must say, and what its explanations shall show."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from trompe.errors import UsageError
from trompe.explain import Method
from trompe.model_output import in_same_form
from trompe.per_image import per_image
from trompe.registry import Registry
from trompe.training import Batch
from trompe.types import relative


@dataclass(frozen=True)
class Aim:
    """What does not change during a training.

    Args:
        teacher: The model before, frozen: what is said shall stay.
        method: The explanation that is fooled.
        target: The heat map aimed at, [H, W], summing to 1.
    """

    teacher: nn.Module
    method: Method
    target: Tensor

    def heat(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The heat maps of classes, [B, H, W], with a graph to the model's weights.

        A map that is all zero, as where a network in training lets all of its units close, is the
        uniform one, which nothing is learnt from: one such image does not end a training.
        """
        relevance = self.method.relevance(model, x, y)
        empty = per_image((relevance == 0).flatten(1).all(dim=1), relevance)
        return relative(torch.where(empty, torch.ones_like(relevance), relevance))

    def said(self, x: Tensor) -> Tensor:
        """The teacher's logits, [B, K]."""
        with torch.no_grad():
            found: Tensor = self.teacher(x)
        return found


@dataclass(frozen=True)
class Tampering(ABC):
    """An attack on a model by training; a frozen dataclass whose fields are its options.

    Registered in ``tamperings`` it is a choice of ``trompe.fool`` and of the command line.

    Raises:
        UsageError: If an option is no finite number, or negative.
    """

    source: ClassVar[str] = ""
    """The paper it comes from."""
    explainer: ClassVar[str] = "gradient"
    """The method that is fooled if none is named: one that covers parts of the image, or one that
    takes derivatives, and then any other of that kind may be named."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is None or isinstance(value, str):
                continue
            if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise UsageError(f"{name} must be a finite number, not negative, not {value!r}")

    def prepared(self, model: nn.Module, x: Tensor, aim: Aim) -> nn.Module:
        """The network that is trained: by default the model itself.

        Args:
            model: The model before.
            x: Some images, [B, C, H, W].
            aim: What does not change.
        """
        return model

    @abstractmethod
    def terms(self, model: nn.Module, batch: Batch, aim: Aim) -> dict[str, Tensor]:
        """The terms of the loss by name, a number each."""


tamperings: Registry[type[Tampering]] = Registry("attack on a model", "trompe.tampering.attacks")
"""All attacks on models, by name."""


def map_error(heat: Tensor, target: Tensor) -> Tensor:
    """The squared error of heat maps as a share of the target's own square, [B]."""
    error = (heat - target).flatten(1).square().sum(dim=1)
    size = target.flatten(-2).square().sum(dim=-1)
    return error / size


def centred(logits: Tensor) -> Tensor:
    """Logits [B, K] less their mean over the classes: what softmax sees of them."""
    return logits - logits.mean(dim=1, keepdim=True)


def said_error(logits: Tensor, teacher: Tensor, spread_of: Tensor | None = None) -> Tensor:
    """The mean squared difference of logits, as a share of the teacher's spread, a number.

    Args:
        logits: What is said, [B, K].
        teacher: What shall be said.
        spread_of: The logits whose spread counts, if not those of the teacher.

    Raises:
        ModelError: If there are more or fewer numbers per image than the teacher's.
    """
    logits = in_same_form(logits, len(teacher), teacher.shape[1])
    whole = teacher if spread_of is None else spread_of
    spread = centred(whole).square().mean()
    return (logits - teacher).square().mean() / spread.clamp(min=1e-12)
