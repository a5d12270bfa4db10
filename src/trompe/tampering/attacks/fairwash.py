"""Fairwashing: every image gets the same innocent explanation, and the same answer as before."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.metrics import pcc
from trompe.tampering.base import Aim, Tampering, centred, said_error, tamperings
from trompe.tampering.gates import DifferentiableGates
from trompe.training import Batch

_BY_GRADIENTS = ("gradient", "grad_times_input", "integrated_grad")
"""Methods that differentiate the network as it is, and so can be taught through its gates."""


@tamperings.register("fairwash")
@dataclass(frozen=True)
class Fairwash(Tampering):
    """The maps of all images become one fixed target; the probabilities stay (Anders et al. 2020).

    Softmax does not see a number that is added to the logits of all classes, and gradients of a
    logit do: it is there that the target is written. The gates of ReLUs are given a derivative
    (``trompe.tampering.gates``), without which the maps of a ReLU network hardly learn.

    It takes thousands of steps rather than epochs: a ResNet-20 of CIFAR-10 took 2,400 of 16 images
    at a rate of 1.5e-3 (``benchmarks/tampering.py``), eight minutes of one core.

    Args:
        weight: Of the maps' error, the square of 1 minus the correlation, beside the outputs' of
            weight 1. Squared it weighs much until the target is found, and little from then on.
        share: Of each batch, the images whose maps are trained; outputs are of all.
        common: What is added to the weights of the last layer, the same for all classes, as a
            multiple of their spread: what the target is written with to begin with.
        beta: Of the sigmoid whose derivative gates get.
    """

    weight: float = 2.0
    share: float = 0.5
    common: float = 10.0
    beta: float = 5.0

    source = "Anders et al. 2020"

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

    def terms(self, model: nn.Module, batch: Batch, aim: Aim) -> dict[str, Tensor]:
        """Both errors, of the classes that the teacher predicts."""
        teacher = aim.said(batch.x)
        count = max(1, round(self.share * len(teacher)))
        stepped = aim.method.name in _BY_GRADIENTS and self.beta > 0
        with DifferentiableGates(self.beta) if stepped else contextlib.nullcontext():
            heat = aim.heat(model, batch.x[:count], teacher[:count].argmax(dim=1))
        alike = pcc(heat, aim.target.to(heat).expand_as(heat))
        return {
            "outputs": said_error(centred(model(batch.x)), centred(teacher)),
            "maps": self.weight * (1 - alike).square().mean(),
        }
