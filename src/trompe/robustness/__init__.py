"""How robust explanations are: the worst case of an ensemble of attacks, and one honest number."""

from trompe.robustness.doubts import MEANING
from trompe.robustness.ensemble import auto_attack, ball_of
from trompe.robustness.likeness import MEASURES, chance, compare
from trompe.robustness.result import RobustnessResult, joined
from trompe.robustness.share import Share, share

__all__ = [
    "MEANING",
    "MEASURES",
    "RobustnessResult",
    "Share",
    "auto_attack",
    "ball_of",
    "chance",
    "compare",
    "joined",
    "share",
]
