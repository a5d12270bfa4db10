"""Linear maps with what a bound needs of them: magnitude, row norms, and a norm from above.

All norms here are upper bounds in exact arithmetic, widened by ``WIDEN`` against rounding. Power
iteration approaches a norm from below and is used nowhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input

from trompe.certificates.upper import WIDEN

_FREQUENCIES = 2**24
"""At most so many entries of a convolution's transfer function are computed."""


class LinearMap(ABC):
    """A linear map of tensors, [B, *in_shape] -> [B, *out_shape], float64."""

    in_shape: torch.Size
    out_shape: torch.Size
    terms: int = 64
    """How many products are added up in one output, for the rounding error."""

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """The image of x [B, *in_shape]."""

    @abstractmethod
    def transpose(self, y: Tensor) -> Tensor:
        """The transposed map on y [B, *out_shape]."""

    @property
    @abstractmethod
    def magnitude(self) -> LinearMap:
        """The map whose coefficients are the absolute values."""

    @property
    @abstractmethod
    def row_norms(self) -> Tensor:
        """At least the l2 norm of the coefficients of each output, broadcast to [*out_shape]."""

    @cached_property
    def norm(self) -> float:
        """At least the spectral norm: here Schur's test, ``sqrt(||A||_1 ||A||_inf)``."""
        absolute = self.magnitude
        ones_in = torch.ones(1, *self.in_shape, dtype=torch.float64)
        ones_out = torch.ones(1, *self.out_shape, dtype=torch.float64)
        rows = float(absolute.apply(ones_in).max())
        columns = float(absolute.transpose(ones_out).max())
        return WIDEN * float((rows * columns) ** 0.5)

    @cached_property
    def frobenius(self) -> float:
        """At least the Frobenius norm."""
        rows = self.row_norms.expand(self.out_shape)
        return WIDEN * float(rows.square().sum().sqrt())


class Dense(LinearMap):
    """``x W^T`` on the last axis; ``W`` [out, in]."""

    def __init__(self, weight: Tensor, in_shape: torch.Size) -> None:
        self.weight = weight
        self.in_shape = in_shape
        self.out_shape = torch.Size((*in_shape[:-1], weight.shape[0]))
        self.terms = weight.shape[1]

    def apply(self, x: Tensor) -> Tensor:
        """See ``LinearMap``."""
        return F.linear(x, self.weight)

    def transpose(self, y: Tensor) -> Tensor:
        """See ``LinearMap``."""
        return y @ self.weight

    @cached_property
    def magnitude(self) -> LinearMap:
        """See ``LinearMap``."""
        return Dense(self.weight.abs(), self.in_shape)

    @cached_property
    def row_norms(self) -> Tensor:
        """See ``LinearMap``."""
        return WIDEN * self.weight.norm(dim=1).expand(self.out_shape)

    @cached_property
    def norm(self) -> float:
        """The spectral norm, by an exact singular value decomposition."""
        return WIDEN * float(torch.linalg.matrix_norm(self.weight, 2))


