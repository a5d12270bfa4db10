"""Is the gradient that autograd gives the derivative of the output? Asked in double precision.

Differences in single precision, as in ``slope_check``, cannot tell a network of kinks from a
gradient that is a third too large. In double precision steps are so short that hardly a kink lies
between two points, and directions count in which the gradient itself hardly moves the output: what
is missing from a gradient (a branch that was detached) is seen by them alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from trompe.engine.apart import apart, as_written, kept
from trompe.engine.pytree import swapped, tensors_in

STEPS = (1e-6, 1e-7, 1e-5, 1e-8, 1e-4, 1e-3)
"""Lengths of a step, as shares of the image; one that agrees will do."""
TOLERANCE = 0.001
"""Derivatives that differ by more than this share of the larger one are of two functions."""
LONG_STEPS, ROUGHLY = (1e-4, 3e-4, 1e-3), 0.05
_SAME = 0.02
"""What is computed in double precision may differ by this share of the largest output."""
_ROUNDING = 300
"""Differences of less than so many units in the last place of the output tell nothing."""
_UNITS = 10
"""Of a difference, rounding makes up no more than so many of these units."""
_LOWER = frozenset({torch.float32, torch.float16, torch.bfloat16})


_FROM_PYTHON = (torch.tensor, torch.as_tensor)


class _WithDoubles(TorchFunctionMode):
    """Gives functions that compare the types of what they are given (convolutions) one type."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, tuple[Tensor, Tensor]] = {}  # weights, and what they are in double

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "_")
        if not name.endswith("_") and "out" not in kwargs:  # which changes nothing in place
            given = {t.dtype for t in tensors_in(args, kwargs)}
            if torch.float64 in given and given & _LOWER:
                with torch._C.DisableTorchFunction():
                    args, kwargs = swapped((args, kwargs), self._up)
        if func in _FROM_PYTHON and not types and kwargs.get("dtype", torch.float32) in _LOWER:
            made: Tensor = func(*args, **kwargs)
            return (
                func(*args, **{**kwargs, "dtype": torch.float64}) if made.dtype in _LOWER else made
            )
        return func(*args, **kwargs)

    def _up(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            return _up(tensor)
        if id(tensor) not in self._known:
            self._known[id(tensor)] = (tensor, _up(tensor.detach()))
        return self._known[id(tensor)][1]


def _up(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.dtype in _LOWER else tensor


class _InDouble(TorchDispatchMode):
    """Computes with all that meets a number of double precision in double precision too.

    No copy of the weights is made, and whatever function holds them need not be known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lossy = False  # whether numbers were written to memory of another precision

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else PyTorch imports its compiler, a second, to keep it out of here

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        with torch._C.DisableTorchFunction():
            given = tensors_in(args, kwargs or {})
            double = any(t.dtype is torch.float64 for t in given)
            kwargs = {
                k: torch.float64 if isinstance(v, torch.dtype) and v in _LOWER else v
                for k, v in (kwargs or {}).items()
            }
            if double and any(t.dtype in _LOWER for t in given):
                names = [a.name for a in func._schema.arguments]
                written = {
                    a.name for a in func._schema.arguments if a.alias_info and a.alias_info.is_write
                }
                values = {**dict(zip(names, args, strict=False)), **kwargs}
                kept_as_is = tensors_in([values[name] for name in written if name in values])
                self.lossy |= any(t.dtype in _LOWER for t in kept_as_is)
                fixed = {id(t) for t in kept_as_is}

                def up(t: Tensor) -> Tensor:
                    return t if id(t) in fixed else _up(t)

                args, kwargs = swapped((args, kwargs), up)
            out = func(*args, **kwargs)
            if not given and isinstance(out, Tensor) and out.dtype in _LOWER:
                return out.double()
            return out


def gradient_error(
    model: nn.Module,
    image: Tensor,
    logits_of: Callable[[nn.Module, Tensor], Tensor],
    *,
    rounded: bool = False,
) -> float | None:
    """By how much differences of a model's output miss what its gradient says.

    It costs a forward and a backward pass of one image and, where the first step agrees, a forward
    pass of two, all in double precision.

    Args:
        model: any module; what it keeps of a pass is put back.
        image: [1, ...], at no point where many numbers are equal (flat areas meet kinks).
        logits_of: the logits [B, K] that a module has for images.
        rounded: whether numbers may be rounded to single precision on the way, out of sight (in
            NumPy), so that long steps must agree too, up to ``ROUGHLY``.

    Returns:
        A share of the larger of both; 0 where they agree up to ``TOLERANCE``; ``None`` where
        nothing can be told, such as of a model that cannot compute in double precision.
    """
    image = image.detach()
    with (
        torch.inference_mode(False),
        torch.random.fork_rng(devices=[image.device] if image.is_cuda else []),
        apart(),
        kept(),
        as_written(),
        _put_back(model),
        torch.enable_grad(),
    ):
        found = _in_double(model, lambda: model, image, logits_of, rounded)
        if found is None:  # scripted models and recurrent layers look at their weights' type
            found = _in_double(
                model, lambda: copy.deepcopy(model).double(), image, logits_of, rounded
            )
        return found


def _in_double(
    model: nn.Module,
    made: Callable[[], nn.Module],
    image: Tensor,
    logits_of: Callable[[nn.Module, Tensor], Tensor],
    rounded: bool,
) -> float | None:
    try:
        expected = logits_of(model, image.clone()).detach().double()
        module = made()
        with _InDouble() as mode, _WithDoubles():
            found = _error(image.double(), expected, partial(logits_of, module), rounded)
    except Exception:  # what fails in double precision alone is no fault of the model
        return None
    return None if mode.lossy else found


def _error(
    image: Tensor, expected: Tensor, logits_of: Callable[[Tensor], Tensor], rounded: bool
) -> float | None:
    start = image.clone().requires_grad_(True)
    logits = logits_of(start.clone())
    size = expected.abs().amax()
    if logits.dtype is not torch.float64 or not bool(torch.isfinite(logits).all() & (size > 0)):
        return None
    if not bool(((logits.detach() - expected).abs() <= _SAME * size).all()):
        return None
    draw = torch.Generator().manual_seed(0)
    weights = _signs(logits, draw) / logits.shape[1] ** 0.5
    weights.scatter_(1, logits.detach().argmax(dim=1, keepdim=True), 1.0)
    before = (weights * logits).sum()
    (gradient,) = torch.autograd.grad(before, start, materialize_grads=True)
    flat = gradient.detach().flatten(1)
    directions = torch.cat([_direction(flat, draw) for _ in range(2)])
    said = (flat * directions).sum(dim=1)
    if not bool(torch.isfinite(said).all()):
        return None
    length = image.norm()
    unit = torch.finfo(torch.float64).eps * size
    noise, slack = _ROUNDING * unit, _UNITS * unit

    def nearest(steps: tuple[float, ...], tolerance: float) -> float | None:
        least = torch.full_like(said, torch.inf)
        for share in steps:
            step = share * length
            after = logits_of(image + step * directions.view(2, *image.shape[1:])).detach()
            found = ((weights * after).sum(dim=1) - before.detach()) / step
            larger = torch.maximum(found.abs(), said.abs())
            beyond = ((found - said).abs() - slack / step).clamp_min(0.0)
            apart_by = beyond / larger.clamp_min(1e-300)
            told = torch.isfinite(found) & ((larger > noise / step) | (larger == 0))
            least = torch.where(told, torch.minimum(least, apart_by), least)
            if bool((least <= tolerance).all()):
                return 0.0
        return float(least.amax()) if bool(torch.isfinite(least).all()) else None

    error = nearest(STEPS, TOLERANCE)
    return nearest(LONG_STEPS, ROUGHLY) if rounded and error == 0 else error


def _signs(like: Tensor, draw: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(2, like.shape, generator=draw).to(like) - 1


def _direction(gradient: Tensor, draw: torch.Generator) -> Tensor:
    """A random direction in which a gradient [1, N] says that the output rises, of length 1 to 2.

    It goes as much along the gradient as chance itself does: else the rise might be next to none.
    """
    size = gradient.shape[1] ** 0.5
    chance = _signs(gradient, draw) / size
    along = gradient / gradient.norm().clamp_min(1e-300)
    return torch.where((chance * along).sum() >= 0, chance, -chance) + along / size


@contextmanager
def _put_back(model: nn.Module) -> Iterator[None]:
    """What modules keep of a pass (a mask of the images' type) is as it was before."""
    plain = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]
    held = [(now, dict(now)) for m in plain for now in (vars(m), m._buffers)]
    try:
        yield
    finally:
        for now, before in held:
            for added in now.keys() - before.keys():
                del now[added]
            now.update(before)
