"""What the rules of a method need to know of an operation beyond the operation itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from trompe.engine.tape import OpCall


@dataclass(slots=True)
class Notes:
    """Filled in by ``RuleSet.prepare``, before relevance walks the record.

    Args:
        slope: What a batch norm in evaluation mode multiplies each channel by, [C].
        folded: Whether a batch norm is part of a neighbouring linear operation, so that relevance
            passes it unchanged.
        after: The batch norm folded into this linear operation from behind.
        shift: What a batch norm folded in from before added to each channel of the input, [C].
        gain: What that batch norm multiplied each channel by, [C].
        nonnegative: Whether all inputs are known not to be negative. ``False`` means not known.
        bounds: Of an operation that sees the input of the model, moved or rescaled at most: the
            lowest and the highest value that each entry of its own input can have. Both broadcast
            to it.
        selects: Whether a linear operation before the first layers only swaps or rescales: each of
            its outputs takes one input at most.
    """

    slope: Tensor | None = None
    folded: bool = False
    after: OpCall | None = None
    shift: Tensor | None = None
    gain: Tensor | None = None
    nonnegative: bool = False
    bounds: tuple[Tensor, Tensor] | None = None
    selects: bool = False

    @property
    def factor(self) -> Tensor | None:
        """What the batch norm folded in from behind multiplies the output channels by, [C]."""
        return None if self.after is None else self.after.notes.slope
