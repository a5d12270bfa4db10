"""The rules of layer-wise relevance propagation for what has no weights, and those of the user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trompe.engine.sweep import Rule
from trompe.rules.general import ELEMENTWISE, MOVING, PRODUCTS
from trompe.rules.passing import ACTIVATIONS, MAXIMA, STRUCTURE

RULES: dict[Callable[..., Any], Rule] = {}
"""Rules of your own, which take precedence in every composite: ``RULES[function] = rule``."""

SHARED: dict[Callable[..., Any], Rule] = {
    **PRODUCTS,
    **MOVING,
    **ELEMENTWISE,
    **ACTIVATIONS,
    **STRUCTURE,
    **MAXIMA,
}
"""The rules that all composites share: of activations, gates, and what moves or selects values."""
