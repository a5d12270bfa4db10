"""Whether two runs of a model are the same function, and where they part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from trompe.engine.places import running
from trompe.engine.pytree import tensors_in
from trompe.engine.walk import names_of

_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.1}


def tolerance(*tensors: Tensor) -> float:
    """The largest difference, relative to the largest number, that rounding explains."""
    return max((_TOLERANCES.get(t.dtype, 0.0) for t in tensors), default=0.0)


def difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference of two runs' outputs, relative to the size of each output.

    Returns:
        Not negative; infinite where the shapes differ, or where only one is finite. Tensors
        without numbers (on the meta device) agree.
    """
    if len(found) != len(expected):
        return torch.inf
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            return torch.inf
        if not other.is_floating_point() or not other.numel() or other.is_meta:
            continue
        a, b = one.detach().double(), other.detach().double()
        finite = torch.isfinite(b)
        if not torch.equal(torch.isfinite(a), finite):
            return torch.inf
        if not bool(finite.any()):
            continue
        gap = float((a - b)[finite].abs().max())
        scale = float(b[finite].abs().max())
        worst = max(worst, gap / scale if scale else (torch.inf if gap else 0.0))
    return worst


def vanishes(far: Sequence[Tensor], near: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Whether a difference is a hundred times smaller at the second of two runs.

    So tells what tends to the expected output from what does not where that is 0, or cancels to
    nearly 0, and no difference is small beside it.
    """
    for one, other, true in zip(far, near, expected, strict=True):
        if one.shape != true.shape or other.shape != true.shape:
            return False
        if true.is_floating_point() and true.numel() and not true.is_meta:
            before, after = ((t.double() - true.double()).abs().max() for t in (one, other))
            if not bool(after <= before / 100):  # not a number: False
                return False
    return True


class _Values(TorchFunctionMode):
    """Keeps what each call of a function returned, with its name and place."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.calls: list[tuple[str, str, list[Tensor]]] = []
        self._names = names_of(model)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            if func is torch.clone:  # of the arguments: not the model's
                return out
            values = [t.detach().clone() for t in tensors_in(out) if t.is_floating_point()]
        if values:
            module = running(self._names)
            place = "an unknown place"
            if module is not None:
                place = f"'{self._names[id(module)]}' ({type(module).__name__})"
            name = resolve_name(func) or getattr(func, "__name__", str(func))
            self.calls.append((name, place, values))
        return out


def first_difference(
    model: nn.Module, plainly: Callable[[], Any], otherwise: Callable[[Any], Any]
) -> tuple[str, str]:
    """Name the first operation of a model whose value differs between two runs of it.

    Args:
        model: names the place.
        plainly: runs it as it is.
        otherwise: runs it in the other way, with a mode within that it is given.

    Returns:
        Its name and place, such as ``torch.relu_`` and ``'2' (ReLU)``.
    """
    first, second = _Values(model), _Values(model)
    with first:
        plainly()
    otherwise(second)
    for (name, place, values), (_, _, others) in zip(first.calls, second.calls, strict=False):
        if difference(others, values) > tolerance(*values):
            return name, place
    return "return", "the end, or one that is no torch function,"