class Conv(LinearMap):
    """A two-dimensional convolution with zero padding; ``weight`` [out, in / groups, kh, kw]."""

    def __init__(self, weight: Tensor, in_shape: torch.Size, settings: dict[str, Any]) -> None:
        self.weight = weight
        self.in_shape = in_shape
        self.settings = settings  # stride, padding, dilation: pairs; groups
        probe = torch.zeros(1, *in_shape, dtype=weight.dtype)
        self.out_shape = F.conv2d(probe, weight, **settings).shape[1:]
        self.terms = weight[0].numel()

    def apply(self, x: Tensor) -> Tensor:
        """See ``LinearMap``."""
        return F.conv2d(x, self.weight, **self.settings)

    def transpose(self, y: Tensor) -> Tensor:
        """See ``LinearMap``."""
        shape = torch.Size((y.shape[0], *self.in_shape))
        return conv2d_input(shape, self.weight, y, **self.settings)

    @cached_property
    def magnitude(self) -> LinearMap:
        """See ``LinearMap``."""
        return Conv(self.weight.abs(), self.in_shape, self.settings)

    @cached_property
    def row_norms(self) -> Tensor:
        """See ``LinearMap``; padding only takes coefficients away."""
        rows = self.weight.flatten(1).norm(dim=1)
        return WIDEN * rows.view(-1, 1, 1).expand(self.out_shape)

    @cached_property
    def norm(self) -> float:
        """The smaller of Schur's test and the norm on a torus large enough to wrap nothing.

        With zeros around the image, the convolution is a part (rows and columns left out: stride,
        border) of a circular one on a torus of the size of image plus kernel. The circular one is
        block-diagonal in frequency: its norm is the largest singular value of all blocks, computed
        exactly (Sedghi, Gupta and Long 2019).
        """
        schur = LinearMap.norm.func(self)  # type: ignore[attr-defined]
        groups = self.settings["groups"]
        kernel = [
            (k - 1) * d + 1
            for k, d in zip(self.weight.shape[2:], self.settings["dilation"], strict=True)
        ]
        # Padding beyond the kernel's reach only adds zeros: it does not need room of its own.
        torus = [n + k - 1 for n, k in zip(self.in_shape[1:], kernel, strict=True)]
        if self.weight.shape[0] * self.weight.shape[1] * torus[0] * torus[1] > _FREQUENCIES:
            return float(schur)
        spread = self.weight.new_zeros(*self.weight.shape[:2], *kernel)
        (dh, dw) = self.settings["dilation"]
        spread[..., ::dh, ::dw] = self.weight
        transfer = torch.fft.rfft2(spread, s=torus)
        blocks = transfer.unflatten(0, (groups, -1)).permute(0, 3, 4, 1, 2)
        exact = float(torch.linalg.matrix_norm(blocks, 2).max())
        return min(float(schur), WIDEN * exact)


class Scale(LinearMap):
    """Each entry times a constant: batch norm, factors, signs."""

    def __init__(self, factor: Tensor, in_shape: torch.Size) -> None:
        self.factor = factor.expand(in_shape)
        self.in_shape = self.out_shape = in_shape
        self.terms = 1

    def apply(self, x: Tensor) -> Tensor:
        """See ``LinearMap``."""
        return x * self.factor

    def transpose(self, y: Tensor) -> Tensor:
        """See ``LinearMap``."""
        return y * self.factor

    @cached_property
    def magnitude(self) -> LinearMap:
        """See ``LinearMap``."""
        return Scale(self.factor.abs(), self.in_shape)

    @property
    def row_norms(self) -> Tensor:
        """See ``LinearMap``."""
        return WIDEN * self.factor.abs()

    @cached_property
    def norm(self) -> float:
        """The largest factor."""
        return WIDEN * float(self.factor.abs().max())


class Move(LinearMap):
    """A linear map without negative coefficients: moves, selects, pads, averages, sums.

    Args:
        function: maps [B, *in_shape] to [B, *out_shape], differentiably.
        in_shape: without the batch.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], in_shape: torch.Size) -> None:
        self.function = function
        self.in_shape = in_shape
        self.out_shape = function(torch.zeros(1, *in_shape, dtype=torch.float64)).shape[1:]

    def apply(self, x: Tensor) -> Tensor:
        """See ``LinearMap``."""
        return self.function(x)

    def transpose(self, y: Tensor) -> Tensor:
        """See ``LinearMap``."""
        with torch.enable_grad():
            probe = y.new_zeros(y.shape[0], *self.in_shape).requires_grad_(True)
            (out,) = torch.autograd.grad(self.function(probe), probe, y, materialize_grads=True)
        return out

    @property
    def magnitude(self) -> LinearMap:
        """See ``LinearMap``."""
        return self

    @cached_property
    def row_norms(self) -> Tensor:
        """See ``LinearMap``: the sum of the coefficients, or the norm of the whole."""
        ones = torch.ones(1, *self.in_shape, dtype=torch.float64)
        return (WIDEN * self.apply(ones)[0]).clamp(max=self.norm)
