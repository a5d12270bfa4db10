"""How robust explanations are: the worst case of an ensemble of attacks, and one honest number."""

from trompe.callable_package import make_callable
from trompe.robustness.controls import Control, floor
from trompe.robustness.doubts import MEANING
from trompe.robustness.ensemble import auto_attack, ball_of
from trompe.robustness.evaluation import STATUS, Evaluation
from trompe.robustness.likeness import MEASURES, chance, compare
from trompe.robustness.many_images import evaluate
from trompe.robustness.probability import misleading_probability
from trompe.robustness.result import RobustnessResult, joined
from trompe.robustness.shares import Share, share
from trompe.robustness.subset_simulation import Probability
from trompe.robustness.transfers import Transfer, transfer

__all__ = [
    "MEANING",
    "MEASURES",
    "STATUS",
    "Control",
    "Evaluation",
    "Probability",
    "RobustnessResult",
    "Share",
    "Transfer",
    "auto_attack",
    "ball_of",
    "chance",
    "compare",
    "evaluate",
    "floor",
    "joined",
    "misleading_probability",
    "share",
    "transfer",
]

make_callable(__name__)
