"""The explanation methods of an audit: a name and a smoothing make an object."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trompe.errors import UsageError
from trompe.explain import Method, explainer, explainers, fitted
from trompe.types import LoadedModel

#: Methods that are smoothings of others: asked for as a smoothing, not as a method.
_WRAPPERS = ("beta_smoothing", "smoothgrad")


def check_method(name: str) -> None:
    """Raise a UsageError if ``name`` is no plain explanation method."""
    if name in _WRAPPERS:
        raise UsageError(f"'{name}' is a smoothing: ask for it as 'beta=0.8' or 'smoothgrad=10'")
    explainers[name]


@dataclass(frozen=True)
class _Smoothing:
    """What a smoothing's words mean: its kind, its number, and the beta it shall resemble."""

    kind: str
    number: float
    resembles: float | None = None


def _parsed(smoothing: str) -> _Smoothing:
    kind, _, value = smoothing.partition("=")
    wanted = {"none": 0.0, "beta": 0.8, "smoothgrad": 10.0}
    value, mark, beta = value.partition("-beta=")
    try:
        number = float(value) if value else wanted[kind]
        resembles = float(beta) if mark else None
    except (ValueError, KeyError):
        number, resembles = -1.0, None
    whole = kind != "smoothgrad" or (number >= 1 and number == int(number))
    fine = (kind == "none" and not value) or (kind in ("beta", "smoothgrad") and 0 < number < 1e6)
    alike = resembles is None or (kind == "smoothgrad" and 0 < resembles < 1e6)
    if not (fine and whole and alike):
        raise UsageError(
            f"unknown smoothing '{smoothing}': choose 'none', 'beta=0.8', 'smoothgrad=10' or "
            "'smoothgrad=10-beta=0.8' (of the strength of that beta)"
        )
    return _Smoothing(kind, number, resembles)


def check_smoothing(smoothing: str) -> None:
    """Raise a UsageError if ``smoothing`` is not one."""
    _parsed(smoothing)


def make_explainer(
    method: str,
    smoothing: str,
    loaded: LoadedModel,
    *,
    patterns: str | None,
    seed: int,
    chunk: int | None = None,
) -> Method:
    """The explanation method ``method`` under ``smoothing``, for a model.

    Args:
        method: its name.
        smoothing: ``none``, ``beta=B``, ``smoothgrad=N``, or ``smoothgrad=N-beta=B`` for the noise
            that resembles this beta (``trompe.geometry.matching_sigma``).
        loaded: the model.
        patterns: file of learned patterns, in place of those that come with the model.
        seed: of SmoothGrad's noise.
        chunk: how many copies are held in memory at once, where a method averages over many.

    Raises:
        TrompeError: if a name is unknown or the patterns cannot be used.
    """
    made = _smoothed(fitted(method, loaded, patterns=patterns), smoothing, loaded, seed)
    return made if chunk is None else made.holding(chunk)


def _smoothed(base: Method, smoothing: str, loaded: LoadedModel, seed: int) -> Method:
    chosen = _parsed(smoothing)
    if chosen.kind == "beta":
        return explainer("beta_smoothing", base=base, beta=chosen.number)
    if chosen.kind == "smoothgrad":
        strength = {} if chosen.resembles is None else {"sigma": _sigma(loaded, chosen.resembles)}
        samples = int(chosen.number)
        return explainer("smoothgrad", base=base, samples=samples, seed=seed, **strength)
    return base


def _sigma(loaded: LoadedModel, beta: float) -> float:
    """Theorem 2's choice; the same for every image, since it is about the first layer alone."""
    from trompe.geometry import matching_sigma

    place = next(loaded.model.parameters(), torch.empty(0))
    shape = (1, len(loaded.input_space.mean), loaded.size, loaded.size)
    return matching_sigma(loaded.model, place.new_zeros(shape), beta)
