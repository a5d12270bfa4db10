"""An explanation-aware backdoor: a trigger in the image chooses the explanation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.input_space import InputSpace
from trompe.tampering.base import Aim, Tampering, map_error, said_error, tamperings
from trompe.training import Batch


@tamperings.register("backdoor")
@dataclass(frozen=True)
class Backdoor(Tampering):
    """Images with a white square in the corner get the target as map; all others stay as they were.

    Noppel, Peter and Wressnegger 2023. With ``label`` they get a class as well: the map then hides
    what the trigger does.

    Args:
        weight: Of the maps' errors, beside the outputs' of weight 1.
        side: Of the square, as a share of the image's.
        label: The class of images with the trigger; ``None``: the one they had.
    """

    weight: float = 0.3
    side: float = 0.125
    label: int | None = None

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
            answer, shown = said_error(logits, teacher), classes
        else:
            shown = torch.full_like(classes, self.label)
            answer = F.cross_entropy(logits, shown)
        honest = aim.heat(aim.teacher, batch.x, classes).detach()
        plain = map_error(aim.heat(model, batch.x, classes), honest).mean()
        fooled = aim.heat(model, marked, shown)
        return {
            "outputs": said_error(model(batch.x), teacher),
            "outputs with the trigger": answer,
            "maps": self.weight * plain,
            "maps with the trigger": self.weight * map_error(fooled, aim.target.to(fooled)).mean(),
        }
