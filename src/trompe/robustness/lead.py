"""An objective together with what it takes to keep the network's answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trompe.attacks.objectives import Explain, Objective
from trompe.attacks.observation import Observation
from trompe.outputs import Outputs

LEAST, WEIGHT = 0.1, 10.0


def lead(logits: Tensor, reference: Tensor, outputs: Outputs) -> Tensor:
    """How far the answer of the reference is from being another one, [B], below 0 if it is.

    Classes: the answer's logit less the largest other. One logit or several labels: the least
    distance of a logit from the threshold, on the reference's side. Values: what is left of the
    tolerance. ``logits`` and ``reference`` are [B, K].
    """
    if outputs.meaning == "classes":
        answer = reference.argmax(dim=1, keepdim=True)
        others = logits.scatter(1, answer, -torch.inf).amax(dim=1)
        return logits.gather(1, answer)[:, 0] - others
    if outputs.meaning == "value":
        allowed = 0.05 * reference.abs().amax(dim=1)
        if outputs.tolerance is not None:
            allowed = torch.full_like(allowed, outputs.tolerance)
        return allowed - (logits - reference).abs().amax(dim=1)
    side = (reference > outputs.threshold).to(logits) * 2 - 1
    return (side * (logits - outputs.threshold)).amin(dim=1)


@dataclass(frozen=True)
class WithAnswer(Objective):
    """``objective + 10 max(0, 0.1 - lead / lead of the original image)``.

    Nothing is paid while the answer is safe, so that the map has all of the change of the image;
    as a share of the original's lead it does not matter how the logits are scaled (a network
    whose logits are multiplied by 10,000 has a flat softmax and hides from prices on it). Scores
    and measures are those of the objective: whether the answer is kept is judged apart.

    Args:
        objective: about the map.
        outputs: what the network's outputs mean.
    """

    objective: Objective
    outputs: Outputs

    def prepare(self, reference: Observation, explain: Explain) -> Objective:
        """See ``Objective``."""
        return WithAnswer(self.objective.prepare(reference, explain), self.outputs)

    def start(self, reference: Observation) -> Tensor | None:
        """See ``Objective``."""
        return self.objective.start(reference)

    def __call__(self, now: Observation, reference: Observation) -> Tensor:
        """The sum, [B]."""
        least = torch.finfo(reference.logits.dtype).tiny
        whole = lead(reference.logits, reference.logits, self.outputs).clamp_min(least)
        share = lead(now.logits, reference.logits, self.outputs) / whole
        return self.objective(now, reference) + WEIGHT * (LEAST - share).clamp_min(0)

    def score(self, now: Observation, reference: Observation) -> Tensor:
        """See ``Objective``."""
        return self.objective.score(now, reference)

    def measures(self, now: Observation, reference: Observation) -> dict[str, Tensor]:
        """See ``Objective``."""
        return self.objective.measures(now, reference)

    @property
    def aim(self) -> Any:
        """See ``Objective``."""
        return self.objective.aim
