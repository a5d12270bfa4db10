"""What smoothing a model replaces, and which kinks remain."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from trompe.engine.once import watched
from trompe.engine.watching import Kink


@dataclass(frozen=True)
class KinkReport:
    """The kinks of a model, in the order of execution.

    Args:
        kinks: one per function and place.
        pooling: whether the smoothing asked about smooths pooling.
    """

    kinks: tuple[Kink, ...]
    pooling: bool

    @property
    def replaced(self) -> tuple[Kink, ...]:
        """Those that smoothing replaces."""
        fates = ("smoothed", "pooling") if self.pooling else ("smoothed",)
        return tuple(kink for kink in self.kinks if kink.fate in fates)

    @property
    def remaining(self) -> tuple[Kink, ...]:
        """Those that stay."""
        return tuple(kink for kink in self.kinks if kink not in self.replaced)

    @property
    def uncovered(self) -> tuple[Kink, ...]:
        """Those that stay whatever is asked for: a gradient may not see past them."""
        return tuple(kink for kink in self.kinks if kink.fate == "remains")

    def __str__(self) -> str:
        lines = []
        for title, found in (("replaced", self.replaced), ("remaining", self.remaining)):
            lines.append(f"{title}: {sum(kink.count for kink in found)}")
            lines += [f"  {k.function} in {k.place}, {k.count}x" for k in found]
        return "\n".join(lines)


def kinks(model: nn.Module, x: Tensor, *, pooling: bool = False) -> KinkReport:
    """Report the kinks of ``model`` on the way of ``x``: what smoothing replaces, what remains.

    The model is watched as it runs. All that is not known to be smooth counts as a kink, and so
    does a choice by a comparison of activations, or a program that reads their values. Kinks in
    constants (weights held positive by a ReLU) are none of the model's.

    Args:
        model: any module; not changed.
        x: [B, C, H, W], an image will do.
        pooling: whether max pooling is to be smoothed too.

    Returns:
        The report; ``.replaced``, ``.remaining``, ``.uncovered``, and readable as a string.

    Example:
        >>> import torch, trompe.engine
        >>> net = torch.nn.Sequential(torch.nn.ReLU6(), torch.nn.MaxPool2d(2))
        >>> print(trompe.engine.kinks(net, torch.zeros(1, 3, 4, 4)))
        replaced: 1
          torch.nn.functional.hardtanh in 0 (ReLU6), 1x
        remaining: 1
          torch.nn.functional.max_pool2d in 1 (MaxPool2d), 1x
    """
    return KinkReport(watched(model, (x,), {}).kinks, pooling)
