"""The differentiable part of an attack's step: a function of tensors alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trompe.attacks.objectives import ReachMap
from trompe.attacks.observation import Observation, observe
from trompe.engine.fingerprint import fingerprint
from trompe.engine.smoothing import Smoothed
from trompe.types import Explainer


class Seen(NamedTuple):
    """What a step needs to know of the images; nothing carries a graph.

    Args:
        map: heat maps, [B, H, W].
        logits: [B, K].
        loss: [B].
        grad: of the sum of the losses, [B, C, H, W].
    """

    map: Tensor
    logits: Tensor
    loss: Tensor
    grad: Tensor


@dataclass(frozen=True)
class Look:
    """Explain images, compare them with what is aimed at, and differentiate.

    Args:
        model: the original model.
        surrogate: the smoothed model that is differentiated, or ``None`` for the model itself.
        explainer: the method attacked.
        objective: what is minimised.
        reference: the original images.
        target: the original classes, [B].
    """

    model: nn.Module
    surrogate: Smoothed | None
    explainer: Explainer
    objective: ReachMap
    reference: Observation
    target: Tensor

    @property
    def constants(self) -> tuple[Tensor, ...]:
        """The tensors that stay the same in every step of an attack and differ between attacks."""
        aims = (getattr(self.objective, name) for name in self._aims())
        return (self.target, self.reference.x, self.reference.map, self.reference.logits, *aims)

    @property
    def key(self) -> Hashable | None:
        """Equal for looks that differ in their constants only; ``None`` if that cannot be told."""
        aims = self._aims()
        settings = {
            field.name: getattr(self.objective, field.name)
            for field in dataclasses.fields(self.objective)
            if field.name not in aims
        }
        smoothing = None
        if self.surrogate is not None:
            smoothing = (self.surrogate.pooling, self.surrogate.activations)
        return fingerprint(self.model, smoothing, self.explainer, type(self.objective), settings)

    def __call__(
        self,
        x: Tensor,
        beta: float | Tensor | None,
        strictness: float | Tensor,
        *constants: Tensor,
    ) -> Seen:
        """Look at ``x`` [B, C, H, W]; the constants are ``constants``, or others like them."""
        target, *known = constants
        reference = Observation(*known[:3])
        aims: dict[str, Any] = dict(zip(self._aims(), known[3:], strict=True))
        objective = dataclasses.replace(self.objective, **aims)
        model: nn.Module = self.model
        if self.surrogate is not None and beta is not None:
            self.surrogate.beta = beta
            model = self.surrogate
        x = x.detach().requires_grad_(True)
        now = observe(model, self.explainer, x, target)
        loss = objective(now, reference, strictness)
        grad = torch.zeros_like(x)
        if loss.requires_grad:
            (grad,) = torch.autograd.grad(loss.sum(), x, materialize_grads=True)
        return Seen(now.map.detach(), now.logits.detach(), loss.detach(), grad)

    def _aims(self) -> list[str]:
        fields = dataclasses.fields(self.objective)
        return [f.name for f in fields if isinstance(getattr(self.objective, f.name), Tensor)]
