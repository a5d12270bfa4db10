"""The strongest attack found on an explanation: the lower end of the sandwich."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.certificates.ball import Ball, ball
from trompe.certificates.bounds import QUANTITIES
from trompe.engine import frozen, smooth
from trompe.engine.original_class import predicted
from trompe.engine.smoothing import Smoothed
from trompe.errors import UsageError
from trompe.explain import explainer
from trompe.types import relative


def change(quantity: str, now: Tensor, before: Tensor) -> Tensor:
    """How far gradients [N, ...] are from others, [N]; see ``Certificate``.

    Of unit vectors, and of heat maps in l1, at most 2: rounding beyond is cut off.
    """
    if quantity == "gradient_l2":
        return (now - before).flatten(1).norm(dim=1)
    if quantity == "normal_l2":
        one, other = (t / t.norm(dim=1, keepdim=True) for t in (now.flatten(1), before.flatten(1)))
        return (one - other).norm(dim=1).clamp(max=2)
    if quantity == "heatmap_l1":
        return (relative(now) - relative(before)).abs().flatten(1).sum(dim=1).clamp(max=2)
    raise UsageError(f"unknown quantity '{quantity}': choose from {', '.join(QUANTITIES)}")


@dataclass(frozen=True)
class Strongest:
    """The largest change found, [B], where, [B, ...], and by which search."""

    change: Tensor
    x_adv: Tensor
    search: tuple[str, ...]


def strongest_change(
    model: nn.Module,
    x: Tensor,
    *,
    radius: float,
    norm: str = "l2",
    target: Tensor | None = None,
    quantity: str = "gradient_l2",
    restarts: int = 8,
    steps: int = 40,
    samples: int = 64,
    starts: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Strongest:
    """Search the ball for the point whose gradient explanation differs most from that of x.

    Random points (on the sphere; the vertices of the box; along the gradient and the gradient's
    own derivative), then ascent on the change itself from the best of them and from random starts,
    with falling step lengths. A ReLU network is climbed on its softplus surrogate and judged as it
    is. Every value reported was attained: it is a lower bound of the worst change.

    Args:
        model: as for ``certify``.
        x: [B, ...].
        radius: of the ball.
        norm: ``l2`` or ``linf``.
        target: class of each image; by default the one that the model itself predicts.
        quantity: see ``QUANTITIES``.
        restarts: starts of the ascent per image.
        steps: of each ascent.
        samples: random points per image.
        starts: further offsets to try and to start from, [B, S, ...].
        generator: of the random points; seed 0 by default.
    """
    generator = generator or torch.Generator().manual_seed(0)
    within = ball(radius, norm)
    judge = frozen(model)
    if target is None:
        target = predicted(judge, x)
    gradient = explainer("gradient")
    found = []
    for index in range(len(x)):
        own = None if starts is None else starts[index]
        one, classes = x[index : index + 1].detach(), target[index : index + 1]

        known: dict[int, Tensor] = {}

        def measure(
            model: nn.Module,
            offsets: Tensor,
            one: Tensor = one,
            k: Tensor = classes,
            known: dict[int, Tensor] = known,
        ) -> Tensor:
            if id(model) not in known:
                known[id(model)] = gradient(model, one, k)
            now = gradient(model, one + offsets, k.expand(len(offsets)))
            return change(quantity, now, known[id(model)])

        offsets = _candidates(judge, one, classes, within, samples, generator)
        if own is not None:
            offsets = torch.cat([offsets, within.project(own)])
        found.append(_search(judge, measure, one, offsets, within, restarts, steps))
    return Strongest(
        torch.stack([f[0] for f in found]),
        torch.stack([f[1] for f in found]),
        tuple(f[2] for f in found),
    )


def _candidates(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    within: Ball,
    samples: int,
    generator: torch.Generator,
) -> Tensor:
    """Offsets on the border of the ball, [N, ...]."""
    drawn = torch.randn((samples, *x.shape[1:]), generator=generator, dtype=torch.float64)
    drawn = drawn.to(x.device, x.dtype)
    score = explainer("gradient")(model, x, target)
    directions = torch.cat([drawn, score, -score])
    return within.project(within.norm.ascent(directions) * within.radius)


def _search(
    judge: nn.Module,
    measure: Callable[[nn.Module, Tensor], Tensor],
    x: Tensor,
    offsets: Tensor,
    within: Ball,
    restarts: int,
    steps: int,
) -> tuple[Tensor, Tensor, str]:
    best, where, how = torch.zeros((), dtype=x.dtype), torch.zeros_like(x[0]), "none"

    def note(points: Tensor, values: Tensor, name: str) -> Tensor:
        nonlocal best, where, how
        values = torch.nan_to_num(values.detach(), nan=0.0)
        top = int(values.argmax())
        if values[top] > best:
            best, where, how = values[top], points[top].detach().clone(), name
        return values

    def judged(points: Tensor, name: str) -> Tensor:
        with torch.no_grad():
            return note(points, measure(judge, points.detach()), name)

    values = judged(offsets, "random")
    order = values.argsort(descending=True)
    half = max(1, restarts // 2)
    spread = torch.linspace(0, len(order) - 1, restarts - half + 2).long()[1:]
    chosen = torch.cat([order[:half], order[spread]])[:restarts]
    for surrogate, name in _surrogates(judge):
        point, itself = offsets[chosen].clone(), surrogate is judge
        for step in range(steps):
            point = point.detach().requires_grad_(True)
            with torch.enable_grad():
                values = measure(surrogate, point)
                if not values.requires_grad:
                    break
                (slope,) = torch.autograd.grad(values.sum(), point, materialize_grads=True)
            if itself:
                note(point, values, "ascent (itself)")
            if not bool(slope.any()):
                break  # piecewise constant: nothing to climb
            length = 2 * within.radius * 2.0 ** (-6 * step / max(1, steps - 1))
            point = within.project(point + length * within.norm.ascent(slope)).detach()
            if not itself and step % 2:
                judged(point, f"ascent ({name})")
        judged(point, f"ascent ({name})")
    return best, x[0] + where, how


def _surrogates(judge: nn.Module) -> list[tuple[nn.Module, str]]:
    """What to climb: the model if it is smooth already, else softplus ones."""
    if isinstance(judge, Smoothed):
        return [(judge, "itself")]
    return [(judge, "itself")] + [
        (smooth(judge, beta=beta, pooling=True), f"softplus {beta:g}") for beta in (10.0, 100.0)
    ]
