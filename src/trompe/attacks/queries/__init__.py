"""Attackers that only ask questions, without derivatives: one file each, found by name."""

from trompe.attacks.queries.base import Answer, Queries, QueryAttacker, Spent, query_attackers
from trompe.attacks.queries.estimators import NES, SPSA
from trompe.attacks.queries.genetic import Genetic
from trompe.attacks.queries.square import Square

__all__ = [
    "NES",
    "SPSA",
    "Answer",
    "Genetic",
    "Queries",
    "QueryAttacker",
    "Spent",
    "Square",
    "query_attackers",
]
