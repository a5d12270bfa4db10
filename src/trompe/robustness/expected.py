"""The mean explanation over several draws, for models and methods that answer by chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trompe.explain.base import Method
from trompe.types import Explainer, Explanation

DRAWS = 20
"""As in AutoAttack's version ``rand`` (Croce and Hein 2020), there for the gradient alone."""


@dataclass(frozen=True, eq=False)
class Expected(Method):
    """``mean_i map_i(x)``, ``mean_i logits_i(x)`` over fresh draws, in gradients and in verdicts.

    A method with a seed of its own gets another one for each draw, so that no verdict is given on
    the numbers that the attack has used.

    Args:
        base: the method, or any explainer.
        times: how many draws.
        generator: of the seeds.
    """

    base: Any
    times: int = DRAWS
    generator: torch.Generator | None = None

    name = "expected"

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""
        maps, logits = [], []
        for _ in range(self.times):
            found = _one(self._redrawn(), model, x, target)
            maps.append(found.map)
            logits.append(found.logits)
        return Explanation(torch.stack(maps).mean(dim=0), torch.stack(logits).mean(dim=0))

    def _redrawn(self) -> Explainer:
        if not isinstance(self.base, Method):
            return self.base  # type: ignore[no-any-return]  # any explainer
        seed = int(torch.randint(2**31, (1,), generator=self.generator))
        return self.base.redrawn(seed)


def _one(explainer: Explainer, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
    if isinstance(explainer, Method):
        return explainer.explain(model, x, target)
    return Explanation(explainer(model, x, target), model(x))
