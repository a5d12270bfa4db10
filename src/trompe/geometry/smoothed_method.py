"""A method's name, a smoothing and some options made into one object: the one place for it.

It lies here, above the methods themselves, because SmoothGrad "of the strength of a beta" needs
Theorem 2 of Dombrowski et al. 2019, which is about the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from trompe.errors import UsageError
from trompe.explain import Method, explainer, explainers, fitted
from trompe.geometry.comparison import matching_sigma
from trompe.types import LoadedModel

#: Methods that are smoothings of others: asked for as a smoothing, not as a method.
WRAPPERS = ("beta_smoothing", "smoothgrad")
#: The word for no smoothing, where there must be one: in tables, files and options.
PLAIN = "none"
#: No beta and no number of samples is larger.
_LARGEST = 1e6


@dataclass(frozen=True)
class Smoothing:
    """How an explanation is smoothed; an explanation that is not has ``None`` in its place.

    Args:
        beta: of the softplus network that is explained, positive.
        samples: noisy copies that SmoothGrad averages over, at least 1.
        strength: the beta whose smoothing SmoothGrad's noise resembles (Theorem 2); SmoothGrad's
            own noise if not given.

    Raises:
        UsageError: if nothing is smoothed, or a number is out of range.
    """

    beta: float | None = None
    samples: int | None = None
    strength: float | None = None

    def __post_init__(self) -> None:
        if self.beta is None and self.samples is None:
            raise UsageError("a smoothing needs a beta or a number of samples")
        if self.strength is not None and self.samples is None:
            raise UsageError("the strength of a beta goes with a number of samples")
        for beta in (self.beta, self.strength):
            if beta is not None and not 0 < beta < math.inf:
                raise UsageError(f"beta must be positive and finite, not {beta}")
        if self.samples is not None and not 1 <= self.samples <= _LARGEST:
            raise UsageError(
                f"the samples of SmoothGrad must be 1 to {_LARGEST:.0f}, not {self.samples}"
            )

    @classmethod
    def parse(cls, words: str) -> Smoothing | None:
        """What ``none``, ``beta=0.8``, ``smoothgrad=10`` or ``smoothgrad=10-beta=0.8`` mean.

        Raises:
            UsageError: if the words are others.
        """
        if words == PLAIN:
            return None
        kind, equals, rest = words.partition("=")
        number, mark, strength = rest.partition("-beta=")
        try:
            if kind == "beta" and equals and not mark:
                return cls(beta=_number(number))
            if kind == "smoothgrad" and equals:
                samples = _number(number)
                if samples == int(samples):
                    return cls(samples=int(samples), strength=_number(strength) if mark else None)
        except (ValueError, OverflowError, UsageError):
            pass
        raise UsageError(
            f"unknown smoothing '{words}': choose 'none', 'beta=0.8', 'smoothgrad=10' or "
            "'smoothgrad=10-beta=0.8' (of the strength of that beta)"
        )

    def __str__(self) -> str:
        """The words that ``parse`` understands, as far as there are such."""
        words = []
        if self.samples is not None:
            words.append(f"smoothgrad={self.samples}")
            if self.strength is not None:
                words.append(f"beta={self.strength!r}")
        if self.beta is not None:
            words.append(f"beta={self.beta!r}")
        return "-".join(words)

    def over(self, base: Method, loaded: LoadedModel, seed: int) -> Method:
        """The smoothed form of a method.

        Args:
            base: the method.
            loaded: the model that it explains.
            seed: of SmoothGrad's noise.
        """
        method = base
        if self.beta is not None:
            method = explainer("beta_smoothing", base=method, beta=self.beta)
        if self.samples is not None:
            sigma = None if self.strength is None else _sigma(loaded, self.strength)
            method = explainer(
                "smoothgrad", base=method, samples=self.samples, seed=seed, sigma=sigma
            )
        return method


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number) or number >= _LARGEST:
        raise ValueError(text)
    return number


def _sigma(loaded: LoadedModel, beta: float) -> float:
    """Theorem 2's choice; the same for every image, since it is about the first layer alone."""
    place = next(loaded.model.parameters(), torch.empty(0))
    shape = (1, len(loaded.input_space.mean), loaded.size, loaded.size)
    return matching_sigma(loaded.model, place.new_zeros(shape), beta)


def words_for(smoothing: Smoothing | None) -> str:
    """A smoothing in words; ``none`` for none."""
    return PLAIN if smoothing is None else str(smoothing)


def check_plain(name: str) -> None:
    """Raise a UsageError if ``name`` is no explanation method, or one that smooths another."""
    if name in WRAPPERS:
        raise UsageError(f"'{name}' is a smoothing: ask for it as 'beta=0.8' or 'smoothgrad=10'")
    explainers[name]


def make_method(
    name: str,
    loaded: LoadedModel,
    *,
    smoothing: Smoothing | None = None,
    patterns: str | None = None,
    seed: int = 0,
    chunk: int | None = None,
) -> Method:
    """The explanation method called ``name``, for a model.

    Args:
        name: of the method.
        loaded: the model; its input space and patterns go to the methods that need them.
        smoothing: of the explanation, if any.
        patterns: file of learned patterns, in place of those that come with the model.
        seed: of the noise of methods and of SmoothGrad.
        chunk: how many copies are held in memory at once, where a method averages over many.

    Raises:
        TrompeError: if the name is unknown, an option is out of range, or the patterns cannot be
            used.
    """
    method = fitted(name, loaded, patterns=patterns, seed=seed)
    if smoothing is not None:
        method = smoothing.over(method, loaded, seed)
    return method if chunk is None else method.holding(chunk)
