"""The differentiable part of an attack's step: a function of tensors alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trompe.attacks.channels import Channel
from trompe.attacks.loss import Loss
from trompe.attacks.observation import Observation, observe
from trompe.engine.fingerprint import fingerprint
from trompe.engine.smoothing import Smoothed
from trompe.explain.base import Method
from trompe.types import Explainer

_AWAY = 1_000_003  # seeds of steps begin far from those that people choose


class Derivative(NamedTuple):
    """What a step needs to know of the images; nothing carries a graph.

    Args:
        map: heat maps, [B, H, W].
        logits: [B, K].
        relevance: signed maps, [B, C, H, W].
        loss: [B].
        grad: of the sum of the losses, [B, C, H, W].
    """

    map: Tensor
    logits: Tensor
    relevance: Tensor
    loss: Tensor
    grad: Tensor


@dataclass(frozen=True)
class Differentiate:
    """Explain images, compare them with what is aimed at, and differentiate.

    Args:
        model: the original model.
        surrogate: the smoothed model that is differentiated, or ``None`` for the model itself.
        explainer: the method attacked.
        loss: what is minimised; its mean over the image as it is and after each channel.
        reference: the original images.
        target: the classes explained, [B].
        through: the channels.
        generator: of the channels' noise.
        redraw: whether a method that draws (masks, noise) draws anew in every step.
    """

    model: nn.Module
    surrogate: Smoothed | None
    explainer: Explainer
    loss: Loss
    reference: Observation
    target: Tensor
    through: tuple[Channel, ...] = ()
    generator: torch.Generator | None = None
    redraw: bool = False

    @property
    def constants(self) -> tuple[Tensor, ...]:
        """The tensors that stay the same in every step of an attack and differ between attacks."""
        origin = self.reference
        aims = (getattr(self.loss.objective, name) for name in self._aims())
        return (self.target, origin.x, origin.map, origin.logits, origin.relevance, *aims)

    @property
    def key(self) -> Hashable | None:
        """Equal where only the constants differ; ``None`` if that cannot be told."""
        aims = self._aims()
        objective = self.loss.objective
        settings = {
            field.name: getattr(objective, field.name)
            for field in dataclasses.fields(objective)
            if field.name not in aims
        }
        prices = [
            getattr(self.loss, field.name)
            for field in dataclasses.fields(self.loss)
            if field.name != "objective"
        ]
        smoothing = None
        if self.surrogate is not None:
            own = self.surrogate
            smoothing = (own.pooling, own.activations, own.scales, own.pooling_scales)
        return fingerprint(
            self.model, smoothing, self.explainer, type(objective), settings, prices, self.through
        )

    @property
    def draws(self) -> bool:
        """Whether a step draws something, which a captured step would draw once and for all."""
        return self.redraw or any(channel.random for channel in self.through)

    def redrawn(self, number: int) -> Differentiate:
        """The same with the draws of step ``number``; never those of the method as it is."""
        if not self.redraw or not isinstance(self.explainer, Method):
            return self
        return dataclasses.replace(self, explainer=self.explainer.redrawn(_AWAY + number))

    def __call__(
        self,
        x: Tensor,
        beta: float | Tensor | None,
        strictness: float | Tensor,
        *constants: Tensor,
    ) -> Derivative:
        """Look at ``x`` [B, C, H, W]; the constants are ``constants``, or others like them."""
        target, *known = constants
        reference = Observation(*known[:4])
        aims: dict[str, Any] = dict(zip(self._aims(), known[4:], strict=True))
        loss = dataclasses.replace(
            self.loss, objective=dataclasses.replace(self.loss.objective, **aims)
        )
        model: nn.Module = self.model
        if self.surrogate is not None and beta is not None:
            self.surrogate.beta = beta
            model = self.surrogate
        x = x.detach().requires_grad_(True)
        now = observe(model, self.explainer, x, target)
        total = loss(now, reference, strictness)
        if self.through:
            ways = [total]
            for channel in self.through:
                changed = channel(x, self.loss.space, self.generator)
                ways.append(
                    loss(observe(model, self.explainer, changed, target), reference, strictness)
                )
            total = torch.stack(ways).mean(dim=0)
        grad = torch.zeros_like(x)
        if total.requires_grad:
            (grad,) = torch.autograd.grad(total.sum(), x, materialize_grads=True)
        return Derivative(
            now.map.detach(), now.logits.detach(), now.relevance.detach(), total.detach(), grad
        )

    def _aims(self) -> list[str]:
        objective = self.loss.objective
        return [
            field.name
            for field in dataclasses.fields(objective)
            if isinstance(getattr(objective, field.name), Tensor)
        ]
