"""What the rules of a method need to know of an operation beyond the operation itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from trompe.engine.calls import OpCall


@dataclass(slots=True)
class Notes:
    """Filled in by ``RuleSet.prepare``, before relevance walks the record.

    Args:
        slope: What a batch norm in evaluation mode, or a constant factor, multiplies each channel
            by, [C].
        addend: What a follower other than a batch norm adds.
        moves: What has moved the sums between the linear operation and this follower.
        folded: Whether it is part of a neighbouring linear operation, so that relevance passes it
            unchanged.
        after: What is folded into this linear operation from behind, in the order of execution:
            batch norms, constants added, constant factors.
        shift: What a batch norm folded in from before added to each channel of the input, [C].
        gain: What that batch norm multiplied each channel by, [C].
        outcome: Of a normalisation: what it makes after the weight and the bias that are written
            out behind it, as it lies in its own output, and this weight.
        biased: Whether what it adds belongs to a sum of linear operations before it, as their bias.
        normalised: Of a sum in a batch norm that is written out: what this makes, and what it adds
            to each channel.
        nonnegative: Whether all inputs are known not to be negative. ``False`` means not known.
        bounds: Of an operation that sees the input of the model, moved or rescaled at most: the
            lowest and the highest value that each entry of its own input can have. Both broadcast
            to it.
        selects: Whether a linear operation before the first layers only swaps or rescales: each of
            its outputs takes one input at most.
    """

    slope: Tensor | None = None
    addend: Tensor | float = 0.0
    moves: tuple[OpCall, ...] = ()
    folded: bool = False
    after: tuple[OpCall, ...] = ()
    shift: Tensor | None = None
    gain: Tensor | None = None
    outcome: tuple[Tensor, Tensor | float] | None = None
    biased: bool = False
    normalised: tuple[Tensor, Tensor] | None = None
    nonnegative: bool = False
    bounds: tuple[Tensor, Tensor] | None = None
    selects: bool = False

    @property
    def factor(self) -> Tensor | None:
        """What is folded in from behind multiplies the output channels by this, [C]."""
        slopes = [op.notes.slope for op in self.after if op.notes.slope is not None]
        return math.prod(slopes[1:], start=slopes[0]) if slopes else None

    @property
    def lasts(self) -> bool:
        """Whether ``factor`` is the same tensor in every pass: that of one batch norm alone."""
        slopes = [op for op in self.after if op.notes.slope is not None]
        return len(slopes) == 1 and slopes[0].func is F.batch_norm
