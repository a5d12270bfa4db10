"""A share of images, with what a sample of that size can say about it."""

from __future__ import annotations

from dataclasses import dataclass

from trompe.errors import UsageError


@dataclass(frozen=True)
class Share:
    """``count`` of ``n``, and its exact interval.

    Args:
        count: how many.
        n: of how many.
        low: lower end of the interval, 0..1.
        high: upper end.
        confidence: of the interval.
    """

    count: int
    n: int
    low: float
    high: float
    confidence: float = 0.95

    @property
    def value(self) -> float:
        """The share; not a number of nothing."""
        return self.count / self.n if self.n else float("nan")

    def __str__(self) -> str:
        percent = f"{self.confidence:.0%}".rstrip("%")
        return (
            f"{self.count} of {self.n} ({self.value:.0%}; {percent} % interval "
            f"{self.low:.0%} to {self.high:.0%})"
        )


def share(count: int, n: int, confidence: float = 0.95) -> Share:
    """A share with its Clopper-Pearson interval (1934): quantiles of beta distributions.

    ``low = B(a/2; c, n - c + 1)``, ``high = B(1 - a/2; c + 1, n - c)`` for c of n and ``a = 1 -
    confidence``: of 100 images none of which broke, at most 3.6 % would break.

    Raises:
        UsageError: if there are fewer than 0 or more than n, or the confidence is no share.

    Example:
        >>> found = share(100, 100)
        >>> round(found.low, 3), found.high
        (0.964, 1.0)
    """
    from scipy.stats import beta

    if not 0 <= count <= n:
        raise UsageError(f"{count} of {n} is no share")
    if not 0 < confidence < 1:
        raise UsageError(f"the confidence must be within 0..1, not {confidence}")
    rest = (1 - confidence) / 2
    low = float(beta.ppf(rest, count, n - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - rest, count + 1, n - count)) if count < n else 1.0
    return Share(count, n, low, high, confidence)
