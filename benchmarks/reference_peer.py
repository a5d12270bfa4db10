"""The attack step of the paper's own code, imported from a clone, never copied."""

from __future__ import annotations

import contextlib
import copy
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import Contender, optimised, paper_loss
from problem import PAPER, Problem
from torch import Tensor, nn

from trompe.types import IMAGENET_MEAN, IMAGENET_STD

_CLASSES = 1000
"""As many the code is written for."""


def reference(folder: Path, task: Problem) -> Contender | None:
    """One image at a time, for networks laid out as VGG and the six methods of the paper.

    Args:
        folder: a clone of pankessel/adv_explanation_ref.
        task: what is to be done.
    """
    laid_out = hasattr(task.model, "features") and hasattr(task.model, "classifier")
    if task.method not in PAPER or not laid_out or len(task.x) > 1:
        return None
    if str(folder / "src") not in sys.path:
        sys.path.insert(0, str(folder / "src"))
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            from nn.enums import ExplainingMethod
            from nn.networks import ExplainableNet
            from nn.utils import clamp, get_expl

            net = ExplainableNet(widened(task.model), data_mean=mean, data_std=std).eval()
            net.to(task.x.device, task.x.dtype)
            net.change_beta(task.beta)
            _take_patterns(net, task)
            kind = getattr(ExplainingMethod, task.method)
            get_expl(net, task.x.clone(), kind)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        print(f"reference: {task.method} not measured: {error}", file=sys.stderr)
        return None

    def loss(image: Tensor) -> Tensor:
        heat, output, _ = get_expl(net, image, kind, desired_index=task.target)
        return paper_loss(task, heat, output[:, : task.was.shape[1]])

    return optimised(task, loss, clamp=lambda data: clamp(data, mean, std))


def widened(model: nn.Module) -> nn.Module:
    """A copy with 1000 classes; those added are never predicted and take no probability."""
    model = copy.deepcopy(model)
    last: Any = model.classifier[-1]
    if isinstance(last, nn.Linear) and last.out_features < _CLASSES:
        wide = nn.Linear(last.in_features, _CLASSES).to(last.weight)
        with torch.no_grad():
            wide.weight.zero_()
            wide.bias.fill_(-1e4)
            wide.weight[: last.out_features] = last.weight
            wide.bias[: last.out_features] = last.bias
        model.classifier[-1] = wide
    return model


def _take_patterns(net: Any, task: Problem) -> None:
    """Give the layers the patterns of the problem, in place of learning them."""
    if not task.patterns:
        return
    layers = [layer for layer in net.layers if hasattr(layer, "pattern")]
    for layer, pattern in zip(layers, task.patterns.values(), strict=True):
        rows = layer.pattern.shape[0]
        grown = pattern.new_zeros(rows, *pattern.shape[1:])
        grown[: len(pattern)] = pattern
        layer.pattern = grown
