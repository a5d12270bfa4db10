"""Whether an image was manipulated: how its map answers to what leaves honest maps alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trompe.attacks.channels import Channel, Jpeg, Noise, Rounding
from trompe.engine import adapted, frozen, smooth
from trompe.errors import UsageError
from trompe.explain import as_explainer
from trompe.in_brief import InBrief
from trompe.metrics import pcc
from trompe.types import Explainer, InputSpace, relative

Detector = Callable[[nn.Module, Tensor, Tensor, Explainer, InputSpace], Tensor]
"""``detector(model, x, target, explainer, space) -> [B]``: the larger, the more suspect."""


@dataclass(frozen=True)
class Through:
    """``1 - PCC(h(x), h(c(x)))`` for a channel c: a manipulated map is undone by it.

    Args:
        channel: what the image passes; the real one, such as Pillow's codec.
        seed: of the channel's noise, if it draws any.
    """

    channel: Channel
    seed: int = 0

    def __call__(
        self, model: nn.Module, x: Tensor, target: Tensor, explainer: Explainer, space: InputSpace
    ) -> Tensor:
        """See ``Detector``."""
        draw = torch.Generator().manual_seed(self.seed)
        changed = self.channel.real(x, space, draw)
        return 1 - pcc(_map(model, x, target, explainer), _map(model, changed, target, explainer))


@dataclass(frozen=True)
class Smoothing:
    """``1 - PCC(h(x), h_beta(x))``: the beta-smoothed map does not follow a manipulation.

    Args:
        beta: of the smoothing, positive (Dombrowski et al. 2019 take 0.8).
    """

    beta: float = 0.8

    def __call__(
        self, model: nn.Module, x: Tensor, target: Tensor, explainer: Explainer, space: InputSpace
    ) -> Tensor:
        """See ``Detector``."""
        smoothed = smooth(model, beta=self.beta, pooling=True)
        return 1 - pcc(_map(model, x, target, explainer), _map(smoothed, x, target, explainer))


@dataclass(frozen=True)
class Disagreement:
    """``1 - PCC(h(x), h'(x))`` of another method: an attack on one method leaves others alone.

    Args:
        other: the other method, a name or an object.
    """

    other: str | Explainer = "lrp"

    def __call__(
        self, model: nn.Module, x: Tensor, target: Tensor, explainer: Explainer, space: InputSpace
    ) -> Tensor:
        """See ``Detector``."""
        other = as_explainer(self.other, space)
        return 1 - pcc(_map(model, x, target, explainer), _map(model, x, target, other))


DETECTORS: Mapping[str, Detector] = {
    "jpeg 75": Through(Jpeg(75)),
    "jpeg 90": Through(Jpeg(90)),
    "rounding": Through(Rounding()),
    "noise 2/255": Through(Noise(2 / 255)),
    "beta 0.8": Smoothing(0.8),
    "agreement with lrp": Disagreement("lrp"),
    "agreement with smoothgrad": Disagreement("smoothgrad"),
}
"""What ``detect`` asks by default."""


@dataclass(frozen=True, repr=False)
class Detection(InBrief):
    """How suspect images are.

    Args:
        scores: by detector, [B]: 0, the map is as the detector expects it, to 2; NaN where a map
            is all zero. What is usual depends on the network and the method: compare with images
            that are known to be honest.
        target: the class explained, [B].
    """

    scores: Mapping[str, Tensor]
    target: Tensor

    def auroc(self, honest: Detection) -> dict[str, float]:
        """How well each detector tells these images from honest ones, 0.5 (not at all) to 1.

        The probability that a suspect image scores higher than an honest one (the area under the
        receiver operating characteristic); below 0.5 it scores lower.

        Args:
            honest: of images that are known not to be manipulated.

        Raises:
            UsageError: if the detectors differ.
        """
        if set(self.scores) != set(honest.scores):
            raise UsageError(
                f"the detectors differ: {', '.join(sorted(set(self.scores) ^ set(honest.scores)))}"
            )
        return {name: auroc(scores, honest.scores[name]) for name, scores in self.scores.items()}


def auroc(positive: Tensor, negative: Tensor) -> float:
    """The share of pairs in which the positive's score is larger; ties count half.

    Args:
        positive: scores [P]; NaN are left out.
        negative: scores [N].

    Returns:
        0 to 1; NaN if one side has no score.
    """
    above, below = positive[~positive.isnan()].double(), negative[~negative.isnan()].double()
    if not len(above) or not len(below):
        return float("nan")
    difference = above.unsqueeze(1) - below.unsqueeze(0)
    return float(((difference > 0).double() + 0.5 * (difference == 0).double()).mean())


def detect(
    model: Any,
    x: Any,
    explainer: str | Explainer = "gradient",
    *,
    target: Any = None,
    input_space: InputSpace | None = None,
    detectors: Mapping[str, Detector] | None = None,
    batch_size: int = 16,
) -> Detection:
    """Ask of images whether their explanation was manipulated.

    A manipulated map lives in tiny details of the image; what blurs them undoes it, while an honest
    map mostly stays. None of this is a proof: an attacker who knows a detector attacks through it
    (``trompe.manipulate(through=...)``, ``objective="several"``), and
    ``benchmarks/detectors.py`` measures how much of it is left then.

    Args:
        model: any module [B, C, H, W] -> [B, K], or a ``LoadedModel``. Not changed.
        x: images, normalised, [B, C, H, W].
        explainer: the method in use, a name or an object.
        target: the class explained, [B]; by default the predicted one.
        input_space: the model's normalisation; a ``LoadedModel`` brings its own, ImageNet's if not
            given.
        detectors: by name, in place of ``DETECTORS``.
        batch_size: how many images are asked about at once.

    Raises:
        UsageError: if batch_size is not positive, an input is of another kind, or there is no such
            method.
        ModelError: if the model is no function of one image.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(),
        ...                           torch.nn.Flatten(), torch.nn.Linear(144, 3)).eval()
        >>> x = torch.rand(2, 3, 8, 8)
        >>> sorted(detect(net, x, detectors={"rounding": Through(Rounding())}).scores)
        ['rounding']
    """
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")
    given = adapted(model, x, evaluation=True, differentiable=False)
    space, judge = input_space or given.space or InputSpace(), frozen(given.model)
    method = as_explainer(explainer, space)
    asked = DETECTORS if detectors is None else detectors
    x = given.x.detach()
    with torch.no_grad():
        if target is None:
            parts = [given.outputs.explained(judge(part)) for part in x.split(batch_size)]
            wanted = torch.cat(parts)
        else:
            wanted = given.target(target)
        scores: dict[str, list[Tensor]] = {name: [] for name in asked}
        for part, classes in zip(x.split(batch_size), wanted.split(batch_size), strict=True):
            for name, detector in asked.items():
                scores[name].append(detector(judge, part, classes, method, space).cpu())
    return Detection({name: torch.cat(parts) for name, parts in scores.items()}, wanted.cpu())


def _map(model: nn.Module, x: Tensor, target: Tensor, explainer: Explainer) -> Tensor:
    """The heat map; not a number where there is none, which is a finding and no error."""
    return relative(explainer(model, x, target).detach())
