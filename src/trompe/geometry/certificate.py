"""True upper bounds on how far an explanation can be moved within a ball."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trompe.errors import CertificateError, UsageError
from trompe.geometry.backward import backward, rates
from trompe.geometry.forward import Ball, dense_is_small, forward
from trompe.geometry.gates import Range
from trompe.geometry.heat import Gradients
from trompe.geometry.layers import layer_bounds
from trompe.geometry.maps import WIDEN
from trompe.geometry.network import Network, trace

METHODS = ("frobenius", "global", "interval", "jacobian", "best", "smoothgrad")
"""The choices of ``certify``."""
_STEPS = 8


@dataclass(frozen=True)
class Certificate:
    """Upper bounds, over all x' in the ball around x, for B images.

    With ``g_k`` the explained score and ``h`` the heat map of its gradient (``trompe.heatmap``):

    Args:
        gradient_l2: ``sup ||grad g_k(x') - grad g_k(x)||_2``, in score per unit of x, [B].
        normal_l2: the same of ``grad g_k / ||grad g_k||``, at most 2, [B].
        heatmap_l1: ``sup ||h(x') - h(x)||_1``, at most 2, [B].
        curvature: at least the spectral norm of the Hessian of g_k in the ball, infinite where a
            kink is within reach, [B].
        target: the class explained, [B].
        radius: of the ball.
        norm: of the ball, ``l2`` or ``linf``.
        method: what was asked for.
        winners: per image, which method gave each quantity.
        confidence: 1 for a proof; less where samples enter (``smoothgrad``).
        kept: per image, the guaranteed number of the top k pixels, a function of k.
        pixels: of a heat map.
    """

    gradient_l2: Tensor
    normal_l2: Tensor
    heatmap_l1: Tensor
    curvature: Tensor
    target: Tensor
    radius: float
    norm: str
    method: str
    winners: tuple[dict[str, str], ...]
    kept: tuple[Callable[[int], int], ...] = field(repr=False)
    pixels: int
    confidence: float = 1.0

    def topk_overlap(self, k: int) -> Tensor:
        """At least the share of the k largest pixels that stay among the k largest, 0..1, [B].

        Raises:
            UsageError: if k is not within 1..the number of pixels.
        """
        if not 1 <= k <= self.pixels:
            raise UsageError(f"k must be within 1..{self.pixels}, not {k}")
        return torch.tensor([kept(k) / k for kept in self.kept], dtype=torch.float64)


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
    with the given weights; the rounding of a float32 evaluation is not covered, and ``nn.Softplus``
    counts as exact beyond its threshold (it is off by ``exp(-20)``).

    Methods, each valid for itself; ``best`` takes the smallest of all, quantity by quantity:

    - ``frobenius``: the paper's ``b C`` (Theorem 1): Frobenius norms of the layers, s'' <= b / 4;
    - ``global``: the same with spectral norms from above (exact singular values; convolutions on a
      large enough torus), Singla and Feizi 2020;
    - ``interval``: boxes and l2 balls of every value over the ball, hence of slopes, second
      derivatives and gradients, backward through the layers (ReLU: the slope of a unit that may
      change its sign is [0, 1]; max pooling: any combination of possible winners);
    - ``jacobian``: besides, exact Jacobians and the exact Hessian at x with bounds of how far each
      entry moves; inputs and layers must be small;
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
        from trompe.geometry.smoothgrad import certify_smoothgrad

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
                _certified(
                    model,
                    x[index : index + 1],
                    Ball(float(radius), norm),
                    None if target is None else int(target[index]),
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


@dataclass
class _Found:
    """The gradients that each method allows for one image."""

    target: int
    sets: dict[str, list[Gradients]] = field(default_factory=dict)
    curvature: float = math.inf
    bounds: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, name: str, gradients: Gradients, turned: Gradients | None = None) -> None:
        """File the gradients that a method allows, and if known a set that has their directions."""
        sets = [gradients] if turned is None else [gradients, turned]
        self.sets[name] = sets
        self.bounds[name] = {
            "gradient_l2": gradients.l2,
            "normal_l2": min(one.normal for one in sets),
            "heatmap_l1": min(one.heatmap for one in sets),
        }

    def winner(self, quantity: str) -> str:
        return min(self.bounds, key=lambda name: self.bounds[name][quantity])

    def best(self, quantity: str) -> float:
        return self.bounds[self.winner(quantity)][quantity]

    def kept(self, k: int) -> int:
        return max(one.kept(k) for sets in self.sets.values() for one in sets)


def _certified(model: nn.Module, x: Tensor, ball: Ball, target: int | None, method: str) -> _Found:
    network = trace(model, x)
    values = network.values(x.detach().double().cpu())
    logits = values[-1]
    if logits.dim() != 2:
        raise CertificateError(f"the model returns {tuple(logits.shape)}: a classifier [B, K]")
    if target is None:
        target = int(logits.argmax())
    if not 0 <= target < logits.shape[1]:
        raise UsageError(f"target {target} does not fit: the model has {logits.shape[1]} classes")
    found = _Found(target)
    small = dense_is_small(network, values)
    if method == "jacobian" and not small:
        raise CertificateError(
            "method 'jacobian' holds the Jacobian of every layer, too much here: use 'interval'"
        )
    if method in ("frobenius", "global", "best"):
        _global(found, network, values, ball, method)
    if method == "jacobian" or (method == "best" and small):
        _local(found, network, values, ball, dense=True)
    if method in ("interval", "best"):
        _local(found, network, values, ball, dense=False)
    return found


def _global(found: _Found, network: Network, values: list[Tensor], ball: Ball, method: str) -> None:
    """Bounds from layer norms; ``best`` needs no Frobenius norms, they are never smaller."""
    frobenius = method == "frobenius"
    bounds = layer_bounds(
        network,
        found.target,
        values[-1].shape,
        (lambda part: part.frobenius) if frobenius else (lambda part: part.norm),
    )
    everywhere = forward(network, values, ball, everywhere=True, dense=False)
    exact = backward(network, everywhere, found.target)
    centre = exact.gradient.exact[0]
    curvature = bounds.curvature
    if not frobenius:
        curvature = min(curvature, exact.hessian.norm)
    reach = WIDEN * ball.l2(centre.numel())
    change = curvature * reach if reach else 0.0
    change = min(change, bounds.lipschitz + WIDEN * float(centre.norm()))
    nothing = torch.full_like(centre, math.inf)
    found.add("frobenius" if frobenius else "global", _set(centre, nothing, change))
    found.curvature = min(found.curvature, curvature)


def _set(centre: Tensor, entries: Tensor, ball: float, box: Range | None = None) -> Gradients:
    """The gradients within a ball, at most ``entries`` away in each entry, and in a box."""
    # Rounding of the gradient at x itself, far below any bound of use.
    floor = 1e-12 * float(centre.abs().max())
    most = entries.clamp(max=ball) + floor
    low, high = -most, most
    if box is not None:
        low, high = torch.maximum(low, box.low), torch.minimum(high, box.high)
    return Gradients(centre, Range(low, high), ball * WIDEN + floor * math.sqrt(centre.numel()))


def _local(
    found: _Found, network: Network, values: list[Tensor], ball: Ball, *, dense: bool
) -> None:
    """Bounds from what is within reach: the full radius at once, and the curvature summed up.

    ``grad g(x') - grad g(x)`` is the integral of ``H (x' - x)`` along the straight line; its rate
    is bounded by that on growing balls, each of which covers one more part of the line.
    """
    size = values[0].numel()
    steps = _STEPS if network.smooth else 1
    change, entries = 0.0, torch.zeros_like(values[0][0])
    across, across_entries = 0.0, torch.zeros_like(entries)
    for step in range(1, steps + 1):
        part = Ball(ball.radius * step / steps, ball.norm)
        reached = forward(network, values, part, everywhere=False, dense=dense)
        result = backward(network, reached, found.target)
        if network.smooth:
            rate, by_entry = rates(result.hessian, ball.norm, size)
            change += WIDEN * rate * ball.radius / steps
            if by_entry is None:
                by_entry = torch.full((size,), rate, dtype=torch.float64)
            entries = entries + WIDEN * by_entry.view_as(entries) * ball.radius / steps
            if result.hessian.exact is not None:
                normal = torch.nn.functional.normalize(result.gradient.exact.flatten(), dim=0)
                rate, by_entry = rates(result.hessian, ball.norm, size, normal)
                across += WIDEN * rate * ball.radius / steps
                if by_entry is not None:
                    by_entry = by_entry.view_as(entries)
                    across_entries = across_entries + WIDEN * by_entry * ball.radius / steps
    gradient = result.gradient
    centre = gradient.exact[0]
    if not network.smooth:
        change, entries = math.inf, torch.full_like(centre, math.inf)
        curvature = result.hessian.norm
    else:
        curvature = result.hessian.norm
        if result.hessian.exact is not None:
            curvature = min(curvature, rates(result.hessian, "l2", size)[0])
    box = Range(gradient.change.low[0], gradient.change.high[0])
    whole = _set(centre, entries, min(change, gradient.ball), box)
    # Normals, heat maps and ranks do not see the part of the change along the gradient, a + 1
    # times as long at least: what remains, divided by that length, is the change that counts.
    along = whole.l2 / max(float(centre.norm()), 1e-300)
    turned = None
    if network.smooth and dense and along < 0.999:
        stretch = WIDEN / (1 - along)
        turned = _set(centre, across_entries * stretch, across * stretch)
    found.add("jacobian" if dense else "interval", whole, turned)
    found.curvature = min(found.curvature, curvature)
