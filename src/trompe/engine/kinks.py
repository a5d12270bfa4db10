"""What smoothing a model replaces, and which kinks remain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves

from trompe.engine.inplace import out_of_place
from trompe.engine.replacements import ACTIVATIONS, KINKED, POOLINGS
from trompe.engine.tape import running

Fate = Literal["smoothed", "pooling", "remains"]


@dataclass(frozen=True)
class Kink:
    """Calls of one function at one place.

    Args:
        function: its name, such as ``torch.nn.functional.hardtanh``.
        place: the module that calls it, such as ``features.2 (ReLU6)``.
        fate: ``smoothed`` always, ``pooling``: only where pooling is smoothed too, or ``remains``.
        count: how often it is called in one forward pass.
    """

    function: str
    place: str
    fate: Fate
    count: int


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

    def __str__(self) -> str:
        lines = []
        for title, found in (("replaced", self.replaced), ("remaining", self.remaining)):
            lines.append(f"{title}: {sum(kink.count for kink in found)}")
            lines += [f"  {k.function} in {k.place}, {k.count}x" for k in found]
        return "\n".join(lines)


class _Watch(TorchFunctionMode):
    """Counts calls of kinked functions on what depends on the input."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.found: Counter[tuple[str, str, Fate]] = Counter()
        self._names = {id(module): name for name, module in model.named_modules()}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in ACTIVATIONS or func in POOLINGS or func in KINKED:
            leaves = tree_leaves((args, kwargs))
            if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves):
                fate = _fate(func, args, kwargs)
                if fate is not None:
                    self.found[_name(func), self._place(), fate] += 1
        return func(*args, **kwargs)

    def _place(self) -> str:
        module = running(self._names)
        if module is None:
            return "the model"
        return f"{self._names[id(module)] or 'the model'} ({type(module).__name__})"


def _name(func: Callable[..., Any]) -> str:
    return resolve_name(func) or getattr(func, "__name__", str(func))


def _fate(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Fate | None:
    """Whether the replacement takes this very call, tried on copies without a graph."""
    table = ACTIVATIONS if func in ACTIVATIONS else POOLINGS
    if func not in table:
        return "remains"
    _, args, kwargs = out_of_place(func, args, kwargs)[0]
    with torch.no_grad():
        if table[func](1.0, *args, **kwargs) is NotImplemented:
            return "remains"
    return "smoothed" if table is ACTIVATIONS else "pooling"


def kinks(model: nn.Module, x: Tensor, *, pooling: bool = False) -> KinkReport:
    """Report the kinks of ``model`` on the way of ``x``: what smoothing replaces, what remains.

    Comparisons of activations are among those that remain: a branch may depend on them.

    Args:
        model: any module; not changed.
        x: [B, C, H, W], an image will do.
        pooling: whether max pooling is to be smoothed too.

    Returns:
        The report; ``.replaced``, ``.remaining``, and readable as a string.

    Example:
        >>> import torch, trompe.engine
        >>> net = torch.nn.Sequential(torch.nn.ReLU6(), torch.nn.MaxPool2d(2))
        >>> print(trompe.engine.kinks(net, torch.zeros(1, 3, 4, 4)))
        replaced: 1
          torch.nn.functional.hardtanh in 0 (ReLU6), 1x
        remaining: 1
          torch.nn.functional.max_pool2d in 1 (MaxPool2d), 1x
    """
    watch = _Watch(model)
    with torch.enable_grad(), watch:
        model(x.detach().clone().requires_grad_(True))
    found = (Kink(*key, count) for key, count in watch.found.items())
    return KinkReport(tuple(found), pooling)
