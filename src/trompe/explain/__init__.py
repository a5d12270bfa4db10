"""The explanation methods: one file each, found by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from trompe.explain.base import Method, explainers
from trompe.given import explains
from trompe.types import Explainer, InputSpace, LoadedModel

__all__ = [
    "Method",
    "as_explainer",
    "explainer",
    "explainers",
    "fitted",
    "given_explainer",
    "methods",
]


def methods() -> list[str]:
    """The names of all explanation methods, those of plugins with them.

    Example:
        >>> import trompe
        >>> "integrated_grad" in trompe.methods()
        True
    """
    return explainers.names()


def explainer(name: str, **options: Any) -> Method:
    """The explanation method called ``name``.

    Args:
        name: one of ``trompe.methods()``, in any spelling, or a usual one such as ``ig``.
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
    made: Method = explainers.make(name, options)
    return made


def given_explainer(given: Any) -> Any:
    """The explainer that a caller named, or gave.

    Raises:
        UsageError: if it is neither a name nor a function of a model, images and classes.
    """
    if isinstance(given, str):
        return explainer(given)
    explains(given)
    return given


def as_explainer(given: str | Explainer, space: InputSpace) -> Explainer:
    """The explainer that a caller named, for models of an input space, or gave.

    Args:
        given: a name or a callable ``(model, x, target) -> map``.
        space: goes to a method by name that takes one.

    Raises:
        UsageError: if it is neither, or there is no such method.
    """
    if not isinstance(given, str):
        explains(given)
        return given
    takes = {field.name for field in dataclasses.fields(explainers[given])}
    return explainer(given, **({"input_space": space} if "input_space" in takes else {}))


def fitted(
    name: str, loaded: LoadedModel, *, patterns: str | None = None, seed: int | None = None
) -> Method:
    """The method ``name`` for a model: with its input space and patterns, where it takes them.

    Args:
        name: of the method.
        loaded: the model.
        patterns: file of learned patterns, in place of those that come with the model.
        seed: of the method's noise, if it draws any; its default if not given.

    Raises:
        TrompeError: if there is no such method, or the patterns cannot be used.
    """
    from trompe.rules.patterns import given_patterns, load_patterns

    takes = {field.name for field in dataclasses.fields(explainers[name])}
    options: dict[str, Any] = {}
    if "input_space" in takes:
        options["input_space"] = loaded.input_space
    if "patterns" in takes:
        own = loaded.patterns or {}
        found = load_patterns(patterns, loaded.model) if patterns else own
        options["patterns"] = given_patterns(found, name)
    if "seed" in takes and seed is not None:
        options["seed"] = seed
    return explainer(name, **options)
