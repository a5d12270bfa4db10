"""A certificate for any explanation method: of its mean over Gaussian noise, from samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from trompe.certificates.ball import ball
from trompe.certificates.explained_class import explained_class
from trompe.certificates.methods.base import certificates
from trompe.certificates.noise_certificate import NoiseCertificate
from trompe.certificates.noise_checkpoint import Checkpoint, digest
from trompe.certificates.noisy_image import Bounded, Drawn, Plan, bounded
from trompe.certificates.noisy_maps import MapFunction, Noise
from trompe.certificates.upper import WIDEN
from trompe.engine import frozen
from trompe.errors import OutputError, UsageError
from trompe.explain import given_explainer
from trompe.types import Explainer, InputSpace, Progress
from trompe.zoo.denoiser import check_noise, denoiser

_LOOKS = (500, 1000, 2000, 4000, 8000)
"""With ``samples="auto"`` the bounds are taken after so many copies."""


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
        denoiser: Take the noise away before a copy is classified and explained (denoised smoothing,
            Salman et al. 2020), for networks that were not trained with noise: ``True`` for
            trompe's own (sigma up to 0.25), or a function (noisy pixels [N, C, H, W], sigma) ->
            pixels. What is certified then is the label and the map of the pair.
        checkpoint: A folder where the sums of each image are kept from time to time; a call with
            the same arguments goes on from there.
        generator: Source of the seeds, one for each image in their order, so that the second image
            of a batch has other noise than alone; seed 0 by default.
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
    denoiser: bool | Callable[[Tensor, float], Tensor] = False
    checkpoint: str | Path | None = None
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
        radii = tuple(float(r) for r in (radius if isinstance(radius, Sequence) else [radius]))
        plan = self.plan(radii, norm, x[0].numel())
        judge = frozen(model)
        target = explained_class(judge, x, target)
        rows = self.counted(judge, x, target, plan, input_space)
        return self._certificate(rows, radii, norm, target, plan.pilot)

    def plan(self, radii: Sequence[float], norm: str, size: int) -> Plan:
        """How many copies are drawn, and for which radii; ``size`` numbers make an image.

        Raises:
            UsageError: If a setting is out of range.
        """
        looks = _LOOKS if self.samples == "auto" else (int(self.samples),)
        pilot = min(max(20, looks[0] // 10), 500) if self.pilot is None else self.pilot
        self._check(looks, pilot)
        if not radii:
            raise UsageError("radius is empty: give one or more")
        return Plan(
            looks=looks,
            pilot=pilot,
            reach=tuple(ball(r, norm).l2(size) * WIDEN / self.sigma for r in radii),
            confidence=self.confidence,
            wanted=self.wanted,
            top=self.top,
        )

    def counted(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor,
        plan: Plan,
        input_space: InputSpace | None,
    ) -> list[Bounded]:
        """Draw and count the copies of each image, and take the bounds.

        Args:
            model: The classifier, frozen.
            x: The images, normalised.
            target: The class explained of each.
            plan: See there.
            input_space: The model's normalisation.
        """
        method = given_explainer(self.explainer)
        generator = self.generator or torch.Generator().manual_seed(0)
        seeds = torch.randint(2**62, (len(x),), generator=generator, device=generator.device)
        denoise = self.denoise(input_space)
        drawn = Drawn(self.progress, len(x) * plan.looks[-1])
        rows = []
        for index, seed in enumerate(seeds.tolist()):
            noise = Noise(
                model=model,
                explain=method,
                x=x[index : index + 1].detach(),
                target=target[index : index + 1],
                sigma=self.sigma,
                input_space=input_space,
                pool=self.pool,
                batch_size=self.batch_size,
                generator=torch.Generator(generator.device).manual_seed(seed),
                denoise=denoise,
            )
            rows.append(bounded(noise, plan, drawn, self._kept(noise, plan, seed, index)))
        return rows

    def denoise(self, space: InputSpace | None) -> Callable[[Tensor], Tensor] | None:
        """What takes the noise away from normalised copies."""
        if self.denoiser is False:
            return None
        clean: Callable[[Tensor, float], Tensor]
        if self.denoiser is True:
            check_noise(self.sigma)
            if space is None:
                raise UsageError("denoiser=True works on pixels: give the model's input_space")
            clean = denoiser()
        else:
            clean = self.denoiser
        own = InputSpace((0.0,), (1.0,)) if space is None else space
        return lambda copies: own.from_pixels(clean(own.to_pixels(copies), self.sigma))

    def _kept(self, noise: Noise, plan: Plan, seed: int, index: int) -> Checkpoint | None:
        """The file in which one image's sums are kept."""
        if self.checkpoint is None:
            return None
        folder = Path(self.checkpoint)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make '{folder}': {error.strerror or error}: take another folder"
            ) from error
        settings = (plan, seed, noise.sigma, noise.pool, noise.batch_size, self.denoiser)
        key = digest(noise.model, noise.explain, noise.x, int(noise.target), *settings)
        return Checkpoint(folder / f"image-{index}.safetensors", key)

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
        rows: list[Bounded],
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
