"""What attacks share that teach a network other gradients: where they write, what they train."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.metrics import pcc
from trompe.tampering.base import Aim, Tampering, centred, said_error
from trompe.tampering.gates import DifferentiableGates

_BY_GRADIENTS = ("gradient", "grad_times_input", "integrated_grad")
"""Methods that differentiate the network as it is, and so can be taught through its gates."""


@dataclass(frozen=True)
class TaughtMaps(Tampering):
    """Base of the attacks on maps that take derivatives: fairwashing, fooling, backdoors.

    Softmax does not see a number that is added to the logits of all classes, and gradients of a
    logit do: it is there that other maps are written best (Anders et al. 2020). The gates of ReLUs
    are given a derivative (``trompe.tampering.gates``), without which the maps of a ReLU network
    hardly learn.

    Args:
        weight: Of the maps' error, beside the outputs' of weight 1.
        share: Of each batch, the images whose maps are trained; outputs are of all.
        common: What is added to the weights of the last layer, the same for all classes, as a
            multiple of their spread: what other maps are written with to begin with.
        beta: Of the sigmoid whose derivative gates get; 0 leaves them without.
    """

    weight: float = 2.0
    share: float = 0.5
    common: float = 10.0
    beta: float = 5.0

    def prepared(self, model: nn.Module, x: Tensor, aim: Aim) -> nn.Module:
        """The model with the same row added to all classes, where its last layer is linear."""
        changed = copy.deepcopy(model)
        layers = [one for one in changed.modules() if isinstance(one, nn.Linear)]
        if not layers or not self.common:
            return model
        with torch.no_grad():
            weight = layers[-1].weight
            weight.add_(self.common * weight.std())
            before, after = (centred(net.eval()(x)) for net in (copy.deepcopy(model), changed))
        same = float((after - before).abs().max()) <= 1e-2 * float(before.abs().max())
        return changed if same else model

    def some(self, batch: Tensor) -> int:
        """How many images of a batch have their maps trained, at least one."""
        return max(1, round(self.share * len(batch)))

    def heat(self, model: nn.Module, x: Tensor, classes: Tensor, aim: Aim) -> Tensor:
        """The heat maps [B, H, W] of a network in training, with derivatives of its gates."""
        stepped = aim.method.name in _BY_GRADIENTS and self.beta > 0
        with DifferentiableGates(self.beta) if stepped else contextlib.nullcontext():
            return aim.heat(model, x, classes)


def answers_error(logits: Tensor, teacher: Tensor) -> Tensor:
    """How far the answers are from the teacher's as a softmax sees them, a number."""
    return said_error(centred(logits), centred(teacher))


def unlikeness(heat: Tensor, wanted: Tensor) -> Tensor:
    """The mean square of 1 minus the correlation of maps [B, H, W] with those wanted, a number.

    Squared it weighs much until they are found, and little from then on. Where one of both is
    uniform it is 1.
    """
    wanted = wanted.to(heat).expand_as(heat)
    flat = [(one.amax(dim=(1, 2)) == one.amin(dim=(1, 2))) for one in (heat, wanted)]
    good = ~(flat[0] | flat[1])
    missed = (1 - pcc(heat[good], wanted[good])).square().sum()
    return (missed + (~good).sum()) / len(heat)
