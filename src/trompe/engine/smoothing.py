"""beta-smoothing: run a model with its kinks replaced, without writing anything to it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import nn

from trompe.engine.agreement import difference, first_difference, tolerance, vanishes
from trompe.engine.apart import apart, as_written, kept
from trompe.engine.decompose import decomposed
from trompe.engine.once import first_image, once, watched
from trompe.engine.pytree import swapped, tensors_in
from trompe.engine.replacing import Careful, Smoothing
from trompe.engine.selections import WHERE
from trompe.engine.surrogates import Beta
from trompe.engine.watching import Kink
from trompe.errors import ModelError, UsageError

_log = logging.getLogger("trompe")


class Smoothed(nn.Module):
    """A model whose kinks are smoothed while it runs; the model itself is not changed.

    Args:
        model: any module; it is shared, not copied.
        beta: strength of the activations' softplus; may be set anew at any time.
        pooling: max pooling is smoothed by log-sum-exp at this multiple of beta; 0 leaves it.
        activations: whether they are smoothed; without, pooling alone is.
        scales: what multiplies beta in the activations, in the order in which they are called; 1
            in all that come after.
        pooling_scales: likewise in the max poolings.
    """

    wraps = True

    def __init__(
        self,
        model: nn.Module,
        beta: Beta,
        pooling: float = 0.0,
        activations: bool = True,
        scales: tuple[float, ...] = (),
        pooling_scales: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self.beta = beta
        self.pooling = pooling
        self.activations = activations
        self.scales = scales
        self.pooling_scales = pooling_scales
        self.training = getattr(model, "training", False)  # a frozen script has none
        self._active: list[Smoothing] = []

    def __enter__(self) -> Smoothed:
        """Smooth all that runs until the end of the ``with`` block, be it called as it is."""
        self._active.append(Smoothing(self))
        self._active[-1].__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._active.pop().__exit__(kind, error, trace)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model with its kinks smoothed.

        On the first call, and again for another structure or shape, the model is watched and the
        smoothing checked: it must tend to the model as beta grows.

        Raises:
            ModelError: if it does not, or if none of the model's kinks can be smoothed.
        """
        return self.run(self.model, *args, **kwargs)

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function with the kinks in it smoothed, as those of this model are."""
        careful = function is self.model and self.is_careful(args, kwargs)
        return self._run(function, args, kwargs, careful)

    def _run(
        self,
        function: Callable[..., Any],
        args: Any,
        kwargs: Any,
        careful: bool,
        within: Any = None,
    ) -> Any:
        mode = Careful(self, (args, kwargs)) if careful else Smoothing(self)
        with kept(), as_written(), decomposed(), mode:
            if within is None:
                return mode.redirects.resolve(function(*args, **kwargs))
            with within:
                return mode.redirects.resolve(function(*args, **kwargs))

    def is_careful(self, args: Any, kwargs: Any) -> bool:
        """Whether the model needs care; found out once, as it takes a while.

        Raises:
            ModelError: if its smoothing does not tend to it.
        """
        question = ("smoothing", self.activations, bool(self.pooling))
        return once(self.model, question, args, kwargs, lambda: self._vouch(args, kwargs))

    def _vouch(self, args: Any, kwargs: Any) -> bool:
        """Watch the model, and see that its smoothing tends to it.

        Returns:
            Whether care is needed.

        Raises:
            ModelError: if it is another function, or reaches no kink.
        """
        seen = watched(self.model, args, kwargs)
        covered = [kink for kink in seen.kinks if kink.fate != "remains"]
        remaining = [kink for kink in seen.kinks if kink.fate == "remains"]
        if remaining and not covered:
            hidden = remaining[0].function.startswith("torch.ops.")
            raise ModelError(
                f"none of the model's kinks can be smoothed ({remaining[0].function} in "
                f"{remaining[0].place}): "
                + (
                    "a scripted or traced model hides its operations, so give the module it was "
                    "made from; otherwise go without smoothing"
                    if hidden
                    else "there is no smooth form of it; write it otherwise (a ReLU, a maximum), "
                    "or go without smoothing"
                )
            )
        if covered and not self.pooling and all(kink.fate == "pooling" for kink in covered):
            _log.warning(
                "nothing is smoothed: all kinks of the model are maxima over places or dimensions "
                "(%s in %s), which pooling=True smooths",
                covered[0].function,
                covered[0].place,
            )
        for kink in remaining:
            _log.warning(
                "%s in %s is not smoothed: an attack by the gradient may not see past it",
                kink.function,
                kink.place,
            )
        given = (args, kwargs) if seen.whole else first_image(args, kwargs)
        args, kwargs = swapped(given, lambda t: t.detach())
        limit = Smoothed(self.model, _limit(args, kwargs), min(self.pooling, 1), self.activations)

        def plainly() -> Any:
            return self.model(*swapped(args, torch.clone), **swapped(kwargs, torch.clone))

        def at_the_limit(within: Any = None) -> Any:
            a, k = swapped((args, kwargs), torch.clone)
            return limit._run(self.model, a, k, seen.careful, within)

        with apart(), kept(), torch.inference_mode(False), torch.no_grad():
            expected = tensors_in(plainly())
            try:
                found = tensors_in(at_the_limit())
            except RuntimeError as error:
                if "functorch" not in str(error):
                    raise
                raise ModelError(
                    "the model computes with torch.vmap or torch.func, within which nothing can be "
                    "smoothed: write it with operations on whole batches, or go without smoothing"
                ) from error
            if difference(found, expected) <= max(tolerance(*expected), 1e-3):
                return seen.careful
            limit.beta *= 1e3
            if vanishes(found, tensors_in(at_the_limit()), expected):
                return seen.careful
            name, place = first_difference(self.model, plainly, at_the_limit)
        tied = _tied(name, seen.kinks)
        if tied is not None:
            raise ModelError(
                f"the smoothed model does not tend to the model as beta grows: {tied.function} in "
                f"{tied.place} chooses by comparing numbers that are equal, such as the largest of "
                "some with one of them (after topk, amax or median), and a smoothed choice lies "
                "halfway there: take them by topk with scatter or gather, or go without smoothing"
            )
        raise ModelError(
            f"the smoothed model does not tend to the model as beta grows: '{name}' at {place} "
            "gives other values; write it out of place and with plain torch functions, or go "
            "without smoothing"
        )


def _tied(name: str, kinks: tuple[Kink, ...]) -> Kink | None:
    """The choice by a comparison that an operation is, or that changed what it was given."""
    choices = [kink for kink in kinks if kink.operation == WHERE.name or "where" in kink.function]
    found = (kink for kink in choices if kink.function == name)
    # An assignment returns nothing to compare: what comes after it differs.
    unseen = (kink for kink in choices if kink.function.endswith("__setitem__"))
    return next(found, next(unseen, None))


def _limit(args: Any, kwargs: Any) -> float:
    """A beta that leaves nothing of the smoothing but rounding, in this precision."""
    low = any(t.dtype == torch.float16 for t in tensors_in(args, kwargs))
    return 1e3 if low else 1e7


def check_beta(beta: Beta) -> Beta:
    """Return ``beta`` if it is positive and finite.

    Raises:
        UsageError: otherwise.
    """
    value = float(beta)
    if not (value > 0 and math.isfinite(value)):
        raise UsageError(f"beta must be positive and finite, not {value:g}")
    return beta


def smooth(
    model: nn.Module, *, beta: Beta, pooling: bool | float = False, activations: bool = True
) -> Smoothed:
    """The model with softplus_beta in place of its kinks (beta-smoothing, Dombrowski et al. 2019).

    Args:
        model: any module; not changed. A smoothed one is smoothed anew, not twice.
        beta: positive; about 1 to protect an explanation, 10 to 100 as the surrogate of an attack.
        pooling: whether max pooling is smoothed too, by log-sum-exp with the same beta; a number
            multiplies beta there.
        activations: whether they are smoothed; without, pooling alone is.

    Returns:
        A callable module with the same inputs and outputs. It is a context too: within
        ``with smooth(model, beta=1):`` the model itself, and all else that runs, is smoothed.

    Raises:
        UsageError: if beta is not positive.

    Example:
        >>> import torch, trompe
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
        >>> trompe.smooth(net, beta=0.8)(torch.zeros(1, 2)).shape
        torch.Size([1, 3])
    """
    inner = model.model if isinstance(model, Smoothed) else model
    return Smoothed(inner, check_beta(beta), float(pooling), activations)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside a smoothed one, or the model itself."""
    return model.model if isinstance(model, Smoothed) else model
