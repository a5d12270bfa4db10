"""The explanation methods: one file each, found by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from trompe.errors import UsageError
from trompe.explain.base import Method, explainers

__all__ = ["Method", "explainer", "explainers"]


def explainer(name: str, **options: Any) -> Method:
    """The explanation method called ``name``.

    Args:
        name: see ``trompe.explain.explainers.names()``.
        options: the method's own, such as ``steps`` of ``integrated_grad``.

    Returns:
        A frozen dataclass, callable as ``(model, x [B, C, H, W], target [B]) -> map [B, C, H, W]``.

    Raises:
        UsageError: if there is no such method or option.

    Example:
        >>> import torch, trompe
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, target = torch.ones(2, 3, 2, 2), torch.tensor([0, 1])
        >>> trompe.explainer("gradient")(net, x, target).shape
        torch.Size([2, 3, 2, 2])
    """
    kind = explainers[name]
    known = [field.name for field in dataclasses.fields(kind)]
    for option in options:
        if option not in known:
            raise UsageError(
                f"{name} has no option '{option}': it has {', '.join(known) or 'none'}"
            )
    return kind(**options)
