"""Attention rollout (Abnar and Zuidema 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.engine import explained, record
from trompe.engine.tape import Tape
from trompe.errors import UnsupportedOp, UsageError
from trompe.explain.base import Method, explainers, pick
from trompe.rules.products import SOFTMAX
from trompe.types import Explanation


@explainers.register("attention_rollout")
@dataclass(frozen=True)
class AttentionRollout(Method):
    """The product over the layers of ``share A + (1 - share) I``, A the heads' mean.

    The row of the class token (or the mean over all places, where there is none) is laid out as
    the grid of patches and scaled up to the image; every channel holds the same picture, divided
    by their number. It is the same for every class.

    Args:
        share: of attention beside the residual connection, 0..1.

    Raises:
        UsageError: if the share is out of range.
        UnsupportedOp: when called, if the model has no attention over all its patches.
    """

    name = "attention_rollout"
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(f"share must be above 0 and at most 1, not {self.share}")

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""

        def method(x: Tensor, keep: bool) -> Explanation:
            tape, logits = record(model, x)
            pick(logits, target)  # checks the classes
            layers = self._attention(tape, model, x)
            rollout: Tensor | None = None
            same = torch.eye(layers[0].shape[-1], dtype=x.dtype, device=x.device)
            for weights in layers:
                mixed = self.share * weights.mean(dim=1) + (1 - self.share) * same
                rollout = mixed if rollout is None else mixed @ rollout
            assert rollout is not None  # there is at least one layer
            extra, height, width = self._grid(rollout.shape[-1], x)
            row = rollout[:, 0, extra:] if extra else rollout.mean(dim=1)
            grid = row.unflatten(1, (1, height, width))
            picture = F.interpolate(grid, size=x.shape[2:], mode="bilinear", align_corners=False)
            return Explanation(picture.expand_as(x) / x.shape[1], logits)

        return explained(method, model, x)

    @staticmethod
    def _attention(tape: Tape, model: nn.Module, x: Tensor) -> list[Tensor]:
        """The attention [B, heads, N, N] of every layer, in order."""
        found = [
            op.out
            for op in tape.calls
            if op.func in SOFTMAX
            and op.out.dim() == 4
            and op.out.shape[-1] == op.out.shape[-2]
            and op.argument(1, "dim") in (-1, 3)
        ]
        sizes = {weights.shape[-1] for weights in found}
        if x.dim() != 4 or len(sizes) != 1 or any(w.shape[0] != x.shape[0] for w in found):
            raise UnsupportedOp(
                type(model).__name__,
                "the model",
                "attention_rollout",
                "has no attention over all its patches [B, heads, N, N]",
            )
        return found

    @staticmethod
    def _grid(places: int, x: Tensor) -> tuple[int, int, int]:
        """How many tokens come before the patches, and the rows and columns of these."""
        for extra in (1, 0, 2, 5, 3, 4):
            patches = places - extra
            height = round(math.sqrt(max(patches, 1) * x.shape[2] / x.shape[3]))
            if height and patches == height * round(height * x.shape[3] / x.shape[2]):
                return extra, height, patches // height
        raise UnsupportedOp(
            f"attention over {places} places", "the model", "attention_rollout", "is on no grid"
        )
