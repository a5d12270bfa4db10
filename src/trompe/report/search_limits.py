"""What the attacks and the search for the worst case of a run leave open, in words."""

from __future__ import annotations


def limit_of(budget: float | None) -> str:
    """What the shares of robust maps mean, given the budget of the search."""
    if budget is None:
        return (
            "the strongest of the attacks of this run, not the ensemble of 'trompe robustness': a "
            "share of robust maps is an upper bound"
        )
    return (
        f"shares: the ensemble of 'trompe robustness' on every image, {budget:g} of its steps and "
        "queries, and the attacks of this run: a share of robust maps is an upper bound; extremes: "
        "the attacks alone"
    )


def not_searched(budget: float | None) -> str:
    """What was not looked for of the worst case; nothing after a search with the whole budget."""
    if budget is None:
        return "the worst case that an ensemble of attacks finds: 'trompe robustness'"
    if budget < 1:
        return (
            f"the worst case with more than {budget:g} of the steps and queries of 'trompe "
            "robustness', and by other measures than the correlation"
        )
    return "the worst case by other measures than the correlation: 'trompe robustness'"
