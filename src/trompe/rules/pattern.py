"""Pattern attribution: the gradient with every weight multiplied by its learned pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from trompe.engine.smoothing import unwrapped
from trompe.engine.sweep import RuleSet, vjp
from trompe.engine.tape import OpCall
from trompe.errors import PatternError
from trompe.rules.linear import LINEAR, memo, transposed, weight_of


def pattern_rules(
    model: nn.Module, patterns: Mapping[str, Tensor], *, signal: bool = False
) -> RuleSet:
    """The rules for a model and its patterns (Kindermans et al. 2018).

    Args:
        model: names the parameters.
        patterns: by parameter name, of the parameter's shape.
        signal: whether patterns take the place of the weights (PatternNet) instead of being
            multiplied with them (pattern attribution).
    """
    names = {id(p): n for n, p in unwrapped(model).named_parameters()}

    def attributed(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
        weight = weight_of(op)
        name = names.get(id(weight))
        if name is None or name not in patterns:
            raise PatternError(
                f"no pattern for the weight '{name or op.name}': learn them with "
                "'trompe patterns' for this very model"
            )
        pattern = patterns[name]
        if pattern.shape != weight.shape:
            raise PatternError(
                f"the pattern of '{name}' has the shape {tuple(pattern.shape)}, the weight "
                f"{tuple(weight.shape)}: the patterns are another model's"
            )

        def part(w: Tensor) -> Tensor:
            stored = pattern.to(w.device, w.dtype)
            return stored if signal else w * stored

        product = memo(weight, f"pattern {signal} {id(pattern)}", part, pattern)
        return [transposed(op, relevance, product)]

    def refused(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
        raise PatternError(
            f"pattern attribution is not defined for {op.name} at call {op.index}: fold batch "
            "norms into the layers before them first"
        )

    return RuleSet(
        "pattern",
        {**dict.fromkeys(LINEAR, attributed), F.batch_norm: refused},
        default=vjp,
        of_logits=True,
    )
