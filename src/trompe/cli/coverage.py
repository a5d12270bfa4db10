"""Which method explains which network: tried, with the derivative of every map checked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trompe.explain import Method
    from trompe.types import Progress

Status = Literal["works", "not defined", "refused", "wrong"]
_SETTINGS: dict[str, dict[str, object]] = {
    "integrated_grad": {"steps": 2},
    "expected_gradients": {"samples": 2},
    "smoothgrad": {"samples": 2},
    "uniform_gradient": {"samples": 2},
    "grad_cam": {"positive": False},
    "occlusion": {"window": 8, "stride": 8},
    "rise": {"samples": 8, "cells": 3},
    "lime": {"samples": 8, "segments": 3},
    "kernel_shap": {"samples": 12, "segments": 3},
}


@dataclass(frozen=True)
class Coverage:
    """How one method fares on one network.

    Args:
        method: its name, that of the composite behind ``lrp``.
        status: ``works``: its map is finite and its derivative right; ``not defined`` for such a
            network or without more data; ``refused``: an operation has no rule; ``wrong``.
        reason: why it does not work.
        derivative_error: relative, against finite differences in double precision; ``None`` if not
            tried, or if slopes are smaller than rounding (then the reason says so).
        total: of methods that share out the logit: the sum of the map over the logit.
        magnitude: the sum of the map's magnitude over that of the logit. Under z+ and z_B neither
            is more than 1; a rule that divides by sums of both signs may exceed it by any factor.
    """

    method: str
    status: Status
    reason: str = ""
    derivative_error: float | None = None
    total: float | None = None
    magnitude: float | None = None


BOUNDED = frozenset({"lrp paper", "excitation_backprop"})
"""Methods whose maps are at most what they share out, by definition."""


def candidates() -> dict[str, Callable[[], Method]]:
    """All methods that explain without wrapping another, and all composites of LRP."""
    import dataclasses

    from trompe.explain import explainer, explainers
    from trompe.rules.composites import composite_names

    found: dict[str, Callable[[], Method]] = {}
    for name in explainers:
        fields = {field.name for field in dataclasses.fields(explainers[name])}
        if name == "lrp":
            for composite in composite_names():
                found[f"lrp {composite}"] = lambda c=composite: explainer("lrp", composite=c)  # type: ignore[misc]
        elif "base" not in fields:
            found[name] = lambda n=name: explainer(n, **_SETTINGS.get(n, {}))  # type: ignore[misc]
    return found


_STEPS = (1e-7, 1e-6, 1e-5, 1e-8, 1e-4, 1e-9, 1e-3)
"""Of the finite differences. A rule that divides by a small sum bends the map within 1e-6 of the
image: there only the smallest steps see the slope; where maps are tiny, those drown in rounding."""
_LAST_DIGITS = 1e-14
"""A change of a normalised image in double precision that rounding alone answers."""


def _derivative_error(
    method: Method, model: nn.Module, x: Tensor, target: Tensor, tolerance: float
) -> float | None:
    """Median over three lines of the relative error of the derivative along a line.

    The error of a line is that of the best step, tried until one is a hundred times as exact as
    asked for; what is wrong is so at every step. A step on which the map changes by no more than it
    does on a change of the image in its last digits says nothing.

    Returns:
        ``None`` if no step says anything: the slopes are smaller than rounding, as those of outputs
        in which a signal has vanished.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    start = x.detach().clone().requires_grad_(True)
    relevance = method(model, start, target)
    weights = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    (gradient,) = torch.autograd.grad((relevance * weights).sum(), start)

    def value(point: Tensor) -> float:
        with torch.no_grad():
            return float((method(model, point, target) * weights).sum())

    floor = 0.0
    if method.first_order:  # differences of outputs, which have a last digit
        with torch.no_grad():
            size = float(model(x).abs().max())
        floor = torch.finfo(x.dtype).eps * size * float(weights.norm())
    errors = []
    for _ in range(3):
        line = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        slope = float((gradient * line).sum())
        nearby = [value(x + times * _LAST_DIGITS * line) for times in range(-4, 5)]
        rounding = max(floor, max(nearby) - min(nearby))
        best = float("inf")
        for step in _STEPS:
            found = (value(x + step * line) - value(x - step * line)) / (2 * step)
            larger = max(abs(found), abs(slope))
            if rounding / step <= tolerance * larger:
                best = min(best, abs(slope - found) / max(abs(found), 1e-12))
            if best <= tolerance / 100:
                break
        if best < float("inf"):
            errors.append(best)
    return median(errors) if errors else None


