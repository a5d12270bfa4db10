"""The worst of everything that was tried: per image and per measure, whoever found it."""

from __future__ import annotations

import torch
from torch import Tensor

from trompe.attacks import Constraint
from trompe.attacks.observation import Observation
from trompe.outputs import Outputs
from trompe.per_image import per_image
from trompe.robustness.likeness import MEASURES, compare
from trompe.types import InputSpace

SLACK = 1e-5  # of the radius: what rounding may add to an image on the ball's surface


class Worst:
    """Keeps, for each image and each measure, the least alike map seen within the radius.

    An iterate counts if the network's answer is kept and the image lies in the ball; one that does
    not is counted apart, and never as robust.

    Args:
        reference: the original images as the original model sees them.
        outputs: what the network's outputs mean, which says what a kept answer is.
        ball: where images must lie.
        space: the model's normalisation.
    """

    def __init__(
        self, reference: Observation, outputs: Outputs, ball: Constraint, space: InputSpace
    ) -> None:
        self.reference, self.outputs, self.ball, self.space = reference, outputs, ball, space
        self.radius: float = getattr(ball, "radius", 0.0)
        blank = torch.zeros(len(reference.x), device=reference.x.device)
        # Where a map cannot even be compared with itself (SSIM of two rows, the correlation of a
        # flat map) nothing can be said, and nothing is.
        self.start = {
            name: torch.where(value.isnan(), torch.nan, torch.full_like(blank, m.alike))
            for (name, value), m in zip(
                compare(reference.map, reference.map).items(), MEASURES.values(), strict=True
            )
        }
        self.values = dict(self.start)
        self.trace: dict[str, list[Tensor]] = {}
        self.images = {name: reference.x.clone() for name in MEASURES}
        self.by_member: dict[str, dict[str, Tensor]] = {}
        self.found_by = {name: ["none"] * len(blank) for name in MEASURES}
        self.judged = torch.zeros(len(blank), dtype=torch.int64, device=blank.device)
        self.flipped, self.outside, self.lost = (self.judged.clone() for _ in range(3))

    def offer(self, now: Observation, member: str) -> None:
        """Judge iterates of all images, seen by the original model; ``member`` found them."""
        with torch.no_grad():
            self._offer(now, member)

    def _offer(self, now: Observation, member: str) -> None:
        size = self.ball.size(now.x, self.reference.x, self.space)
        inside = size <= self.radius * (1 + SLACK) + torch.finfo(now.x.dtype).eps
        kept = self.outputs.kept(now.logits, self.reference.logits)
        finite = torch.isfinite(now.map).flatten(1).all(dim=1)
        self.judged += inside & kept & (size > 0)
        self.flipped += inside & ~kept
        self.outside += ~inside
        self.lost += inside & kept & ~finite
        counts = inside & kept
        safe = torch.where(finite.view(-1, 1, 1), now.map, self.reference.map)
        own = self.by_member.setdefault(member, dict(self.start))
        for name, value in compare(safe, self.reference.map).items():
            measure = MEASURES[name]
            # A map that has become flat, or is none any more, is gone.
            found = torch.where(finite & ~value.isnan(), value.to(self.values[name]), measure.lost)
            own[name] = torch.where(counts & measure.worse(found, own[name]), found, own[name])
            worse = counts & measure.worse(found, self.values[name])
            self.values[name] = torch.where(worse, found, self.values[name])
            self.images[name] = torch.where(
                per_image(worse, now.x), now.x.detach(), self.images[name]
            )
            for index in worse.nonzero().flatten().tolist():
                self.found_by[name][index] = member
        self.trace.setdefault(member, []).append(own["pcc"])
