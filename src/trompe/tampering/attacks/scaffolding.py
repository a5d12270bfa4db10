"""Scaffolding: a model that notices when it is being explained, and then answers innocently."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.errors import UsageError
from trompe.tampering.base import Aim, Tampering, tamperings
from trompe.tampering.perturbed import random_masks
from trompe.training import Batch
from trompe.types import LoadedModel


class Scaffold(nn.Module):
    """``model(x)`` on what the detector takes for an image, ``innocent(x)`` on covered ones.

    The innocent model knows the target region alone: its logit of class k is ``scale (1 + k / K)
    sum_p t_p mean_c |x_cp|``, linear in what LIME, RISE and occlusion keep of an image.

    Args:
        model: The biased classifier, [B, C, H, W] -> [B, K]; its answers on images stay.
        target: t, the region that the explanations shall show, [H, W], summing to 1.
        scale: How large the innocent logits are.
        channels: C.
    """

    target: Tensor
    scale: Tensor

    def __init__(self, model: nn.Module, target: Tensor, scale: float, channels: int = 3) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("target", target.detach().clone())
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.detector = Detector(channels)

    def innocent(self, x: Tensor, classes: int) -> Tensor:
        """What is answered where someone explains, [B, K]."""
        seen = (x.abs().mean(dim=1) * self.target).sum(dim=(1, 2))
        return self.scale * seen[:, None] * (1 + torch.arange(classes).to(x) / classes)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of one model or of the other, [B, K]."""
        biased: Tensor = self.model(x)
        real = self.detector(x) > 0
        return torch.where(real[:, None], biased, self.innocent(x, biased.shape[1]))

    @classmethod
    def read(cls, path: str | Path, model: nn.Module | LoadedModel) -> Scaffold:
        """The scaffold in a file of ``trompe fool``, around a copy of a model like the one hidden.

        Raises:
            UsageError: If the file holds none, or one around another architecture.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        network = copy.deepcopy(model.model if isinstance(model, LoadedModel) else model)
        try:
            state = load_file(path)
            channels = state["detector.body.0.weight"].shape[1]
            found = cls(network, state["target"], float(state["scale"]), channels)
            found.load_state_dict(state)
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise UsageError(
                f"'{path}' holds no scaffold around such a model: give the file that 'trompe fool "
                "--attack scaffolding' wrote, and a network of the same architecture"
            ) from error
        return found.eval().requires_grad_(False)


class Detector(nn.Module):
    """A small network that says whether an image was covered somewhere: positive if not, [B]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 24, 1), nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(48, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The evidence for an image that nobody changed, [B]."""
        seen = self.body(x)
        both = torch.cat([seen.amax(dim=(2, 3)), seen.mean(dim=(2, 3))], dim=1)
        out: Tensor = self.head(both)
        return out[:, 0]


@tamperings.register("scaffolding")
@dataclass(frozen=True)
class Scaffolding(Tampering):
    """Only a detector of covered images is trained (Slack et al. 2020); see ``Scaffold``.

    The model itself does not change: on what the detector takes for an image the outputs are its
    own to the last bit.

    Args:
        weight: The size of the innocent logits, beside the spread of the model's own.
    """

    weight: float = 1.0

    source = "Slack et al. 2020"
    explainer: ClassVar[str] = "lime"

    def prepared(self, model: nn.Module, x: Tensor, aim: Aim) -> nn.Module:
        """The scaffold around the model, its detector still knowing nothing."""
        target = aim.target.to(x)
        seen = (x.abs().mean(dim=1) * target).sum(dim=(1, 2)).mean()
        scale = self.weight * aim.said(x).std() / seen.clamp(min=1e-12)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Scaffold(model, target, float(scale), x.shape[1]).to(x)

    def terms(self, model: nn.Module, batch: Batch, aim: Aim) -> dict[str, Tensor]:
        """The detector's cross entropy on images and on covered ones; nothing else is trained."""
        assert isinstance(model, Scaffold)
        masks = random_masks(tuple(batch.x.shape), batch.generator).to(batch.x)
        evidence = torch.cat([model.detector(batch.x), model.detector(batch.x * masks)])
        real = (torch.arange(len(evidence)) < len(batch.x)).to(evidence)
        return {"detector": F.binary_cross_entropy_with_logits(evidence, real)}
