"""What the proved bounds of one image need of a network, whatever the radius."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn

from trompe.certificates.layer_norms import without_cancellation
from trompe.certificates.linearised import Linearised, cost, linearise
from trompe.certificates.trace import trace
from trompe.engine.original_class import predicted
from trompe.errors import CertificateError, UsageError

_ULPS = 64
"""Allowance for evaluations in x's own type, in its units in the last place."""


class Prepared:
    """A traced network, its values at one image, and what is computed from them once.

    Args:
        model: As for ``certify``.
        x: The image, [1, ...].
        target: Index of the class; by default the one that the model itself, not its smoothed
            version, predicts.

    Raises:
        CertificateError: If the model has an operation without bounds; it is named.
        UsageError: If there is no such class.
    """

    def __init__(self, model: nn.Module, x: Tensor, target: int | None = None) -> None:
        self.network = trace(model, x)
        self.values = self.network.values(x.detach().double().cpu())
        logits = self.values[-1]
        if logits.dim() != 2:
            raise CertificateError(f"the model returns {tuple(logits.shape)}: a classifier [B, K]")
        self.target = int(predicted(model, x)) if target is None else target
        if not 0 <= self.target < logits.shape[1]:
            raise UsageError(
                f"target {target} does not fit: the model has {logits.shape[1]} classes"
            )
        self.rounding: Tensor | None = None
        """The allowance for evaluations in x's own type, per entry of the gradient."""
        if x.dtype != torch.float64:
            size = without_cancellation(self.network, self.values, self.target)[0]
            self.rounding = _ULPS * torch.finfo(x.dtype).eps * size

    @cached_property
    def cost(self) -> int:
        """How many numbers the sweeps of ``linearised`` go through, about."""
        return cost(self.network, self.values)

    @cached_property
    def linearised(self) -> Linearised:
        """The network linearised at x."""
        return linearise(self.network, self.values, self.target)
