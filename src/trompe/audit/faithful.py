"""Whether the maps of a defence are about the network: what is kept of it in a run that has one.

A defence that shows a constant picture withstands every attack. So each attacked cell of a run that
compares a defence with the plain method also says how faithful its clean map is: the areas under
the insertion and the deletion curve (Petsiuk et al. 2018) on the network that decides, and, where
another network is explained in its place, whether that one gives the same answer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trompe.audit.settings import Settings
from trompe.engine import smooth
from trompe.explain import Method
from trompe.explain.beta_smoothing import BetaSmoothing
from trompe.metrics.attack import Outcome
from trompe.metrics.faithfulness import deletion, insertion
from trompe.outputs import Outputs

INSERTION, DELETION = "insertion_area", "deletion_area"
SAME_ANSWER = "smoothed_class_kept"
STEPS = 16  # of each curve: in as many parts the pixels are exchanged


def faithful_names(settings: Settings, outputs: Outputs, *, smoothed: bool) -> set[str]:
    """What is kept of a cell: nothing in a run without a defence, or of outputs without a class.

    Args:
        settings: of the run.
        outputs: what the network's outputs mean.
        smoothed: whether the cell explains a smoothed network.
    """
    if set(settings.smoothings) == {"none"} or outputs.meaning not in ("classes", "binary"):
        return set()
    return {INSERTION, DELETION} | ({SAME_ANSWER} if smoothed else set())


def _smoothed(explainer: object) -> BetaSmoothing | None:
    """What explains a smoothed network in place of the original one, perhaps averaged."""
    while explainer is not None and not isinstance(explainer, BetaSmoothing):
        explainer = getattr(explainer, "base", None)
    return explainer


def faithfulness(
    model: nn.Module, explainer: Method, outcome: Outcome, settings: Settings, outputs: Outputs
) -> dict[str, Tensor]:
    """How faithful the maps of the clean images are, [B] each.

    Args:
        model: the original one, frozen.
        explainer: that made the maps.
        outcome: of the attack; its original images and maps count.
        settings: of the run.
        outputs: what the network's outputs mean.

    Returns:
        The areas, probabilities 0..1 of the explained class: a faithful map has a large one under
        the insertion curve, a small one under the deletion curve. ``smoothed_class_kept`` is 1
        where the smoothed network has the answer of the original one, else 0.
    """
    smoothed = _smoothed(explainer)
    if not faithful_names(settings, outputs, smoothed=smoothed is not None):
        return {}
    place = next(model.parameters(), outcome.x).device
    x, target = outcome.x.to(place), outcome.target_class.to(place)
    heat = outcome.map_original.to(place)
    found = {
        INSERTION: insertion(model, x, heat, target, steps=STEPS).area.cpu(),
        DELETION: deletion(model, x, heat, target, steps=STEPS, baseline="blur").area.cpu(),
    }
    if smoothed is not None:
        with torch.no_grad():
            other = smooth(model, beta=smoothed.beta, pooling=smoothed.pooling)(x)
            found[SAME_ANSWER] = outputs.kept(other, model(x)).to(outcome.x.dtype).cpu()
    return found