def _shares(name: str, relevance: Tensor, logit: Tensor) -> tuple[float, float] | None:
    """Sum and magnitude of a map in parts of what the method shares out, if it shares out."""
    if not name.startswith("lrp ") and name != "excitation_backprop":
        return None
    whole = float(logit.sum()) if name.startswith("lrp ") else float(len(logit))
    if whole == 0:  # nothing to share out, as with a head that starts at zero
        return None
    return float(relevance.sum()) / whole, float(relevance.abs().sum()) / abs(whole)


def check(
    model: nn.Module,
    x: Tensor,
    methods: Iterable[str] | None = None,
    tolerance: float = 1e-4,
    derivative: bool = True,
    progress: Progress | None = None,
) -> list[Coverage]:
    """Try methods on a network, in double precision, smoothed for the derivative.

    Args:
        model: any classifier; not changed.
        x: an image [1, C, H, W].
        methods: names out of ``candidates``; all by default.
        tolerance: of the derivative, relative.
        derivative: whether it is tried as well, which takes nearly all of the time.
        progress: called before each method, and in the end.
    """
    import torch

    import trompe
    from trompe.errors import ModelError, PatternError, TrompeError, UnsupportedOp

    exact = copy.deepcopy(model).double().eval().requires_grad_(False)
    smoothed = trompe.smooth(exact, beta=5.0, pooling=True)
    x = x.double()
    with torch.no_grad():
        logits = exact(x)
        target = logits.argmax(dim=1)
        logit = logits.gather(1, target.view(-1, 1))
    with torch.enable_grad():
        if not exact(x.clone().requires_grad_(True)).requires_grad:
            raise ModelError(
                "the model's output has no derivative by the image: there is a detach(), a "
                "no_grad() or a rounding in it"
            )
    known = candidates()
    rows: list[Coverage] = []
    names = list(known if methods is None else methods)
    for place, name in enumerate(names):
        if progress is not None:
            progress(place, len(names), {})
        try:
            method = known[name]()
            relevance = method(exact, x, target)
            if not bool(torch.isfinite(relevance).all()):
                rows.append(Coverage(name, "wrong", "the map is not finite"))
                continue
            shares = _shares(name, relevance, logit)
            total, magnitude = shares if shares is not None else (None, None)
            if name in BOUNDED and magnitude is not None and magnitude > 1 + 1e-6:
                reason = f"the map is {magnitude:.3g} times the logit"
                rows.append(Coverage(name, "wrong", reason, None, total, magnitude))
                continue
            error = None
            if derivative:
                error = _derivative_error(method, smoothed, x, target, tolerance)
        except PatternError:
            rows.append(Coverage(name, "not defined", "needs patterns learned from data"))
        except UnsupportedOp as problem:
            whole = problem.operation == type(exact).__name__
            status: Status = "not defined" if whole else "refused"
            rows.append(Coverage(name, status, str(problem)))
        except TrompeError as problem:
            rows.append(Coverage(name, "refused", str(problem)))
        else:
            fine = error is None or error <= tolerance
            found: Status = "works" if fine else "wrong"
            unknown = "slopes smaller than rounding" if derivative and error is None else ""
            rows.append(Coverage(name, found, unknown, error, total, magnitude))
    if progress is not None:
        progress(len(names), len(names), {})
    return rows
