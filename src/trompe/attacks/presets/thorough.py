"""The default given twelve times the steps."""

from __future__ import annotations

from dataclasses import replace

from trompe.attacks.presets.base import RELEVANCE, SIGNALS, Preset, innermost, presets
from trompe.attacks.presets.fast import fast
from trompe.explain.base import Method


@presets.register("thorough")
def thorough(method: Method, height: int) -> Preset:
    """``fast`` with the time that the paper's own code takes: twelve times as many steps.

    For gradients so many steps keep the output by themselves: a tenth of ``fast``'s weight on it
    suffices. For relevance and signals that was measured to be worse (``benchmarks/README.md``).
    """
    base = replace(fast(method, height), iterations=2400)
    if innermost(method).name in (*RELEVANCE, *SIGNALS):
        return base
    c1, c2 = base.prefactors
    return replace(base, prefactors=(c1, c2 / 10))
