"""beta-smoothing: run a model with its kinks replaced, without writing anything to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from trompe.engine.decompose import decomposed
from trompe.engine.inplace import Redirects, out_of_place
from trompe.engine.kinks import kinks as kinks
from trompe.engine.replacements import ACTIVATIONS, POOLINGS
from trompe.engine.replacements import cuts_the_negative as cuts_the_negative
from trompe.engine.surrogates import Beta
from trompe.errors import UsageError


class _Smoothing(TorchFunctionMode):
    """While active, calls of kinked functions, from modules or plain code, are replaced."""

    def __init__(self, owner: Smoothed) -> None:
        super().__init__()
        self.owner = owner
        self.redirects = Redirects()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = self.redirects.resolve((args, kwargs or {}))
        owner = self.owner
        if func in ACTIVATIONS and owner.activations:
            (_, args, kwargs), overwritten = out_of_place(func, args, kwargs)
            out = ACTIVATIONS[func](owner.beta, *args, **kwargs)
            if out is not NotImplemented:
                if overwritten is not None:
                    self.redirects.overwrite(overwritten, out)
                return out
        elif owner.pooling and func in POOLINGS:
            out = POOLINGS[func](owner.beta * owner.pooling, *args, **kwargs)
            if out is not NotImplemented:
                return out
        return func(*args, **kwargs)


class Smoothed(nn.Module):
    """A model whose kinks are smoothed while it runs; the model itself is not changed.

    Args:
        model: any module; it is shared, not copied.
        beta: strength of the activations' softplus; may be set anew at any time.
        pooling: max pooling is smoothed by log-sum-exp at this multiple of beta; 0 leaves it.
        activations: whether they are smoothed; without, pooling alone is.
    """

    def __init__(
        self, model: nn.Module, beta: Beta, pooling: float = 0.0, activations: bool = True
    ) -> None:
        super().__init__()
        self.model = model
        self.beta = beta
        self.pooling = pooling
        self.activations = activations
        self.training = model.training
        self._active: list[_Smoothing] = []

    def __enter__(self) -> Smoothed:
        """Smooth all that runs until the end of the ``with`` block, be it called as it is."""
        self._active.append(_Smoothing(self))
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
        """Run the model with its kinks smoothed."""
        return self.run(self.model, *args, **kwargs)

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function with the kinks in it smoothed, as those of this model are."""
        with decomposed(), _Smoothing(self) as mode:
            return mode.redirects.resolve(function(*args, **kwargs))


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
    """The model with softplus_beta in place of its kinks (PAPER.md, section 4: beta-smoothing).

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
