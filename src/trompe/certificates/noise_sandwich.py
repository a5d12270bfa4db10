"""The smoothed map of any method: the strongest attack found below, what is certified above."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trompe.certificates.explained_class import explained_class
from trompe.certificates.methods.noise import SmoothedMap
from trompe.certificates.smoothed_attack import SmoothedAttack
from trompe.engine import adapted, frozen
from trompe.errors import UsageError
from trompe.explain import as_explainer
from trompe.in_brief import InBrief
from trompe.types import Explainer, InputSpace, Progress


@dataclass(frozen=True)
class NoiseLayer:
    """One radius of one image. The correlations are of maps over squares.

    Args:
        image: Its index.
        radius: Of the l2 ball, in pixel units.
        certified_pcc: At least the correlation of the smoothed map with that of the image itself;
            -1: void.
        attacked_pcc: What the strongest attack leaves (an estimate, on noise that was used neither
            by the attack nor to choose it).
        plain_pcc: What an attack of the PLAIN map in the same ball leaves of its correlation.
        certified_l1: At most the l1 change of the smoothed heat map, 0..2.
        attacked_l1: That of the attack that changes it most, estimated likewise.
        certified_overlap: At least the share of the k largest votes that stay.
        attacked_overlap: That of the attack that leaves least, estimated likewise.
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


@dataclass(frozen=True, repr=False)
class NoiseSandwich(InBrief):
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

    Above: ``certify(method="noise")``. Below, within the radius, the strongest of three attacks:
    the objective ``unlike`` on the mean map of a few noisy copies, with noise drawn anew in every
    step and without (see ``SmoothedAttack``), and power iteration over many copies (``Turning``).
    Each is tried on 300 copies that none has seen, the same for every image, in two halves so that
    their noise does not count as a change; the strongest, those of smaller radii included, is then
    judged on 300 others, and that is reported: an estimate without the bias of a choice, which may
    lie beyond a close bound by chance. The certificate holds whatever the label does, so the attack
    may change it.
    Beside both: the same attacks on the plain map, judged on the plain map.

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
        copies: Noisy copies that an attack sees in a step; the power iteration sees
            ``copies * iterations`` in each of its five.
        batch_size: Noisy copies per pass of the certificate.
        generator: Of the seeds, one for each image in their order, so that the second image of a
            batch has other noise than alone.
        progress: Called after every radius.

    Raises:
        UsageError: If the radii do not rise, or a setting is out of range.
    """
    if not radii or radii[0] <= 0 or sorted(set(radii)) != list(radii):
        raise UsageError("radii must be positive and rising")
    if iterations < 1 or copies < 1:
        raise UsageError("iterations and copies must be at least 1")
    given = adapted(model, x, evaluation=True)
    if given.x.dim() in (3, 5):
        raise UsageError(
            f"the sandwich is for images [B, C, H, W], not for {tuple(given.x.shape)}: certify "
            "signals and volumes with certify(method='noise')"
        )
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
        attack = SmoothedAttack(
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
