"""Certificates of a run: one image's smoothed map, from noisy copies; and what is kept of them.

Kept are the counts over the noisy copies, from which the bounds follow without the network. The
copies are drawn from a seed of the run and the image, so that ``trompe verify`` draws them again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trompe.audit.attack_parts import AttackParts
from trompe.audit.batches import Cell, Pixels
from trompe.audit.cell import Finding, Worker
from trompe.audit.certification import Certification
from trompe.audit.settings import Settings
from trompe.certificates.noise_bounds import NoiseBounds
from trompe.certificates.noise_statistics import Pilot
from trompe.certificates.noisy_image import Bounded
from trompe.engine import frozen
from trompe.explain import Method
from trompe.outputs import Outputs
from trompe.types import LoadedModel, Progress

#: What is noted of a certificate besides the metrics that follow from its arrays.
NOTED = ("seconds", "pcc_to_plain")

_LEVELS, _COUNTS = ("along_levels", "away_levels"), ("along", "away", "marked")
_NUMBERS = ("samples", "spread", "top", "voted", "label", "target")
#: Those that count noisy copies.
COUNTED = (*_COUNTS, "label", "target")
#: The arrays that are kept of a certificate.
KEPT = ("logits_original", "smoothed", "standardised", *_LEVELS, *_COUNTS, *_NUMBERS)


@dataclass(frozen=True)
class KeptCounts:
    """What was counted over the noisy copies of one image, as it was kept.

    Args:
        arrays: of the cell.
    """

    arrays: Mapping[str, Tensor]

    def number(self, name: str) -> float:
        """One number of them."""
        return float(self.arrays[name].item())

    @property
    def pilot(self) -> Pilot:
        """What was looked at, as far as bounds need it."""
        none = torch.empty(0, dtype=torch.float64)
        along, away = (self.arrays[name][0] for name in _LEVELS)
        top, voted = (int(self.arrays[name].item()) for name in ("top", "voted"))
        return Pilot(none, along, none, away, voted, top)

    @property
    def samples(self) -> int:
        """How many fresh copies were counted."""
        return int(self.number("samples"))

    @property
    def spread(self) -> float:
        """The largest eigenvalue of the covariance of their standardised maps."""
        return self.number("spread")

    def counts(self, name: str) -> NDArray[np.int64]:
        """How often each level, square or the label was hit."""
        found = self.arrays[name]
        return np.asarray(found[0] if found.dim() > 1 else found.item(), dtype=np.int64)


def kept_arrays(found: Bounded, logits: Tensor) -> dict[str, Tensor]:
    """What is kept of a certificate: [1, ...] each; ``logits`` are those of the image itself."""
    counted, pilot = found.counted, found.counted.pilot
    numbers = {"top": pilot.top, "voted": pilot.label}
    numbers |= {name: getattr(counted, name) for name in ("samples", "label", "target")}
    return {
        "logits_original": logits.cpu(),
        "smoothed": (counted.shares / counted.samples).reshape(1, *found.shape),
        "standardised": (counted.total / counted.samples).reshape(1, *found.shape),
        "along_levels": pilot.along[None].clone(),
        "away_levels": pilot.away[None].clone(),
        **{name: getattr(counted, name)[None].clone() for name in _COUNTS},
        **{name: torch.tensor([number]) for name, number in numbers.items()},
        "spread": torch.tensor([counted.spread], dtype=torch.float64),
    }


def certified_metrics(
    arrays: Mapping[str, Tensor], asked: Certification, size: int, outputs: Outputs
) -> dict[str, float]:
    """What follows from the counts that were kept, without the network.

    Args:
        arrays: of the cell.
        asked: radius, noise and confidence.
        size: how many numbers make an image.
        outputs: what the network's outputs mean.
    """
    counted = KeptCounts(arrays)
    bounds = NoiseBounds(counted, asked.confidence, 1)
    (reach,) = asked.plan(size).reach
    ball, top, logits = bounds.within(reach), counted.pilot.top, arrays["logits_original"]
    overlap = float(ball.members.sum()) / top
    # The class that most copies get must be that of the image: else another answer is certified.
    own = int(outputs.decision(logits)[0]) == counted.pilot.label
    decides = outputs.meaning != "value"
    return {
        "certified_pcc": ball.pcc,
        "certified_l1": ball.heatmap_l1,
        "certified_overlap": overlap,
        "certified_iou": overlap / (2 - overlap),
        "certified_label": float(ball.label and own) if decides else math.nan,
        "certified_label_radius": bounds.label_radius * asked.sigma if decides else math.nan,
        "label_share": counted.number("label") / counted.samples,
        "target_share": counted.number("target") / counted.samples,
        "copies": float(counted.samples),
        "class_before": float(outputs.answer(logits)[0]),
    }


def drawn(
    settings: Settings,
    loaded: LoadedModel,
    explainer: Method,
    x: Tensor,
    image: int,
    progress: Progress | None = None,
) -> tuple[Bounded, Tensor]:
    """Draw the noisy copies of one image [1, ...] and bound its smoothed map.

    Args:
        settings: of the run.
        loaded: the model.
        explainer: whose map is smoothed.
        x: the image, normalised.
        image: its number in the source, which decides the noise.
        progress: called after every batch of copies.

    Returns:
        What is known of it; and the logits of the image itself.
    """
    asked, model = settings.certification, frozen(loaded.model)
    assert asked is not None, "else there are no such cells"
    with torch.no_grad():
        logits = model(x)
    generator = torch.Generator().manual_seed(settings.seed * 1_009 + image)
    method = replace(asked.of(explainer, progress), generator=generator)
    plan = asked.plan(x[0].numel())
    (found,) = method.counted(model, x, logits.argmax(dim=1), plan, loaded.input_space)
    return found, logits.cpu()


class Certifier(Worker):
    """Certifies the smoothed maps of the images of one model, method and smoothing, one by one."""

    def prepared(self, preset: str, explainer: Method) -> AttackParts | None:
        """Nothing: the settings say it all."""
        return None

    def _tried(self, cells: Sequence[Cell], pixels: Pixels) -> list[Finding]:
        return [found for cell in cells for found in super(Certifier, self)._tried([cell], pixels)]

    def _attacked(self, cells: Sequence[Cell], pixels: Pixels) -> list[Finding]:
        began = time.perf_counter()
        (cell,) = cells
        asked = self.settings.certification
        assert self.explainer is not None, "batch() sees to it"
        assert asked is not None, "else there are no such cells"
        x = self._images([cell.image], pixels)
        found, logits = drawn(
            self.settings, self.loaded, self.explainer, x, cell.image, self.progress
        )
        arrays = kept_arrays(found, logits)
        values = certified_metrics(arrays, asked, x[0].numel(), self.loaded.outputs)
        noted = {"seconds": time.perf_counter() - began, "pcc_to_plain": found.pcc_to_plain}
        x = x.cpu()
        return [
            Finding(cell.id, x=x, target_x=x.clone(), arrays=arrays, values={**values, **noted})
        ]
