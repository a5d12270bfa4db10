"""True upper bounds on how far an explanation can be moved within a ball."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from trompe.certificates.bounds import Prepared, certified
from trompe.certificates.certificate import Certificate
from trompe.certificates.forward import Ball
from trompe.errors import UsageError

METHODS = ("frobenius", "global", "interval", "jacobian", "telescope", "best", "smoothgrad")
"""The choices of ``certify``."""


def certify(
    model: nn.Module,
    x: Tensor,
    *,
    radius: float,
    norm: str = "l2",
    target: Tensor | None = None,
    method: str = "best",
    **options: object,
) -> Certificate:
    """Bound the change of the gradient explanation over the ball of ``radius`` around x.

    Every bound is one: of all gradients (at kinks: of all Clarke gradients) at all points of the
    ball, whether images or not. Computed in float64 with outward rounding, for the exact network
    with the given weights, where ``nn.Softplus`` counts as exact beyond its threshold (it is off by
    ``exp(-20)``). The proof is of exact arithmetic: for x in float32 an allowance of 64 units in
    the last place is added to every gradient entry, which covers the rounding that evaluations
    show, but is no proof of it.

    Methods, each valid for itself; ``best`` takes the smallest of all but the last, quantity by
    quantity:

    - ``frobenius``: the paper's ``b C`` (Theorem 1): Frobenius norms of the layers, s'' <= b / 4;
    - ``global``: the same with spectral norms from above (exact singular values; convolutions on a
      large enough torus), Singla and Feizi 2020;
    - ``interval``: boxes and l2 balls of every value over the ball, hence of slopes, second
      derivatives and gradients, backward through the layers (ReLU: the slope of a unit that may
      change its sign is [0, 1]; max pooling: any combination of possible winners);
    - ``jacobian``: besides, exact Jacobians and the exact Hessian at x with bounds of how far each
      entry moves; inputs and layers must be small;
    - ``telescope``: exact Jacobians at x between all layers, by norms of their rows, the exact
      Hessian at x, and how far each unit's derivatives move: far below products of layer norms,
      on convolutional networks too, as long as the radius is small; takes minutes there, so
      ``best`` has it for small networks only;
    - ``smoothgrad``: for any network, its SmoothGrad map instead (``certify_smoothgrad``).

    Args:
        model: any module [1, ...] -> [1, K] of convolutions, linear layers, ReLU or softplus
            (``trompe.smooth(model, beta=..., pooling=True)``), pooling, batch norm and sums.
        x: [B, C, H, W] or [B, D].
        radius: of the ball, in units of x.
        norm: ``l2`` or ``linf``.
        target: class of each image, [B]; by default the predicted one.
        method: see above.
        options: of ``smoothgrad``.

    Returns:
        See ``Certificate``.

    Raises:
        UsageError: if a setting is out of range.
        CertificateError: if the model has an operation without bounds; it is named.

    Example:
        >>> import torch, trompe
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
        >>> smooth = trompe.smooth(net, beta=1.0)
        >>> certificate = trompe.certify(smooth, torch.ones(1, 4), radius=0.1)
        >>> bool(certificate.heatmap_l1 < 2)
        True
    """
    if not (radius >= 0 and math.isfinite(radius)):
        raise UsageError(f"radius must be finite and not negative, not {radius}")
    if norm not in ("l2", "linf"):
        raise UsageError(f"unknown norm '{norm}': choose l2 or linf")
    if method not in METHODS:
        raise UsageError(f"unknown method '{method}': choose from {', '.join(METHODS)}")
    if x.dim() < 2 or not x.is_floating_point() or not bool(torch.isfinite(x).all()):
        raise UsageError("x must be finite, floating point, [B, C, H, W] or [B, D]")
    if method == "smoothgrad":
        from trompe.certificates.randomised import certify_smoothgrad

        return certify_smoothgrad(
            model,
            x,
            radius=radius,
            norm=norm,
            target=target,
            **options,  # type: ignore[arg-type]
        )
    if options:
        raise UsageError(f"unknown option '{next(iter(options))}' of method '{method}'")
    found = []
    for index in range(len(x)):
        with torch.no_grad():
            found.append(
                certified(
                    Prepared(
                        model,
                        x[index : index + 1],
                        None if target is None else int(target[index]),
                    ),
                    Ball(float(radius), norm),
                    method,
                )
            )
    double = torch.float64
    return Certificate(
        gradient_l2=torch.tensor([f.best("gradient_l2") for f in found], dtype=double),
        normal_l2=torch.tensor([f.best("normal_l2") for f in found], dtype=double),
        heatmap_l1=torch.tensor([f.best("heatmap_l1") for f in found], dtype=double),
        curvature=torch.tensor([f.curvature for f in found], dtype=double),
        target=torch.tensor([f.target for f in found]),
        radius=float(radius),
        norm=norm,
        method=method,
        winners=tuple(
            {name: f.winner(name) for name in ("gradient_l2", "normal_l2", "heatmap_l1")}
            for f in found
        ),
        kept=tuple(f.kept for f in found),
        pixels=math.prod(x.shape[-2:]) if x.dim() == 4 else x[0].numel(),
    )
