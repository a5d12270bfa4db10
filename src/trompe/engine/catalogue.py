"""Functions with a name, known by their values: which of them an expression is.

An expression of one activation (``trompe.engine.expressions``) is compared with each function of
the catalogue on numbers, and so are their derivatives. That needs no list of spellings. It is done
once for each expression, and for functions of rows once for each shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from trompe.engine.decompose import hard_sigmoid
from trompe.engine.expression_library import LIBRARY, Beta
from trompe.engine.expressions import ALONE, Written
from trompe.engine.softplus import softplus

Function = Callable[[Tensor], Tensor]

_CLOSE = 1e-7
"""The largest difference, relative to the size, that spells a constant in single precision."""


def named(
    written: Sequence[Written], betas: Sequence[float | Tensor]
) -> Callable[[], Tensor] | None:
    """The call of a function with a name that one of these expressions is, to be made.

    Args:
        written: of one tensor, of which the first that is known counts.
        betas: of the stand-ins in them.

    Returns:
        The call; ``None`` if none is known. One operation with a name is left as it is, and a ReLU
        of a ReLU is two of them.
    """
    own: object = None  # the function that the last operation is by itself
    for root, number in written:
        single = LIBRARY.sizes[number] == 1
        if LIBRARY.of_rows[number]:
            function = None if single else of_rows(number, tuple(root.shape))
        else:
            function = of_numbers(number)
            single = single and LIBRARY.nodes[number].func not in ALONE
            if single and function is not None and function is not _same:
                own = _plain(function)
                continue
        if function is None or _plain(function) is own:
            continue
        if isinstance(function, Soft):
            return partial(softplus, root, betas[function.beta.place])
        return partial(function, root)
    return None


def _plain(function: Function) -> object:
    """The last operation of a function, without its settings."""
    if function is _squared_relu:
        return torch.square
    return getattr(function, "func", function)


@dataclass(frozen=True)
class Soft:
    """A softplus of the beta of a stand-in.

    Args:
        beta: which of them.
    """

    beta: Beta

    def __call__(self, x: Tensor) -> Tensor:
        """Its value for the number in place of beta."""
        return softplus(x, self.beta.example)


def _same(x: Tensor) -> Tensor:
    return torch.clone(x)


def _squared_relu(x: Tensor) -> Tensor:
    return F.relu(x).square()


_FIXED: tuple[Function, ...] = (
    _same,
    F.relu,
    torch.abs,
    torch.sigmoid,
    torch.tanh,
    F.silu,
    F.gelu,
    partial(F.gelu, approximate="tanh"),
    F.mish,
    F.softplus,
    F.hardswish,
    hard_sigmoid,
    F.elu,
    F.selu,
    F.softsign,
    F.logsigmoid,
    F.tanhshrink,
    torch.square,
    _squared_relu,
)


def _with_settings(
    values: Callable[[float], float], numbers: Sequence[float | Beta]
) -> Iterator[Function]:
    """Functions with settings, these read off the values and the numbers of an expression."""
    low, high = values(-1e4), values(1e4)
    slope = -values(-1.0)
    if low < high:
        yield partial(F.hardtanh, min_val=low, max_val=high)
    if 0 < slope < 1 and values(1.0) == 1:
        yield partial(F.leaky_relu, negative_slope=_rounded(slope))
    if low < 0:
        yield partial(F.elu, alpha=_rounded(-low))
        yield partial(F.celu, alpha=_rounded(-low))
    for number in numbers:
        if isinstance(number, Beta):
            yield Soft(number)
        elif number > 0:
            yield partial(F.softshrink, lambd=number)
            yield partial(F.softplus, beta=number)


def _rounded(value: float) -> float:
    return float(f"{value:.10g}")


@lru_cache(maxsize=4096)
def of_numbers(number: int) -> Function | None:
    """The function of the catalogue that an expression of single numbers is."""
    numbers = list(dict.fromkeys(LIBRARY.constants(number)))
    kinks = [n for n in numbers if isinstance(n, float) and abs(n) < 50]
    edges = [side * n for n in kinks for side in (1, -1)]
    grid = [-15, -8.1, -5.2, -3.3, -2.7, -1.6, -1, -0.6, -0.23, -0.05, -1e-3]
    points = [e + step for e in edges for step in (-1e-3, 1e-3, 0.4, -0.4)]
    probe = torch.tensor([*grid, *(-n * 1.01 for n in grid), *points], dtype=torch.float64)

    def values(x: float) -> float:
        return float(LIBRARY.run(number, torch.tensor([x], dtype=torch.float64)))

    try:
        expected = _values(partial(LIBRARY.run, number), probe)
        if expected is None:
            return None
        candidates = (*_FIXED, *_with_settings(values, numbers))
    except (RuntimeError, TypeError, ValueError, IndexError, StopIteration):
        return None
    return next((f for f in candidates if _alike(f, probe, expected)), None)


@lru_cache(maxsize=4096)
def of_rows(number: int, shape: tuple[int, ...]) -> Function | None:
    """The function of the catalogue that an expression with sums over a dimension is."""
    sizes = [min(shape[0], 2), *shape[1:]]
    draw = torch.Generator().manual_seed(0)
    probe = torch.randn(sizes, generator=draw, dtype=torch.float64)
    try:
        expected = _values(partial(LIBRARY.run, number), probe)
    except (RuntimeError, TypeError, ValueError, IndexError, StopIteration):
        return None
    if expected is None or expected[0].shape != probe.shape:
        return None
    small = {n for n in LIBRARY.constants(number) if isinstance(n, float) and 0 < n < 0.1}
    for function in _of_rows(len(shape), shape, sorted({0.0, *small})):
        if _alike(function, probe, expected):
            return function
    return None


def _of_rows(count: int, shape: Sequence[int], guards: Sequence[float]) -> Iterator[Function]:
    yield from (_same, torch.sigmoid, F.softplus)  # of a row of two, one of them zero
    for dim in range(-1, -count, -1):
        yield partial(F.softmax, dim=dim)
        yield partial(F.log_softmax, dim=dim)
    places = [tuple(range(a, b)) for a in range(-count + 1, 0) for b in range(a + 1, 1)]
    for dims in sorted(places, key=len):
        for guard in guards:
            yield partial(_layer_norm, dims=dims, eps=guard)
            yield partial(_rms_norm, dims=dims, eps=guard)
    for dim in range(-1, -count, -1):
        for guard in (*guards, 1e-12):
            yield partial(F.normalize, dim=dim, eps=guard)


def _last(x: Tensor, dims: tuple[int, ...], norm: Callable[[Tensor, list[int]], Tensor]) -> Tensor:
    """A normalisation over dimensions that follow each other, moved to the end if they are not."""
    sizes = [x.shape[dim] for dim in dims]
    if dims[-1] == -1:
        return norm(x, sizes)
    ends = tuple(range(-len(dims), 0))
    return norm(x.movedim(dims, ends), sizes).movedim(ends, dims)


def _layer_norm(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    return _last(x, dims, lambda h, sizes: F.layer_norm(h, sizes, None, None, eps))


def _rms_norm(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    return _last(x, dims, lambda h, sizes: F.rms_norm(h, sizes, None, eps))


def _values(function: Function, probe: Tensor) -> tuple[Tensor, Tensor] | None:
    """The values of a function, and its derivative in a direction; ``None`` if not finite."""
    with torch.inference_mode(False), torch.enable_grad(), _disable_current_modes():
        x = probe.clone().requires_grad_(True)
        out = function(x)
        if not isinstance(out, Tensor) or not out.requires_grad or out.dtype != x.dtype:
            return None
        weights = torch.linspace(0.5, 1.5, out.numel(), dtype=x.dtype).reshape(out.shape)
        (slope,) = torch.autograd.grad(out, x, weights, allow_unused=True)
    if slope is None or not bool(torch.isfinite(out).all() and torch.isfinite(slope).all()):
        return None
    return out.detach(), slope


def _alike(function: Function, probe: Tensor, expected: tuple[Tensor, Tensor]) -> bool:
    try:
        found = _values(function, probe)
    except RuntimeError:
        return False
    if found is None or found[0].shape != expected[0].shape:
        return False
    return all(
        bool(((a - b).abs() <= _CLOSE * (b.abs() + b.abs().mean())).all())
        for a, b in zip(found, expected, strict=True)
    )
