"""Whether an explanation is the same for every image, so that nothing could move it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trompe.attacks.observation import Observation, observe
from trompe.explain.base import Method
from trompe.types import Explainer

CONSTANT_MAP = "the map does not depend on the image"
"""Why an attack ends before its first step where no change of the image could change the map."""


def is_constant(
    model: nn.Module, method: Explainer, x: Tensor, target: Tensor, reference: Observation
) -> bool:
    """Whether the images with noise added have the maps that they have, but for rounding.

    That is so for the gradient of a linear model, and for deconvnet without max pooling, whose
    backward pass uses nothing of the forward one. Methods made of masks are not asked: their maps
    are made of outputs, and cost many passes. A model that refuses the noise is taken to depend on
    its image.

    Args:
        model: the one explained, frozen.
        method: the explanation.
        x: images, normalised, [B, C, H, W].
        target: the classes explained, [B].
        reference: what model and method make of the images, on the device of x.
    """
    if isinstance(method, Method) and method.masked:
        return False
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    with torch.no_grad():  # noise alone could be the image: many try theirs with seed 0
        try:
            seen = observe(model, method, x + noise, target)
        except Exception:  # it takes images of some range only, and tells them from others
            return False
    error = (seen.relevance - reference.relevance).abs().max()
    rounding = 100 * torch.finfo(x.dtype).eps * reference.relevance.abs().max()
    return bool(error <= rounding)
