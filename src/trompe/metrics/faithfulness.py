"""Does a heat map show what the network looks at? Insertion and deletion curves (RISE, 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trompe.engine import adapted
from trompe.errors import UsageError
from trompe.explain.base import check_score, scored
from trompe.in_brief import InBrief

_SIDE, _SIGMA = 11, 5.0  # the blur of the reference implementation of RISE


@dataclass(frozen=True, repr=False)
class Curve(InBrief):
    """The score of each image as more and more of its pixels are exchanged.

    Args:
        share: of the pixels exchanged, from 0 to 1, [S + 1].
        scores: [B, S + 1].
    """

    share: Tensor
    scores: Tensor

    @property
    def area(self) -> Tensor:
        """The area under each curve by the trapezoidal rule, in units of the score, [B]."""
        return torch.trapezoid(self.scores, self.share.to(self.scores), dim=1)


def deletion(
    model: Any,
    x: Any,
    heat: Tensor,
    target: Any,
    *,
    steps: int = 32,
    baseline: float | Tensor | Literal["blur"] = 0.0,
    score: Literal["softmax", "logit"] = "softmax",
) -> Curve:
    """The score as pixels are taken away, the most relevant first; lower is more faithful.

    Args:
        model: any module [B, C, H, W] -> [B, K], or a ``LoadedModel``.
        x: images [B, C, H, W], normalised.
        heat: heat maps [B, H, W]; only the order of their entries matters. Among equal entries the
            first in reading order goes first.
        target: the explained class of each image, [B].
        steps: S, in how many equal parts the pixels go, at least 1.
        baseline: what takes a pixel's place, in normalised units: a number, a tensor that
            broadcasts to x, or ``blur``, the blurred image.
        score: ``softmax`` (the class's probability) or ``logit``.

    Returns:
        The curve, on the device and in the dtype of x; area within 0..1 for probabilities. What a
        faithful map is must be judged beside the curve of a random order.

    Raises:
        UsageError: if the shapes do not go together, or a setting is unknown.
    """
    given = adapted(model, x, differentiable=False)
    origin = _replacement(given.x, baseline)
    return _curve(given.model, given.x, origin, heat, given.target(target), steps, score)


def insertion(
    model: Any,
    x: Any,
    heat: Tensor,
    target: Any,
    *,
    steps: int = 32,
    baseline: float | Tensor | Literal["blur"] = "blur",
    score: Literal["softmax", "logit"] = "softmax",
) -> Curve:
    """The score as pixels are put back, the most relevant first; higher is more faithful.

    The arguments, the result and the errors are those of ``deletion``; the curve begins at the
    baseline, by default the blurred image, and ends at the image.
    """
    given = adapted(model, x, differentiable=False)
    origin = _replacement(given.x, baseline)
    return _curve(given.model, origin, given.x, heat, given.target(target), steps, score)


@torch.no_grad()
def _curve(
    model: nn.Module,
    before: Tensor,
    after: Tensor,
    heat: Tensor,
    target: Tensor,
    steps: int,
    score: str,
) -> Curve:
    """Exchange the pixels of ``before`` by those of ``after`` in the order of the map."""
    check_score(score)
    if before.dim() != 4 or heat.shape != (before.shape[0], *before.shape[2:]):
        raise UsageError(
            f"the maps have the shape {tuple(heat.shape)}, the images {tuple(before.shape)}: give "
            "[B, H, W] and [B, C, H, W]"
        )
    if steps < 1:
        raise UsageError(f"steps must be at least 1, not {steps}")
    flat = heat.detach().flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(flat.shape[1], device=flat.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places).view(heat.shape).unsqueeze(1)
    pixels = flat.shape[1]
    counts = [round(step * pixels / steps) for step in range(steps + 1)]
    scores = [
        scored(model(torch.where(rank < count, after, before)), target, score) for count in counts
    ]
    share = torch.tensor([count / pixels for count in counts], dtype=torch.float64)
    return Curve(share.to(before.device, before.dtype), torch.stack(scores, dim=1))


def _replacement(x: Tensor, baseline: float | Tensor | str) -> Tensor:
    """What the pixels are exchanged for, of the shape of x."""
    if not isinstance(baseline, str):
        return torch.as_tensor(baseline, dtype=x.dtype, device=x.device).expand_as(x)
    if baseline != "blur":
        raise UsageError(f"unknown baseline '{baseline}': give a number, a tensor, or 'blur'")
    from torchvision.transforms.functional import gaussian_blur

    # Reflected at the edge, the kernel may reach no further than one pixel less than the image.
    side = min(_SIDE, 2 * min(x.shape[-2:]) - 1)
    return gaussian_blur(x, [side, side], [_SIGMA, _SIGMA])
