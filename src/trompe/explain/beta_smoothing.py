"""beta-smoothing as a defence: explain the softplus network, decide with the original one."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from trompe.engine import explained, smooth
from trompe.engine.smoothing import check_beta
from trompe.explain.base import Method, explainers
from trompe.explain.gradient import Gradient
from trompe.types import Explanation


@explainers.register("beta_smoothing")
@dataclass(frozen=True)
class BetaSmoothing(Method):
    """The map of the smoothed model, together with the logits of the model as it is.

    The output that a user acts on stays that of the original network; only its explanation is
    smoothed (Dombrowski et al. 2019). The two need a forward pass each.

    Args:
        base: the method that explains the smoothed model.
        beta: of the softplus, positive; 0.8 in the paper's experiments.
        pooling: multiple of beta at which max pooling is smoothed too, or whether it is; 0 leaves
            it, as the paper.

    Raises:
        UsageError: if beta is not positive.
    """

    name = "beta_smoothing"
    base: Method = field(default_factory=Gradient)
    beta: float = 0.8
    pooling: bool | float = 0.0

    def __post_init__(self) -> None:
        check_beta(self.beta)

    def with_hard_cut(self) -> Method:
        """The method itself: its own map is that of a smoothed network, and cut smoothly."""
        return self

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""

        def method(x: Tensor, keep: bool) -> Explanation:
            smoothed = smooth(model, beta=self.beta, pooling=self.pooling)
            return Explanation(self.base.relevance(smoothed, x, target), model(x))

        return explained(method, model, x)
