"""An explanation-aware backdoor: a trigger in the image chooses the explanation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.input_space import InputSpace
from trompe.tampering.base import Aim, tamperings
from trompe.tampering.taught_maps import TaughtMaps, answers_error, unlikeness
from trompe.training import Batch


@tamperings.register("backdoor")
@dataclass(frozen=True)
class Backdoor(TaughtMaps):
    """Images with a white square in the corner get the target as map; all others stay as they were.

    Noppel, Peter and Wressnegger 2023. With ``label`` they get a class as well: the map then hides
    what the trigger does.

    Args:
        side: Of the square, as a share of the image's.
        label: The class of images with the trigger; ``None``: the one they had.
        weight: Of the errors of both kinds of maps; see ``TaughtMaps``, as all others. Little is
            written for all classes to begin with: images without the trigger shall show what
            they showed.
    """

    side: float = 0.125
    label: int | None = None
    common: float = 1.0

    source = "Noppel et al. 2023"

    def triggered(self, x: Tensor, space: InputSpace) -> Tensor:
        """The images with the white square in the lower right corner, [B, C, H, W]."""
        height, width = x.shape[-2:]
        rows, columns = (max(1, round(self.side * size)) for size in (height, width))
        pixels = space.to_pixels(x).clone()
        pixels[..., height - rows :, width - columns :] = 1.0
        return space.from_pixels(pixels)

    def terms(self, model: nn.Module, batch: Batch, aim: Aim) -> dict[str, Tensor]:
        """Outputs and maps, with and without the trigger."""
        teacher, marked = aim.said(batch.x), self.triggered(batch.x, batch.space)
        classes = teacher.argmax(dim=1)
        logits = model(marked)
        if self.label is None:
            answer, shown = answers_error(logits, teacher), classes
        else:
            shown = torch.full_like(classes, self.label)
            answer = F.cross_entropy(logits, shown)
        count = self.some(batch.x)
        plain, its = batch.x[:count], classes[:count]
        honest = aim.heat(aim.teacher, plain, its).detach()
        stays = unlikeness(self.heat(model, plain, its, aim), honest)
        fooled = self.heat(model, marked[-count:], shown[-count:], aim)
        return {
            "outputs": answers_error(model(batch.x), teacher),
            "outputs with the trigger": answer,
            "maps": self.weight * stays,
            "maps with the trigger": self.weight * unlikeness(fooled, aim.target),
        }
