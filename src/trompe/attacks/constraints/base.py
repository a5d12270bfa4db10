"""The shape of a constraint."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from trompe.registry import Registry


class Constraint(Protocol):
    """A set of allowed images around an original one; projections are idempotent."""

    def project(self, x: Tensor, origin: Tensor) -> Tensor:
        """The allowed image near ``x`` [B, C, H, W]."""
        ...

    def violation(self, x: Tensor, origin: Tensor) -> Tensor:
        """How far ``x`` is outside, per image [B]; 0 if allowed."""
        ...


constraints: Registry[Any] = Registry("constraint", "trompe.attacks.constraints")
"""All constraints, by name."""
