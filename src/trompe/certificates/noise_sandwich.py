"""The smoothed map of any method: the strongest attack found below, what is certified above."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trompe.attacks.constraints import L2Ball
from trompe.attacks.keep import Keep
from trompe.attacks.manipulation import manipulate
from trompe.certificates.explained_class import explained_class
from trompe.certificates.methods.noise import SmoothedMap
from trompe.certificates.noisy_maps import Noise
from trompe.certificates.smoothed_squares import SmoothedSquares
from trompe.engine import adapted, frozen
from trompe.errors import UsageError
from trompe.explain import as_explainer
from trompe.types import Explainer, InputSpace, Progress

JUDGED_ON = 300
"""Noisy copies, never seen by an attack, on which it is judged."""


@dataclass(frozen=True)
class NoiseLayer:
    """One radius of one image. The correlations are of maps over squares.

    Args:
        image: Its index.
        radius: Of the l2 ball, in pixel units.
        certified_pcc: At least the correlation of the smoothed map with that of the image itself;
            -1: void.
        attacked_pcc: The least one found (an estimate, on noise never used by the attack).
        plain_pcc: What an attack of the PLAIN map in the same ball leaves of its correlation.
        certified_l1: At most the l1 change of the smoothed heat map, 0..2.
        attacked_l1: The largest one found.
        certified_overlap: At least the share of the k largest votes that stay.
        attacked_overlap: The least one found.
        label_kept: Whether the class of most noisy copies surely stays.
    """

    image: int
    radius: float
    certified_pcc: float
    attacked_pcc: float
    plain_pcc: float
    certified_l1: float
    attacked_l1: float
    certified_overlap: float
    attacked_overlap: float
    label_kept: bool

    @property
    def void(self) -> bool:
        """Whether nothing is known of the correlation."""
        return self.certified_pcc <= -1

    @property
    def ratio(self) -> float | None:
        """(1 - certified) / (1 - attacked); ``None`` where void or where no attack moved it."""
        found = 1 - self.attacked_pcc
        return None if self.void or found <= 0 else (1 - self.certified_pcc) / found


@dataclass(frozen=True)
class NoiseSandwich:
    """All layers, and what they are layers of.

    Args:
        layers: One for each image and radius.
        target: The class explained, per image.
        label_share: Share of the noisy copies that the class most of them have holds, per image.
        pcc_to_plain: Correlation of the smoothed with the plain map, per image.
        sigma: Of the noise, in pixel units.
        samples: Noisy copies counted, per image.
        confidence: That the certified numbers hold, for each image.
        pool: Side of the squares, in pixels.
    """

    layers: tuple[NoiseLayer, ...]
    target: tuple[int, ...]
    label_share: tuple[float, ...]
    pcc_to_plain: tuple[float, ...]
    sigma: float
    samples: tuple[int, ...]
    confidence: float
    pool: int

    def rows(self) -> list[dict[str, Any]]:
        """One JSON-ready object per layer; a void bound is ``None``."""
        return [
            {
                **vars(one),
                "certified_pcc": None if one.void else one.certified_pcc,
                "ratio": one.ratio,
            }
            for one in self.layers
        ]


def noise_sandwich(
    model: Any,
    x: Any,
    *,
    explainer: str | Explainer,
    radii: Sequence[float],
    sigma: float = 0.1,
    samples: int = 1000,
    confidence: float = 0.99,
    pool: int = 8,
    target: Any = None,
    input_space: InputSpace | None = None,
    denoiser: bool | Callable[[Tensor, float], Tensor] = False,
    iterations: int = 20,
    copies: int = 8,
    batch_size: int = 16,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> NoiseSandwich:
    """Enclose how far the smoothed map of any method can be moved, radius by radius.

    Above: ``certify(method="noise")``. Below: the objective ``unlike`` on the mean map of a few
    noisy copies that are drawn anew in every step, within the radius, the model's class kept;
    judged on 300 copies that no attack has seen, the same for every image, and never weaker than at
    a smaller radius. Beside both: the same attack on the plain map, judged on the plain map.

    Args:
        model: Any classifier; the attack needs its derivatives.
        x: The images, [B, C, H, W], normalised.
        explainer: A method by name, or an explainer with derivatives.
        radii: Of l2 balls, rising, in pixel units.
        sigma: And the next three: see ``SmoothedMap``.
        samples: Noisy copies of the certificate.
        confidence: Of it.
        pool: Side of the squares, in pixels.
        target: Class of each image; by default the one that the model predicts.
        input_space: The model's normalisation; a ``LoadedModel`` brings its own.
        denoiser: See ``SmoothedMap``; the attacks go through it.
        iterations: Steps of each attack.
        copies: Noisy copies per step.
        batch_size: Noisy copies per pass of the certificate.
        generator: Of the seeds.
        progress: Called after every radius.

    Raises:
        UsageError: If the radii do not rise, or a setting is out of range.
    """
    if not radii or radii[0] <= 0 or sorted(set(radii)) != list(radii):
        raise UsageError("radii must be positive and rising")
    if iterations < 1 or copies < 1:
        raise UsageError("iterations and copies must be at least 1")
    given = adapted(model, x, evaluation=True)
    space = input_space or given.space
    if space is None:
        space = InputSpace((0.0,) * given.x.shape[1], (1.0,) * given.x.shape[1])
    judge = frozen(given.model)
    classes = explained_class(judge, given.x, given.target(target))
    method = SmoothedMap(
        explainer=as_explainer(explainer, space),
        sigma=sigma,
        samples=samples,
        confidence=confidence,
        pool=pool,
        batch_size=batch_size,
        denoiser=denoiser,
        generator=generator,
    )
    found = method(judge, given.x, radius=list(radii), norm="l2", target=classes, input_space=space)
    layers = []
    for index in range(len(given.x)):
        attack = _Attack(
            judge, given.x[index : index + 1], classes[index : index + 1], method, space,
            iterations, copies, found.top,
        )  # fmt: skip
        for place, radius in enumerate(radii):
            pcc, l1, overlap = attack.smoothed(radius)
            layers.append(
                NoiseLayer(
                    image=index,
                    radius=radius,
                    certified_pcc=float(found.pcc[index, place]),
                    attacked_pcc=pcc,
                    plain_pcc=attack.plain(radius),
                    certified_l1=float(found.heatmap_l1[index, place]),
                    attacked_l1=l1,
                    certified_overlap=float(found.overlap[index, place]),
                    attacked_overlap=overlap,
                    label_kept=bool(found.label_kept[index, place]),
                )
            )
            if progress is not None:
                progress(len(layers), len(given.x) * len(radii), {"radius": radius})
    return NoiseSandwich(
        layers=tuple(layers),
        target=tuple(classes.tolist()),
        label_share=tuple(found.label_share.tolist()),
        pcc_to_plain=tuple(found.pcc_to_plain.tolist()),
        sigma=sigma,
        samples=found.samples,
        confidence=confidence,
        pool=pool,
    )


class _Attack:
    """The attacks on one image, radius by radius; what a smaller ball held, a larger one holds."""

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor,
        method: SmoothedMap,
        space: InputSpace,
        iterations: int,
        copies: int,
        top: int,
    ) -> None:
        self.model, self.x, self.target, self.space = model, x, target, space
        self.method, self.iterations, self.top = method, iterations, top
        self.denoise = method.denoise(space)
        self.map = SmoothedSquares(
            method.explainer, method.sigma, space, method.pool, copies, denoise=self.denoise
        )
        self.plain_map = SmoothedSquares(method.explainer, 0.0, space, method.pool)
        self.before = self._judged(x)
        self.plain_before = self._plain(x)
        self.worst = (1.0, 0.0, 1.0)
        self.plain_worst = 1.0

    def smoothed(self, radius: float) -> tuple[float, float, float]:
        """The least correlation, the largest l1 change and the least overlap found so far."""
        u, share, vote = self._judged(self._found(self.map, radius, redraw=True))
        here_u, here_share, here_vote = self.before
        pcc = float(u @ here_u / (u.norm() * here_u.norm()).clamp(min=1e-300))
        common = set(vote.topk(self.top).indices.tolist())
        common &= set(here_vote.topk(self.top).indices.tolist())
        now = (pcc, float((share - here_share).abs().sum()), len(common) / self.top)
        self.worst = (
            min(now[0], self.worst[0]),
            max(now[1], self.worst[1]),
            min(now[2], self.worst[2]),
        )
        return self.worst

    def plain(self, radius: float) -> float:
        """The least correlation of the plain map found so far."""
        now = self._plain(self._found(self.plain_map, radius, redraw=False))
        self.plain_worst = min(self.plain_worst, float(now @ self.plain_before))
        return self.plain_worst

    def _found(self, explainer: SmoothedSquares, radius: float, redraw: bool) -> Tensor:
        result = manipulate(
            self.model,
            self.x,
            explainer=explainer,
            objective="unlike",
            constraint=L2Ball(radius),
            keep_output=Keep("class"),
            target=self.target,
            input_space=self.space,
            iterations=self.iterations,
            redraw=redraw,
        )
        return result.x_adv.to(self.x)

    def _noise(self, x: Tensor) -> Noise:
        return Noise(
            model=self.model,
            explain=self.method.explainer,  # type: ignore[arg-type]  # a name was resolved
            x=x,
            target=self.target,
            sigma=self.method.sigma,
            input_space=self.space,
            pool=self.method.pool,
            batch_size=self.method.batch_size,
            generator=torch.Generator().manual_seed(12345),
            denoise=self.denoise,
        )

    def _judged(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean standardised map, mean heat map and votes, [P] each, on copies of its own."""
        parts = [
            (batch.standardised.sum(0), batch.shares.sum(0), batch.top(self.top).double().sum(0))
            for batch in self._noise(x).batches(JUDGED_ON)
        ]
        u, share, vote = (torch.stack(column).sum(0) for column in zip(*parts, strict=True))
        return u, share / JUDGED_ON, vote / JUDGED_ON

    def _plain(self, x: Tensor) -> Tensor:
        return self._noise(x).plain()[0].standardised[0]
