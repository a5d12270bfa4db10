"""DeepLIFT with the rescale rule (Shrikumar et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.engine import Smoothed, explained
from trompe.engine.agreement import tolerance
from trompe.engine.apart import apart
from trompe.engine.once import once
from trompe.engine.sweep import relevance_of
from trompe.errors import ModelError
from trompe.explain.base import Method, explainers, pick
from trompe.rules.rescale import rescale_rules
from trompe.types import Explanation


@explainers.register("deeplift")
@dataclass(frozen=True)
class DeepLIFT(Method):
    """``(x - x0)`` times its multipliers; the map adds up to ``g_k(x) - g_k(x0)``.

    An activation's multiplier is its slope between the image and the baseline (equation 8).

    Args:
        baseline: x0, in normalised units: one number for every pixel, or a tensor that broadcasts
            to [B, C, H, W].

    Raises:
        ModelError: if maps do not add up so, which is looked at once per model and shape.
    """

    name = "deeplift"
    baseline: float | Tensor = 0.0

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""

        def method(x: Tensor, keep: bool) -> Explanation:
            if isinstance(self.baseline, Tensor):
                origin = self.baseline.detach().to(x.device, x.dtype).expand_as(x)
            else:
                origin = torch.full_like(x, self.baseline, requires_grad=False)
            batch = x.shape[0]

            def seed(logits: Tensor) -> Tensor:
                pick(logits[:batch], target)  # checks the classes
                upper = torch.zeros_like(logits[:batch]).scatter(1, target.view(-1, 1), 1.0)
                return torch.cat([upper, torch.zeros_like(upper)])

            pairs = torch.cat([x, origin])
            multiplier, logits = relevance_of(model, pairs, seed, lambda _: rescale_rules())
            relevance = (x - origin) * multiplier[:batch]
            if not isinstance(model, Smoothed):
                once(model, self.name, (x,), {}, lambda: _vouch(model, relevance, logits, target))
            return Explanation(relevance, logits[:batch])

        return explained(method, model, x)


def _vouch(model: nn.Module, relevance: Tensor, logits: Tensor, target: Tensor) -> bool:
    """Compare what maps add up to with the difference of the scores, which they have to share out.

    Raises:
        ModelError: if it is something else: the rules take the first half of every activation for
            the images and the second for the baselines, and the model has its batch elsewhere.
    """
    if logits.is_meta:  # has no numbers to compare
        return True
    with apart(), torch.no_grad():
        image, baseline = (half.detach().double() for half in logits.chunk(2))
        expected = (image - baseline).gather(1, target.view(-1, 1)).squeeze(1)
        shares = relevance.detach().double().flatten(1)
        size = shares.abs().sum(dim=1) + expected.abs()
        error = (shares.sum(dim=1) - expected).abs()
        # Scores that hardly differ are told apart by their last digits alone.
        rounding = 16 * torch.finfo(logits.dtype).eps * (image.abs() + baseline.abs()).amax(dim=1)
        right = bool((error <= tolerance(logits) * size + rounding).all())
        if not right and bool(torch.isfinite(shares).all()):
            raise ModelError(
                f"the maps of 'deeplift' do not add up to the difference of the scores on this "
                f"{type(model).__name__}: most likely it computes with the batch in another "
                "dimension than the first (a stack, a transposition); move it there, or explain "
                "with 'integrated_grad'"
            )
    return True
