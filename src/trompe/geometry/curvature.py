"""The principal curvatures of the surface of constant score (Dombrowski et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trompe.engine import adapted, smooth
from trompe.errors import ExplanationError, UsageError
from trompe.explain import as_explainer
from trompe.explain.base import pick
from trompe.geometry.lanczos import Eigenpairs, largest
from trompe.geometry.own_functions import check_own_functions
from trompe.in_brief import InBrief
from trompe.types import InputSpace

DENSE = 48
"""Up to so many dimensions the Hessian is formed and its eigenvalues are all computed."""


@dataclass(frozen=True, repr=False)
class Curvatures(InBrief):
    """Principal curvatures of B images.

    Args:
        values: eigenvalues of ``-P H P / ||grad g||`` on the tangent space, of falling magnitude,
            in inverse units of x, [B, k]. Negative where the surface bends away from the gradient.
        directions: their unit eigenvectors, tangent to the surface, [B, k, ...].
        residuals: ``||A v - value v||``, computed, [B, k]: an eigenvalue lies within this
            distance of each value.
        gradient_norm: ``||grad g||``, [B].
        products: Hessian-vector products spent per image.
        converged: whether every residual is below the tolerance, bool [B].
    """

    values: Tensor
    directions: Tensor
    residuals: Tensor
    gradient_norm: Tensor
    products: int
    converged: Tensor


def hessian_products(
    model: nn.Module, x: Tensor, target: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The gradient of the class score [B, d], and the products of its Hessian with [B, d]."""
    with torch.enable_grad():
        start = x.detach().clone().requires_grad_(True)
        score = pick(model(start), target).sum()
        (gradient,) = torch.autograd.grad(score, start, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        if not gradient.requires_grad:  # a piecewise linear score: no second derivative
            return torch.zeros_like(vector)
        with torch.enable_grad():
            (out,) = torch.autograd.grad(
                gradient, start, vector.view_as(start), retain_graph=True, materialize_grads=True
            )
        return out.flatten(1).detach()

    return gradient.detach().flatten(1), product


def principal_curvatures(
    model: Any,
    x: Any,
    target: Any = None,
    *,
    k: int = 5,
    beta: float | None = None,
    pooling: bool | float = True,
    tolerance: float = 1e-6,
    steps: int = 200,
    generator: torch.Generator | None = None,
) -> Curvatures:
    """The k principal curvatures of largest magnitude of ``{p : g(p)_k = g(x)_k}`` at x.

    Eigenvalues of ``-P H P / ||grad g||`` on the tangent space, ``P = I - n n^T``, by Lanczos on
    Hessian-vector products, all images at once; small inputs by a dense eigendecomposition. The
    largest in magnitude is the ``lambda_max`` of Theorem 1 (Dombrowski et al. 2019).

    Args:
        model: any module [B, ...] -> [B, K], in float64 for tight residuals.
        x: the images, [B, ...].
        target: the class of each, [B]; by default the one that the model itself, not
            its smoothed version, predicts.
        k: how many, at most d - 1.
        beta: of the softplus network whose surface is meant; ``None``: the model as it is (of a
            ReLU network all curvatures are 0 wherever they exist).
        pooling: as for ``trompe.smooth``; used with ``beta`` only.
        tolerance: a residual counts as small below this share of the image's largest curvature.
        steps: at most so many Lanczos steps.
        generator: of the starting vectors; seed 0 by default.

    Returns:
        See ``Curvatures``.

    Raises:
        UsageError: if k or a setting is out of range.
        ExplanationError: if the gradient of an image is zero or not finite: there is no surface.

    Example:
        >>> import torch
        >>> from trompe.geometry import principal_curvatures
        >>> class Sphere(torch.nn.Module):
        ...     def forward(self, x):
        ...         return x.square().sum(dim=1, keepdim=True)
        >>> found = principal_curvatures(Sphere(), torch.tensor([[2.0, 0.0, 0.0]]), k=2)
        >>> found.values.round(decimals=4).tolist()
        [[-0.5, -0.5]]
    """
    given = adapted(model, x, evaluation=True)
    judge, x, target = given.model, given.x, given.target(target)
    size = x[0].numel()
    if not 1 <= k <= size - 1:
        raise UsageError(f"k must be within 1..{size - 1}, not {k}")
    if steps < k or not tolerance > 0:
        raise UsageError("steps must be at least k, and tolerance positive")
    check_own_functions(as_explainer("gradient", InputSpace()), judge, x, target)
    used = judge if beta is None else smooth(judge, beta=beta, pooling=pooling)
    gradient, product = hessian_products(used, x, target)
    norm = gradient.norm(dim=1)
    if not bool((torch.isfinite(norm) & (norm > 0)).all()):
        raise ExplanationError(
            "the gradient of the score is zero or not finite, so there is no surface of constant "
            "score: try another class or a smaller beta"
        )
    normal = gradient / norm.unsqueeze(1)

    def shape_operator(vector: Tensor) -> Tensor:
        tangent = vector - normal * (normal * vector).sum(dim=1, keepdim=True)
        image = -product(tangent) / norm.unsqueeze(1)
        return image - normal * (normal * image).sum(dim=1, keepdim=True)

    if size <= DENSE:
        pairs = _dense(shape_operator, normal, k)
    else:
        generator = generator or torch.Generator().manual_seed(0)
        pairs = largest(
            shape_operator,
            normal.unsqueeze(1),
            k,
            tolerance=tolerance / 2,
            steps=steps,
            generator=generator,
        )
    # Rounding alone leaves residuals of some eps times the size of the matrix.
    floor = 100 * torch.finfo(x.dtype).eps * (1 + pairs.values.abs().amax(dim=1))
    limit = torch.maximum(tolerance * pairs.values.abs().amax(dim=1), floor)
    return Curvatures(
        values=pairs.values,
        directions=pairs.vectors.view(x.shape[0], k, *x.shape[1:]),
        residuals=pairs.residuals,
        gradient_norm=norm,
        products=pairs.products,
        converged=(pairs.residuals <= limit.unsqueeze(1)).all(dim=1),
    )


def _dense(operator: Callable[[Tensor], Tensor], normal: Tensor, k: int) -> Eigenpairs:
    """All eigenvalues on the tangent space, from d products."""
    batch, size = normal.shape
    # A basis whose first vector is the normal: the rest spans the tangent space.
    full = torch.cat([normal.unsqueeze(2), torch.eye(size).to(normal).expand(batch, -1, -1)], 2)
    tangent = torch.linalg.qr(full)[0][:, :, 1:]
    columns = [operator(tangent[:, :, i]) for i in range(size - 1)]
    image = torch.stack(columns, dim=2)
    matrix = tangent.mT @ image
    values, weights = torch.linalg.eigh((matrix + matrix.mT) / 2)
    order = values.abs().argsort(dim=1, descending=True)[:, :k]
    values = values.gather(1, order)
    weights = weights.gather(2, order.unsqueeze(1).expand(-1, size - 1, -1))
    vectors = (tangent @ weights).mT
    residuals = ((image @ weights).mT - values.unsqueeze(2) * vectors).norm(dim=2)
    return Eigenpairs(values, vectors, residuals, size - 1)
