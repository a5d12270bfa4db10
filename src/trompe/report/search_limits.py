"""What the attacks and the search for the worst case of a run leave open, in words."""

from __future__ import annotations


def limit_of(budget: float | None) -> str:
    """What the shares of robust maps mean, given the budget of the search."""
    if budget is None:
        return (
            "The shares follow from the attacks of this run alone, not from the ensemble of "
            "'trompe robustness': a share of robust maps is an upper bound."
        )
    return (
        "The shares follow from the attacks of this run and from the ensemble of 'trompe "
        f"robustness' on every image, with {budget:g} times its steps and queries: a share of "
        "robust maps is an upper bound. The worst single results are those of the attacks of this "
        "run alone."
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
