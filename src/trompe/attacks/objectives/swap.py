"""The map becomes that of another class on the same image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trompe.attacks.objectives.base import Explain, objectives
from trompe.attacks.objectives.shift import TowardsOwnMap
from trompe.attacks.observation import Observation
from trompe.errors import UsageError


@objectives.register("swap")
@dataclass(frozen=True)
class Swap(TowardsOwnMap):
    """Reach the map that explains another class (Heo et al. 2019, "active fooling", on inputs).

    Args:
        to: that class, one for all images or int64 [B]; by default the one with the second largest
            logit.
        aimed: see ``TowardsOwnMap``.

    Raises:
        UsageError: when prepared, if there is no such class, or only one output.
    """

    aimed: Tensor | None = None
    to: Tensor | int | None = None

    def prepare(self, reference: Observation, explain: Explain) -> Swap:
        """See ``Objective``."""
        logits = reference.logits
        if self.to is None:
            if logits.shape[1] == 1:
                raise UsageError(
                    "swap: the model has one output, so there is no other class whose map could "
                    "be reached; choose another objective, such as unlike"
                )
            other = logits.topk(2, dim=1).indices[:, 1]
        else:
            given = torch.as_tensor(self.to, dtype=torch.int64)
            other = given.to(logits.device).expand(len(logits)).clone()
        return replace(self, aimed=explain(reference.x, other).detach())
