"""What must stay of the output while the map changes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from trompe.attacks.observation import Observation
from trompe.errors import UsageError
from trompe.outputs import Outputs

What = Literal["class", "softmax", "logits"]

_ALL = 20  # classes whose outputs are all kept within a tolerance
_LARGEST = 10  # of more classes


@dataclass(frozen=True)
class Keep:
    """What of the output stays.

    An iterate whose answer is another one (``Outputs``) never counts, whatever is kept besides.

    Args:
        what: ``class``: that alone; ``softmax`` (the sigmoid of a binary decision and of labels)
            or ``logits``: their change has its price, too.
        tolerance: ``None``, or the largest change that an iterate may have to count, positive: of
            an entry of the softmax or the logits; of a network of more than 20 classes, of the ten
            largest and of the log-sum-exp of the rest. In place of having a price, the output is
            then kept exactly: steps go along the images of equal output, and Newton's method
            brings them back (``level_set.py``).
        outputs: what the logits mean; found by ``manipulate``, or what it is told.

    Raises:
        UsageError: if one of them is out of range.
    """

    what: What = "softmax"
    tolerance: float | None = None
    outputs: Outputs = field(default_factory=Outputs)

    def __post_init__(self) -> None:
        if self.what not in get_args(What):
            raise UsageError(
                f"unknown output to keep '{self.what}': choose from {', '.join(get_args(What))}"
            )
        if self.tolerance is not None:
            if self.what == "class":
                raise UsageError("a kept class has no tolerance: keep 'softmax' or 'logits'")
            if not 0 < self.tolerance < math.inf:
                raise UsageError(f"the tolerance must be positive, not {self.tolerance}")

    def _outputs(self, now: Observation, reference: Observation) -> tuple[Tensor, Tensor]:
        before, after = reference.logits, now.logits
        if self.what == "softmax":
            before, after = (self.outputs.probabilities(logits) for logits in (before, after))
        return before, after

    def error(self, now: Observation, reference: Observation) -> Tensor:
        """Mean squared change of what is kept besides the class, [B]; 0 where nothing is."""
        if self.what == "class":
            return now.logits.new_zeros(len(now.logits))
        before, after = self._outputs(now, reference)
        return (after - before).square().mean(dim=1)

    def kept(self, now: Observation, reference: Observation) -> Tensor:
        """Whether an iterate counts, bool [B]: the answer and the tolerance are kept."""
        good = self.outputs.kept(now.logits, reference.logits)
        if self.tolerance is not None:
            after, before = (
                self.quantities(one.logits, reference.logits) for one in (now, reference)
            )
            good = good & (self.excess(after - before, reference) <= 1)
        return good

    def quantities(self, logits: Tensor, reference: Tensor) -> Tensor:
        """What is kept within the tolerance, differentiable, [B, m].

        All logits where they are not classes, or at most 20; of more, those of the ten largest of
        ``reference`` [B, K], and the log-sum-exp of the rest. For the softmax, less their mean:
        their softmax is that of the logits, and has a derivative where probabilities are 0 or 1
        to rounding.
        """
        if self.outputs.meaning != "classes":
            return logits
        if logits.shape[1] > _ALL:
            largest = reference.topk(_LARGEST, dim=1).indices
            rest = logits.scatter(1, largest, -torch.inf).logsumexp(dim=1, keepdim=True)
            logits = torch.cat([logits.gather(1, largest), rest], dim=1)
        return logits if self.what == "logits" else logits - logits.mean(dim=1, keepdim=True)

    def excess(self, error: Tensor, reference: Observation) -> Tensor:
        """The largest error of the quantities [B, m] as a multiple of the tolerance, [B]."""
        if self.what == "softmax":
            before = self.quantities(reference.logits, reference.logits)
            error = self.outputs.probabilities(before + error) - self.outputs.probabilities(before)
        return error.abs().amax(dim=1) / (math.inf if self.tolerance is None else self.tolerance)


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
