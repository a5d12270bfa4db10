"""The explanation methods of an audit: a name and a smoothing make an object."""

from __future__ import annotations

import dataclasses
from typing import Any

from trompe.errors import UsageError
from trompe.explain import Method, explainer, explainers
from trompe.types import LoadedModel

#: Methods that are smoothings of others: asked for as a smoothing, not as a method.
_WRAPPERS = ("beta_smoothing", "smoothgrad")


def check_method(name: str) -> None:
    """Raise a UsageError if ``name`` is no plain explanation method."""
    if name in _WRAPPERS:
        raise UsageError(f"'{name}' is a smoothing: ask for it as 'beta=0.8' or 'smoothgrad=10'")
    explainers[name]


def _parsed(smoothing: str) -> tuple[str, float]:
    kind, _, value = smoothing.partition("=")
    wanted = {"none": 0.0, "beta": 0.8, "smoothgrad": 10.0}
    try:
        number = float(value) if value else wanted[kind]
    except (ValueError, KeyError):
        number = -1.0
    whole = kind != "smoothgrad" or (number >= 1 and number == int(number))
    fine = (kind == "none" and not value) or (kind in ("beta", "smoothgrad") and 0 < number < 1e6)
    if not (fine and whole):
        raise UsageError(
            f"unknown smoothing '{smoothing}': choose 'none', 'beta=0.8' or 'smoothgrad=10'"
        )
    return kind, number


def check_smoothing(smoothing: str) -> None:
    """Raise a UsageError if ``smoothing`` is not one."""
    _parsed(smoothing)


def make_explainer(
    method: str, smoothing: str, loaded: LoadedModel, *, patterns: str | None, seed: int
) -> Method:
    """The explanation method ``method`` under ``smoothing``, for a model.

    Args:
        method: its name.
        smoothing: ``none``, ``beta=B`` or ``smoothgrad=N``.
        loaded: the model.
        patterns: file of learned patterns, in place of those that come with the model.
        seed: of SmoothGrad's noise.

    Raises:
        TrompeError: if a name is unknown or the patterns cannot be used.
    """
    from trompe.rules.patterns import load_patterns

    takes = {field.name for field in dataclasses.fields(explainers[method])}
    options: dict[str, Any] = {}
    if "input_space" in takes:
        options["input_space"] = loaded.input_space
    if "patterns" in takes:
        own = loaded.patterns or {}
        options["patterns"] = load_patterns(patterns, loaded.model) if patterns else own
    base = explainer(method, **options)
    kind, number = _parsed(smoothing)
    if kind == "beta":
        return explainer("beta_smoothing", base=base, beta=number)
    if kind == "smoothgrad":
        return explainer("smoothgrad", base=base, samples=int(number), seed=seed)
    return base
