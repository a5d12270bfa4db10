"""What must stay of the output while the map changes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from trompe.attacks.observation import Observation
from trompe.errors import UsageError

What = Literal["class", "softmax", "logits"]


@dataclass(frozen=True)
class Keep:
    """What of the output stays.

    An iterate whose predicted class is another one never counts, whatever is kept besides.

    Args:
        what: ``class``: that alone; ``softmax`` or ``logits``: their change has its price, too.
        tolerance: the largest change of an entry of the softmax or the logits that an iterate may
            have to count, not negative; ``None`` for any.

    Raises:
        UsageError: if one of them is out of range.
    """

    what: What = "softmax"
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.what not in get_args(What):
            raise UsageError(
                f"unknown output to keep '{self.what}': choose from {', '.join(get_args(What))}"
            )
        if self.tolerance is not None:
            if self.what == "class":
                raise UsageError("a kept class has no tolerance: keep 'softmax' or 'logits'")
            if not 0 <= self.tolerance < math.inf:
                raise UsageError(f"the tolerance must not be negative, not {self.tolerance}")

    def _outputs(self, now: Observation, reference: Observation) -> tuple[Tensor, Tensor]:
        before, after = reference.logits, now.logits
        if self.what == "softmax":
            before, after = before.softmax(dim=1), after.softmax(dim=1)
        return before, after

    def error(self, now: Observation, reference: Observation) -> Tensor:
        """Mean squared change of what is kept besides the class, [B]; 0 where nothing is."""
        if self.what == "class":
            return now.logits.new_zeros(len(now.logits))
        before, after = self._outputs(now, reference)
        return (after - before).square().mean(dim=1)

    def kept(self, now: Observation, reference: Observation) -> Tensor:
        """Whether an iterate counts, bool [B]: the class predicted and the tolerance are kept."""
        good = now.logits.argmax(dim=1) == reference.logits.argmax(dim=1)
        if self.tolerance is not None:
            before, after = self._outputs(now, reference)
            good = good & ((after - before).abs().amax(dim=1) <= self.tolerance)
        return good


def as_keep(keep: Keep | str) -> Keep:
    """``keep`` itself, or the one of that name.

    Raises:
        UsageError: if it is neither.
    """
    if isinstance(keep, Keep):
        return keep
    if isinstance(keep, str):
        return Keep(keep)  # type: ignore[arg-type]  # checked there
    raise UsageError(f"keep_output must be a Keep or a name, not {keep!r}")
