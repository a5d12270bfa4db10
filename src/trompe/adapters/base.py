"""What the adapters share: a check on first use, and messages that lead on."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.adapters.check import check_derivative, structure
from trompe.engine import explained
from trompe.errors import ExplanationError, UsageError
from trompe.explain.base import Method
from trompe.types import Explanation


@dataclass(frozen=True, eq=False)
class Adapted(Method):
    """An explanation of another library as a method of trompe.

    It is computed on a copy around the model's memory, so that neither hooks nor changed weights
    reach the model. The map has a graph of ``x`` alone: the weights count as constants. Before the
    first map for a model of one structure its derivative is checked; see ``check_derivative``.
    """

    _checked: set[Any] = field(default_factory=set, init=False, repr=False, compare=False)

    @abstractmethod
    def compute(self, model: nn.Module, x: Tensor, target: Tensor, keep: bool) -> Tensor:
        """The map of ``x``, which requires grad; with a graph if it is to be kept."""

    @abstractmethod
    def kind(self, model: nn.Module) -> str:
        """What it is called in the other library."""

    @abstractmethod
    def way_out(self, kind: str) -> str:
        """What to use in place of one of this kind."""

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``.

        Args:
            model: any module [B, C, H, W] -> [B, K]; not changed.
            x: [B, C, H, W], normalised.
            target: class of each image, int64 [B].

        Raises:
            ExplanationError: if the map's derivative is not right, with what to use instead.
        """
        key = structure(model, x)
        if key not in self._checked:
            try:
                if check_derivative(self._maps, model, x, target):
                    self._checked.add(key)
            except ExplanationError as error:
                kind = self.kind(model)
                message = f"{kind} cannot be attacked: {error}; {self.way_out(kind)}"
                raise ExplanationError(message) from error
        return self._explain(model, x, target)

    def _maps(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return self._explain(model, x, target).map

    def _explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        def method(x: Tensor, keep: bool) -> Explanation:
            # A copy, which the other library may write to.
            relevance = self.compute(model, x.clone(), target, keep)
            # The logits are the model's own: hooks may have had their way with the others.
            return Explanation(as_map(relevance, x, self.name), model(x))

        # Weights that require grad are no reason for a graph: it would not reach them.
        with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
            return explained(method, model, x)


def as_map(relevance: Any, x: Tensor, name: str) -> Tensor:
    """A map of the images' shape; one picture per image, of any size, is scaled up to it.

    Raises:
        UsageError: if it is something else.
    """
    if isinstance(relevance, Tensor) and relevance.is_floating_point():
        if relevance.shape == x.shape:
            return relevance
        if relevance.dim() == 4 and relevance.shape[:2] == (x.shape[0], 1) and x.dim() == 4:
            # As in trompe's grad_cam: every channel holds the same picture, their sum is the map.
            whole = F.interpolate(relevance, x.shape[2:], mode="bilinear", align_corners=False)
            return whole.expand_as(x) / x.shape[1]
    found = f"the shape {tuple(relevance.shape)}" if isinstance(relevance, Tensor) else "no tensor"
    raise UsageError(
        f"{name} returns {found} for images of {tuple(x.shape)}: give one that returns a map of "
        "the same shape, or of one channel [B, 1, h, w]"
    )


def installed(library: str, module: str) -> Any:
    """A module of another library.

    Raises:
        UsageError: if the library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{library} is not installed ({error}): pip install {library}") from error
