"""Norms of a Jacobian from its rows, which come in batches and are not held."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.certificates.upper import EPS, WIDEN

_DECOMPOSED = 3072
"""Gram matrices of at most so many rows are decomposed."""
_HELD = 2**25 + 2**23
"""A Jacobian of at most so many entries is held, and its norm is that of its Gram matrix."""
_BLOCK = 512
"""Rows of a large matrix that are copied at once."""


@dataclass
class Jacobian:
    """Norms of the Jacobian of a gate's argument by the image, or by an earlier gate's output.

    Args:
        rows: at least the l2 norm of each row, of the argument's shape, [1, ...].
        sums: at least the l1 norm of each row, likewise.
        columns: at least the l2 norm of each column, of the source's shape, [1, ...].
        norm: at least the spectral norm.
    """

    rows: Tensor
    sums: Tensor
    columns: Tensor
    norm: float


@dataclass
class Curvature:
    """Bounds of ``J^T C J`` for the Jacobian J of a gate's argument by the image.

    C is the diagonal of that gate's weights, and of those of the pools over its output.

    Args:
        norm: at least the spectral norm.
        columns: at least the l2 norm of each column of ``C^(1/2) J``, of the image's shape.
        magnitude: at least the norm of ``M^T C M``, M with every path counted as positive.
    """

    norm: float
    columns: Tensor
    magnitude: float


class Sums:
    """What is added up over the rows of one Jacobian.

    Args:
        size: number of rows.
        like: of the source's shape, [1, ...].
    """

    def __init__(self, size: int, like: Tensor) -> None:
        self.shape = like.shape[1:]
        self.rows = torch.zeros(size, dtype=torch.float64)
        self.sums = torch.zeros_like(self.rows)
        self.squares = torch.zeros(like.numel(), dtype=torch.float64)
        self.magnitudes = torch.zeros_like(self.squares)
        fits = size * like.numel() <= _HELD
        self.held = torch.zeros(size, like.numel(), dtype=torch.float64) if fits else None
        self.gram_sum = self.gram_square = 0.0
        self.weight: Tensor | None = None

    def weigh(self, weight: Tensor) -> None:
        """Add up ``J^T C J`` too; the diagonal of C, [rows]."""
        self.weight = weight
        self.weighted_squares = torch.zeros_like(self.squares)
        self.weighted_sums = torch.zeros_like(self.squares)
        self.weighted_gram_sum = self.weighted_gram_square = 0.0

    def add(self, first: int, rows: Tensor) -> None:
        """Rows [count, source] from number ``first`` on."""
        part = slice(first, first + len(rows))
        self.rows[part] = rows.norm(dim=1)
        sizes = rows.abs()
        self.sums[part] = sizes.sum(dim=1)
        self.magnitudes += sizes.sum(dim=0)
        self.squares += rows.square().sum(dim=0)
        if self.held is not None:
            self.held[part] = rows
        if self.weight is not None:
            weight = self.weight[part]
            self.weighted_squares += weight @ rows.square()
            self.weighted_sums += (weight * self.sums[part]) @ sizes

    def add_merged(self, number: Tensor, rows: Tensor, label: Tensor, count: int) -> None:
        """Sums of rows [channels, *source] with nothing in common, told apart by a map of places.

        Args:
            number: of each row, [channels, count].
            rows: those of one channel in one sum.
            label: to which of the ``count`` rows a place belongs, [H, W].
            count: of rows in a sum.
        """
        inside = label.flatten() >= 0
        index = label.flatten()[inside].expand(len(rows), -1)
        places = rows.flatten(2)[:, :, inside]
        blank = torch.zeros(len(rows), count, dtype=torch.float64)
        squares = blank.scatter_add(1, index, places.square().sum(dim=1))
        sizes = blank.scatter_add(1, index, places.abs().sum(dim=1))
        self.rows[number.flatten()] = squares.sqrt().flatten()
        self.sums[number.flatten()] = sizes.flatten()
        self.magnitudes += rows.abs().sum(dim=0).flatten()
        self.squares += rows.square().sum(dim=0).flatten()
        self.held = None
        if self.weight is not None:
            weight = self.weight[number.flatten()].view(len(rows), count)
            self.weighted_squares[:] += _merged(places.square(), weight, index, inside)
            self.weighted_sums[:] += _merged(places.abs(), weight * sizes, index, inside)

    def add_gram(self, first: int, rows: Tensor) -> None:
        """Rows of the Gram matrix ``J J^T``, [count, size], from number ``first`` on."""
        self.gram_sum = max(self.gram_sum, float(rows.abs().sum(dim=1).max()))
        self.gram_square += float(rows.square().sum())
        if self.weight is not None:
            root = self.weight.sqrt()
            rows = rows.abs() * root * root[first : first + len(rows), None]
            self.weighted_gram_sum = max(self.weighted_gram_sum, float(rows.sum(dim=1).max()))
            self.weighted_gram_square += float(rows.square().sum())

    def norm(self, rounding: float) -> float:
        """The spectral norm, or the smallest bound of it that the sums give.

        Schur's test of J, and of J J^T, whose root is never larger; and Frobenius norms of both.

        Args:
            rounding: at least the norm of the rounding error of a Gram matrix.
        """
        if self.held is not None:
            tall = self.held.shape[0] > self.held.shape[1]
            gram = self.held.mT @ self.held if tall else self.held @ self.held.mT
            if len(gram) <= _DECOMPOSED:
                return math.sqrt(max(float(torch.linalg.eigvalsh(gram)[-1]), 0.0) + rounding)
            squared = float(gram.abs().sum(dim=1).max())
            return math.sqrt(min(squared, float(gram.norm())) + rounding)
        bounds = [
            math.sqrt(float(self.sums.max()) * float(self.magnitudes.max())),
            float(self.rows.norm()),
        ]
        if self.gram_sum:
            bounds.append(math.sqrt(min(self.gram_sum, self.gram_square**0.5) + rounding))
        return min(bounds)

    def jacobian(self, reach: Tensor, total: Tensor, relative: float) -> Jacobian:
        """All norms, rounding included.

        Args:
            reach: sums of the rows with every term positive, of the argument's shape.
            total: of the columns, of the source's shape.
            relative: rounding error against such sums.
        """
        off, across = relative * reach, relative * total
        error, rounding = self._errors(reach, total, relative)
        return Jacobian(
            WIDEN * self.rows.view_as(reach) + off,
            WIDEN * self.sums.view_as(reach) + off,
            WIDEN * self.squares.sqrt().view_as(total) + across,
            WIDEN * self.norm(rounding) + error,
        )

    def curvature(self, reach: Tensor, total: Tensor, relative: float) -> Curvature:
        """Bounds of ``J^T C J``, rounding included; see ``jacobian``."""
        assert self.weight is not None
        error, rounding = self._errors(reach, total, relative)
        largest = float(self.weight.max())
        # The trace, and Schur's test of |J|^T C |J|.
        bounds = [float(self.weighted_squares.sum()), float(self.weighted_sums.max())]
        if self.held is not None:
            scaled = self.weight.sqrt()[:, None] * self.held
            gram = scaled @ scaled.mT if len(scaled) < scaled.shape[1] else scaled.mT @ scaled
            exact = float(gram.norm())
            if len(gram) <= _DECOMPOSED:
                exact = max(float(torch.linalg.eigvalsh(gram)[-1]), 0.0)
            bounds.append(exact + largest * rounding)
        elif self.gram_sum:
            exact = min(self.weighted_gram_sum, self.weighted_gram_square**0.5)
            bounds.append(exact + largest * rounding)
        columns = self.weighted_squares.sqrt().view_as(total)
        return Curvature(
            WIDEN * (math.sqrt(min(bounds)) + math.sqrt(largest) * error) ** 2,
            WIDEN * (columns + math.sqrt(largest) * relative * total),
            WIDEN * largest * float(reach.max()) * float(total.max()),
        )

    def _errors(self, reach: Tensor, total: Tensor, relative: float) -> tuple[float, float]:
        """Of the Jacobian in the spectral norm, and of a Gram matrix of it as computed."""
        most = float(reach.max()) * float(total.max())
        own = EPS * max(len(self.rows), self.squares.numel())
        return 2 * relative * math.sqrt(most), 4 * (relative + own) * most


def symmetrise(matrix: Tensor) -> None:
    """Replace a matrix [d, d] by the mean of itself and its transpose, without a second one."""
    for first in range(0, len(matrix), _BLOCK):
        part = slice(first, first + _BLOCK)
        mean = (matrix[part, first:] + matrix[first:, part].mT) / 2
        matrix[part, first:] = mean
        matrix[first:, part] = mean.mT


def symmetric_norm(matrix: Tensor) -> float:
    """At least the spectral norm of a symmetric matrix [d, d].

    Small ones are decomposed. Of others a space V of leading eigenvectors is split off: with the
    blocks A on V, R on the rest and K between, the norm is at most ``max(|A|, |R|_F) + |K|``.
    """
    if len(matrix) <= _DECOMPOSED:
        return float(torch.linalg.eigvalsh(matrix).abs().max()) * WIDEN
    generator = torch.Generator().manual_seed(0)
    space = torch.randn(len(matrix), 96, generator=generator, dtype=matrix.dtype)
    for _ in range(12):
        space = torch.linalg.qr(matrix @ space).Q
    image = matrix @ space
    block = space.mT @ image
    between = image - space @ block
    total = sum(float(rows.square().sum()) for rows in matrix.split(_BLOCK))
    rest = total * (1 + 1e-10) - float(block.square().sum()) - 2 * float(between.square().sum())
    own = float(torch.linalg.matrix_norm(block, 2))
    found = max(own, math.sqrt(max(rest, 0.0))) + float(torch.linalg.matrix_norm(between, 2))
    return WIDEN * min(found, math.sqrt(total))


def _merged(places: Tensor, factor: Tensor, index: Tensor, inside: Tensor) -> Tensor:
    """Sum over channels of merged rows, [channels, C, places], each times its factor; all places.

    Args:
        places: those inside only.
        factor: of each row, [channels, count].
        index: which row a place belongs to, [channels, places].
        inside: mask of the places.
    """
    out = torch.zeros(places.shape[1], len(inside), dtype=torch.float64)
    out[:, inside] = (places * factor.gather(1, index)[:, None]).sum(dim=0)
    return out.flatten()
