"""Batched Lanczos: the eigenvalues of largest magnitude of one symmetric operator per image."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]
"""Multiplies vectors [B, d] by one symmetric matrix each."""


class Eigenpairs(NamedTuple):
    """Eigenvalues [B, k] of falling magnitude, vectors [B, k, d], residuals [B, k], products."""

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(like.shape, generator=generator, dtype=torch.float64)
    return drawn.to(like.device, like.dtype)


def _orthogonal(vector: Tensor, basis: Tensor) -> Tensor:
    """``vector`` [B, d] without its part in the span of the orthonormal ``basis`` [B, m, d]."""
    for _ in range(2):  # twice is enough (Kahan, Parlett)
        share = torch.einsum("bmd,bd->bm", basis, vector)
        vector = vector - torch.einsum("bm,bmd->bd", share, basis)
    return vector


def largest(
    operator: Operator,
    excluded: Tensor,
    k: int,
    *,
    tolerance: float,
    steps: int,
    generator: torch.Generator,
) -> Eigenpairs:
    """The k eigenpairs of largest magnitude on the orthogonal complement of ``excluded``.

    Lanczos with full reorthogonalisation, all images in step, one product each per step. Where an
    invariant subspace is exhausted (eigenvalues of high multiplicity) it goes on with a fresh
    random direction, so that copies are found as well.

    Args:
        operator: symmetric, maps the complement into itself.
        excluded: orthonormal vectors, [B, m, d].
        k: at most d - m.
        tolerance: stop when every residual estimate is below this share of the largest value.
        steps: at most so many products.
        generator: of the starting vectors.

    Returns:
        Eigenpairs whose residuals ``||A v - t v||`` were computed, not estimated.
    """
    batch, fixed, size = excluded.shape
    steps = min(steps, size - fixed)
    basis = excluded.new_zeros(batch, fixed + steps, size)
    basis[:, :fixed] = excluded
    diagonal = excluded.new_zeros(batch, steps)
    coupling = excluded.new_zeros(batch, steps)
    scale = excluded.new_zeros(batch)
    current = _orthogonal(_random(excluded[:, 0], generator), excluded)
    current = current / current.norm(dim=1, keepdim=True)
    done = 0
    for step in range(steps):
        basis[:, fixed + step] = current
        product = operator(current)
        done = step + 1
        diagonal[:, step] = (current * product).sum(dim=1)
        scale = torch.maximum(scale, product.norm(dim=1))
        rest = _orthogonal(product, basis[:, : fixed + done])
        size_rest = rest.norm(dim=1)
        broken = size_rest <= 1e-12 * scale.clamp(min=torch.finfo(scale.dtype).tiny)
        coupling[:, step] = torch.where(broken, torch.zeros_like(size_rest), size_rest)
        if done >= k and _settled(diagonal, coupling, done, k, tolerance, broken):
            break
        if done == steps:
            break
        if bool(broken.any()):
            fresh = _orthogonal(_random(rest, generator), basis[:, : fixed + done])
            rest = torch.where(broken.unsqueeze(1), fresh, rest)
            size_rest = rest.norm(dim=1)
        current = rest / size_rest.unsqueeze(1)
    values, weights = torch.linalg.eigh(_tridiagonal(diagonal, coupling, done))
    order = values.abs().argsort(dim=1, descending=True)[:, :k]
    values = values.gather(1, order)
    weights = weights.gather(2, order.unsqueeze(1).expand(-1, done, -1))
    vectors = torch.einsum("bmk,bmd->bkd", weights, basis[:, fixed : fixed + done])
    residuals = torch.stack(
        [
            (operator(vectors[:, i]) - values[:, i : i + 1] * vectors[:, i]).norm(dim=1)
            for i in range(k)
        ],
        dim=1,
    )
    return Eigenpairs(values, vectors, residuals, done + k)


def _tridiagonal(diagonal: Tensor, coupling: Tensor, size: int) -> Tensor:
    off = coupling[:, : size - 1]
    matrix = torch.diag_embed(diagonal[:, :size])
    return matrix + torch.diag_embed(off, offset=1) + torch.diag_embed(off, offset=-1)


def _settled(
    diagonal: Tensor, coupling: Tensor, size: int, k: int, tolerance: float, broken: Tensor
) -> bool:
    """Whether the estimated residuals of the k largest are small; never just after a restart."""
    if bool(broken.any()):
        return False
    values, weights = torch.linalg.eigh(_tridiagonal(diagonal, coupling, size))
    order = values.abs().argsort(dim=1, descending=True)[:, :k]
    last = weights[:, -1].gather(1, order).abs()
    estimate = coupling[:, size - 1 : size] * last
    limit = tolerance * values.abs().amax(dim=1, keepdim=True)
    return bool((estimate <= limit).all())
