"""The attack step of the paper's own code."""

from __future__ import annotations

import sys
from pathlib import Path

from peers import Contender, optimised, paper_loss
from problem import PAPER, Problem
from reference_code import Reference
from torch import Tensor


def reference(folder: Path, task: Problem) -> Contender | None:
    """One image at a time, for networks laid out as VGG and the six methods of the paper.

    Args:
        folder: a clone of pankessel/adv_explanation_ref.
        task: what is to be done.
    """
    laid_out = hasattr(task.model, "features") and hasattr(task.model, "classifier")
    if task.method not in PAPER or not laid_out or len(task.x) > 1:
        return None
    try:
        code = Reference(folder, task.model)
        code.net.change_beta(task.beta)
        if task.patterns:
            code.take_patterns(list(task.patterns.values()))
        code.explain(task.x.clone(), task.method)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        print(f"reference: {task.method} not measured: {error}", file=sys.stderr)
        return None

    def loss(image: Tensor) -> Tensor:
        heat, output, _ = code.explain(image, task.method, task.target)
        return paper_loss(task, heat, output[:, : task.was.shape[1]])

    return optimised(task, loss, clamp=code.clamp)
