"""What a defence buys and what it costs: the same numbers before and after."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trompe.engine import frozen
from trompe.explain import as_explainer
from trompe.interruption import whole
from trompe.metrics import deletion, entropy, insertion
from trompe.robustness import Share, auto_attack, joined, share
from trompe.training import LabelledImages
from trompe.types import Explainer, InputSpace, Progress, heatmap


@dataclass(frozen=True)
class Measured:
    """A network's accuracy and the robustness and faithfulness of its explanations.

    Args:
        accuracy: Images classified right.
        robust: Images whose map, in every attempt within the radius that keeps the class,
            correlates at least ``tau`` with the original one.
        worst_pcc: The mean over the images of the worst correlation found.
        insertion: The mean area under the insertion curve: high where the map is faithful.
        deletion: The mean area under the deletion curve: low where the map is faithful.
        entropy: The mean entropy of the heat maps, as a share of the largest possible: 1 is an
            even map, which says nothing and always looks robust.
        images: How many were attacked.
        radius: Of the ball, pixel units.
        norm: Of the ball.
        tau: The least correlation that counts as robust.
        flipped: The share of all attempts that changed the class and count for nothing.
        untried: Images of which every attempt did so: nothing is known of them, and they are not
            counted as robust.
        worst: The worst correlation found of each image, in order.
    """

    accuracy: Share
    robust: Share
    worst_pcc: float
    insertion: float
    deletion: float
    entropy: float
    images: int
    radius: float
    norm: str
    tau: float
    flipped: float = math.nan
    untried: int = 0
    worst: tuple[float, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def accuracy(model: nn.Module, images: LabelledImages) -> Share:
    """The share of the images that are classified right."""
    hits, count = 0, 0
    with torch.no_grad():
        for x, y in images.epoch(0):
            hits += int((model(x).argmax(dim=1) == y).sum())
            count += len(y)
    return share(hits, count)


def measure(
    model: nn.Module,
    space: InputSpace,
    classified: LabelledImages,
    attacked: Tensor,
    *,
    explainer: str | Explainer = "gradient",
    radius: float = 8 / 255,
    norm: Literal["linf", "l2"] = "linf",
    tau: float = 0.5,
    budget: float = 1.0,
    batch_size: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> Measured:
    """Measure a network: accuracy, the worst case of its maps, their faithfulness and entropy.

    Args:
        model: The network as it is to be used.
        space: Its normalisation.
        classified: Images for the accuracy, in order.
        attacked: Images to attack, normalised, [N, C, H, W].
        explainer: The explanation judged.
        radius: See ``trompe.auto_attack``.
        norm: See ``trompe.auto_attack``.
        tau: The least correlation that counts as robust.
        budget: See ``trompe.auto_attack``.
        batch_size: Images attacked at once.
        seed: Of the attack.
        progress: Called after every image.

    """
    judge, explain = frozen(model), as_explainer(explainer, space)
    parts = []
    for part in attacked.split(batch_size):
        parts.append(
            whole(
                auto_attack(
                    model,
                    part,
                    explainer=explain,
                    radius=radius,
                    norm=norm,
                    budget=budget,
                    input_space=space,
                    generator=torch.Generator().manual_seed(seed),
                )
            )
        )
        if progress is not None:
            progress(sum(len(one.x) for one in parts), len(attacked), {})
    found = joined(parts)
    with torch.no_grad():
        target = judge(attacked).argmax(dim=1)
    maps = heatmap(explain(judge, attacked, target)).detach()
    return Measured(
        accuracy=accuracy(model, classified),
        robust=share(int(found.robust(tau).sum()), len(attacked)),
        worst_pcc=float(found.worst["pcc"][found.tried].nanmean()),
        insertion=float(insertion(judge, attacked, maps, target=target).area.mean()),
        deletion=float(deletion(judge, attacked, maps, target=target).area.mean()),
        entropy=float(entropy(maps).mean()),
        images=len(attacked),
        radius=radius,
        norm=norm,
        tau=tau,
        flipped=float(found.flipped.sum() / (found.flipped + found.judged).sum().clamp(min=1)),
        untried=int((~found.tried).sum()),
        worst=tuple(found.worst["pcc"].tolist()),
    )
