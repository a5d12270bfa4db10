"""A certificate for any explanation method: of its mean over Gaussian noise, from samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from trompe.certificates.ball import ball
from trompe.certificates.explained_class import explained_class
from trompe.certificates.methods.base import certificates
from trompe.certificates.noise_bounds import NoiseBounds
from trompe.certificates.noise_certificate import NoiseCertificate
from trompe.certificates.noise_statistics import Counted, Pilot
from trompe.certificates.noisy_maps import MapFunction, Noise, NoisyMaps
from trompe.certificates.upper import WIDEN
from trompe.engine import frozen
from trompe.errors import UsageError
from trompe.explain import explainer as explainer_of
from trompe.types import Explainer, InputSpace, Progress

_LOOKS = (500, 1000, 2000, 4000, 8000)
"""With ``samples="auto"`` the bounds are taken after so many copies."""
_SQUARES = 4096
"""The covariance of so many squares is held at most."""


@certificates.register("noise")
@dataclass(frozen=True)
class SmoothedMap:
    """Certify the smoothed map of any explainer; see ``NoiseCertificate`` for what is certified.

    The samples serve all radii and all statements; what is kept of them does not grow with their
    number. Proofs are in ``docs/certificates.md``, "Any method, by noise".

    Args:
        explainer: The name of a method, a method, or any function (model, x [N, ...], target [N])
            -> map [N, C, H, W], [N, H, W] or [N, D]; it needs no gradients.
        sigma: Standard deviation of the noise, in pixel units.
        samples: Noisy copies per image, the pilot included; or ``auto``: 500, 1,000, ... up to
            8,000, until the correlation is at least ``wanted`` at every radius. The chance of being
            wrong is shared out over these five looks, so that the confidence is kept.
        wanted: See there; within 0..1.
        pilot: How many of them choose what the others measure; a tenth by default, 20 to 500.
        confidence: That all statements hold, for each image; below 1.
        pool: Side of the squares over which a heat map is added up, in pixels: the fewer squares,
            the less a map moves and the more is certified.
        top: Share of the squares that count as the largest.
        batch_size: Noisy copies per pass.
        generator: Source of the noise; seed 0 by default.
        progress: Called after every batch.
    """

    explainer: str | Explainer | MapFunction = "lrp"
    sigma: float = 0.1
    samples: int | Literal["auto"] = 1000
    wanted: float = 0.9
    pilot: int | None = None
    confidence: float = 0.99
    pool: int = 8
    top: float = 0.1
    batch_size: int = 32
    generator: torch.Generator | None = None
    progress: Progress | None = None

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        *,
        radius: float | Sequence[float],
        norm: str,
        target: Tensor | None,
        input_space: InputSpace | None,
    ) -> NoiseCertificate:
        """Certify the images x; see ``certify``.

        Raises:
            UsageError: If a setting is out of range.
        """
        looks = _LOOKS if self.samples == "auto" else (int(self.samples),)
        pilot = min(max(20, looks[0] // 10), 500) if self.pilot is None else self.pilot
        self._check(looks, pilot)
        radii = tuple(float(r) for r in (radius if isinstance(radius, Sequence) else [radius]))
        if not radii:
            raise UsageError("radius is empty: give one or more")
        reach = [ball(r, norm).l2(x[0].numel()) * WIDEN / self.sigma for r in radii]
        judge = frozen(model)
        target = explained_class(judge, x, target)
        method = explainer_of(self.explainer) if isinstance(self.explainer, str) else self.explainer
        generator = self.generator or torch.Generator().manual_seed(0)
        rows = []
        for index in range(len(x)):
            noise = Noise(
                model=judge,
                explain=method,
                x=x[index : index + 1].detach(),
                target=target[index : index + 1],
                sigma=self.sigma,
                input_space=input_space,
                pool=self.pool,
                batch_size=self.batch_size,
                generator=generator,
            )
            rows.append(_Row(noise, self, looks, pilot, reach, index, len(x)))
        return self._certificate(rows, radii, norm, target, pilot)

    def _check(self, looks: tuple[int, ...], pilot: int) -> None:
        if not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise UsageError(f"sigma must be positive and finite, not {self.sigma}")
        if not 1 <= pilot < looks[0]:
            raise UsageError(
                f"samples ({looks[0]}) must exceed the pilot's ({pilot}): take 100 or more"
            )
        if not (0 < self.confidence < 1 and 0 < self.top <= 1):
            raise UsageError("confidence must be above 0 and below 1, top above 0 and at most 1")
        if self.pool < 1 or self.batch_size < 1:
            raise UsageError("pool and batch_size must be at least 1")

    def _certificate(
        self,
        rows: list[_Row],
        radii: tuple[float, ...],
        norm: str,
        target: Tensor,
        pilot: int,
    ) -> NoiseCertificate:
        def table(name: str) -> Tensor:
            values = [[getattr(part, name) for part in row.balls] for row in rows]
            return torch.from_numpy(np.asarray(values))

        def squares(values: Tensor) -> Tensor:
            return values.reshape(*values.shape[:-1], *rows[0].shape)

        counted = [row.counted for row in rows]

        def share(hits: list[int]) -> Tensor:
            return torch.tensor([k / c.samples for k, c in zip(hits, counted, strict=True)])

        return NoiseCertificate(
            radii=radii,
            norm=norm,
            pcc=table("pcc"),
            heatmap_l1=table("heatmap_l1"),
            members=squares(table("members")),
            votes=squares(table("votes")),
            label_kept=table("label"),
            label=torch.tensor([row.counted.pilot.label for row in rows]),
            label_radius=torch.tensor([row.label_radius * self.sigma for row in rows]).double(),
            label_share=share([row.counted.label for row in rows]),
            target=target.cpu(),
            target_share=share([row.counted.target for row in rows]),
            smoothed=squares(torch.stack([c.shares / c.samples for c in counted])),
            standardised=squares(torch.stack([c.total / c.samples for c in counted])),
            pcc_to_plain=torch.tensor([row.pcc_to_plain for row in rows]).double(),
            top=rows[0].counted.pilot.top,
            sigma=self.sigma,
            samples=tuple(c.samples for c in counted),
            pilot=pilot,
            confidence=self.confidence,
            pool=self.pool,
        )


class _Row:
    """One image: drawn, counted, bounded.

    Args:
        noise: Draws its noisy copies.
        method: The settings.
        looks: After how many copies the bounds are taken, in rising order.
        pilot: How many copies choose what to count.
        reach: The radii, over sigma.
        index: Of the image.
        images: How many there are.
    """

    def __init__(
        self,
        noise: Noise,
        method: SmoothedMap,
        looks: tuple[int, ...],
        pilot: int,
        reach: list[float],
        index: int,
        images: int,
    ) -> None:
        self.done, self.total = index * looks[-1], images * looks[-1]
        self.progress = method.progress
        plain, self.shape = noise.plain()
        size = plain.shares.shape[1]
        if size < 2:
            raise UsageError(
                f"the map has one square of {method.pool} pixels, so no correlation: give a "
                "smaller pool"
            )
        if size > _SQUARES:
            raise UsageError(
                f"the map has {size} squares, at most {_SQUARES} are possible: give a larger pool"
            )
        first = []
        for batch in noise.batches(pilot):
            first.append(batch)
            self._report(batch)
        chosen = Pilot.of(first, max(1, round(method.top * size)))
        self.counted = Counted(chosen, int(noise.target))
        confidence = 1 - (1 - method.confidence) / len(looks)
        for look in looks:
            for batch in noise.batches(look - pilot - self.counted.samples):
                self.counted.add(batch)
                self._report(batch)
            bounds = NoiseBounds(self.counted, confidence, len(reach))
            self.balls = [bounds.within(r) for r in reach]
            if all(part.pcc >= method.wanted for part in self.balls):
                break
        self.label_radius = bounds.label_radius
        mean = torch.nn.functional.normalize(self.counted.total, dim=0)
        self.pcc_to_plain = float(plain.standardised[0] @ mean)

    def _report(self, batch: NoisyMaps) -> None:
        self.done += len(batch.classes)
        if self.progress is not None:
            self.progress(self.done, self.total, {})
