"""The shape of a certificate, and what all certificates that are proofs have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from trompe.certificates.ball import Ball, ball
from trompe.certificates.bounds import QUANTITIES, Bounds
from trompe.certificates.certificate import Certificate
from trompe.certificates.prepared import Prepared
from trompe.certificates.upper import WIDEN
from trompe.errors import UsageError
from trompe.registry import Registry
from trompe.types import InputSpace


class CertificateMethod(Protocol):
    """One way to certify: a dataclass whose fields are its options, all with defaults.

    Registered in ``certificates`` it is a choice of ``certify(method=)`` and of the command line.
    """

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        *,
        radius: float | Sequence[float],
        norm: str,
        target: Tensor | None,
        input_space: InputSpace | None,
    ) -> Any:
        """Certify the images x [B, ...]; the arguments are those of ``certify``."""
        ...


certificates: Registry[type[CertificateMethod]] = Registry(
    "certificate", "trompe.certificates.methods"
)
"""All certificates, by name."""


class ProvedBound(ABC):
    """A certificate that is a proof: of one image at a time, about the gradient explanation.

    A subclass names itself, says what it allows (``bound``) and, if it takes more than seconds on
    large networks, when it is ``affordable`` as a part of ``best``.
    """

    name: ClassVar[str]
    joins_best: ClassVar[bool] = True
    """Whether ``best`` takes it into account."""

    @abstractmethod
    def bound(self, prepared: Prepared, ball: Ball, into: Bounds) -> None:
        """File under ``name`` the gradients that may occur in the ball around the image."""

    def affordable(self, prepared: Prepared) -> bool:
        """Whether ``bound`` takes no more than seconds."""
        return True

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        *,
        radius: float | Sequence[float],
        norm: str,
        target: Tensor | None,
        input_space: InputSpace | None,
    ) -> Certificate:
        """Certify the images x [B, ...]; see ``certify``.

        Raises:
            UsageError: If several radii are given, or a class that does not exist.
            CertificateError: If the model has an operation without bounds; it is named.
        """
        if isinstance(radius, Sequence):
            raise UsageError(f"method '{self.name}' takes one radius, not {len(radius)}")
        reach = ball(radius, norm)
        if input_space is not None:
            # Per channel a pixel unit is 1 / std units of x: the smallest std covers them all.
            reach = ball(WIDEN * radius / min(input_space.std), norm)
        found = []
        for index in range(len(x)):
            own = None if target is None else int(target[index])
            with torch.no_grad():
                found.append(proved(Prepared(model, x[index : index + 1], own), reach, self))
        return _certificate(found, x, self.name, float(radius), norm)


def proved(prepared: Prepared, ball: Ball, method: str | ProvedBound) -> Bounds:
    """What a proved bound gives for one image.

    Args:
        prepared: The network at the image.
        ball: Around the image, in units of x.
        method: A registered name, or the bound itself.
    """
    chosen: Any = certificates[method]() if isinstance(method, str) else method
    found = Bounds(prepared.target, prepared.rounding)
    with torch.no_grad():
        chosen.bound(prepared, ball, found)
    return found


def _certificate(
    found: list[Bounds], x: Tensor, method: str, radius: float, norm: str
) -> Certificate:
    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    return Certificate(
        gradient_l2=column([f.best("gradient_l2") for f in found]),
        normal_l2=column([f.best("normal_l2") for f in found]),
        heatmap_l1=column([f.best("heatmap_l1") for f in found]),
        curvature=column([f.curvature for f in found]),
        target=torch.tensor([f.target for f in found]),
        radius=radius,
        norm=norm,
        method=method,
        winners=tuple({name: f.winner(name) for name in QUANTITIES} for f in found),
        kept=tuple(f.kept for f in found),
        pixels=math.prod(x.shape[-2:]) if x.dim() == 4 else x[0].numel(),
    )
