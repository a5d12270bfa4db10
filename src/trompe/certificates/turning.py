"""The change of an image that turns its smoothed map most: power iteration over fresh noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from trompe.attacks.presets import Preset
from trompe.attacks.surrogate import differentiated, surrogate_of
from trompe.certificates.methods.noise import SmoothedMap
from trompe.certificates.noisy_maps import squares, without_lost
from trompe.explain import Method
from trompe.types import InputSpace, relative

_ROUNDS = 5
"""Steps of the power iteration: on ``tiny-vgg-noise`` the fifth gains a few per cent."""
_FURTHER = 2
"""Steps at each further radius, which begin with the direction of the last."""
_AT_ONCE = 16
"""Noisy copies per pass."""


class Turning:
    """Changes of one image that turn its smoothed map, radius by radius.

    At the image itself the correlation is largest and its gradient zero: ascent from there first
    climbs the accidents of its few noisy copies. To first order the smoothed standardised map U
    moves by J d, J its derivative, and what lowers the correlation is the part across U. Its
    largest direction is found by power iteration, ``d = R J^T v / |J^T v|`` and
    ``v = (U(x + d) - U(x)) across U``, each over noise of its own; J is the surrogate's, taken
    at the last x + d, so that large changes are followed as well. v begins as the direction along
    which the maps of noisy copies vary most.

    Args:
        model: The classifier.
        x: The image, [1, C, H, W], normalised.
        target: The class explained, [1].
        method: What is certified: explainer, noise, squares.
        space: The model's normalisation.
        preset: Of the surrogate.
        copies: Noisy copies per derivative and per difference.
        denoise: What is done to a copy before it is explained; see ``Noise``.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor,
        method: SmoothedMap,
        space: InputSpace,
        preset: Preset,
        copies: int,
        denoise: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model, self.x, self.target, self.copies = model, x, target, copies
        self.pool, self.denoise = method.pool, denoise
        self.unit, self.noise = space.scale(1.0, x), space.scale(method.sigma, x)
        base = method.explainer
        known = base if isinstance(base, Method) else None
        self.surrogate: nn.Module = surrogate_of(preset, model, x, method=known) or model
        climbed = differentiated(preset, model, base)  # type: ignore[arg-type]  # was resolved
        self.judged = base.relevance if isinstance(base, Method) else base
        self.climbed = climbed.relevance if isinstance(climbed, Method) else climbed
        self.seed = 0
        self.across: Tensor | None = None

    def __call__(self, radius: float) -> Tensor | None:
        """The image changed by ``radius``, l2 in pixel units; ``None`` where no map can turn."""
        across, rounds = self.across, _FURTHER
        if across is None:
            across, rounds = self._widest(), _ROUNDS
        found: Tensor | None = None
        for _ in range(rounds):
            slope = self._slope(self.x if found is None else found, across) * self.unit
            size = slope.norm()
            if not bool(torch.isfinite(size)) or float(size) == 0:
                break
            found = (self.x + self.unit * (radius / size) * slope).detach()
            self.seed += 1
            here, there = self._units(self.x).mean(0), self._units(found).mean(0)
            across = _across(there - here, here)
            if not across.any():
                break
            self.across = across
        return found

    def _widest(self) -> Tensor:
        """The direction along which the maps of noisy copies vary most, [P]."""
        units = self._units(self.x)
        mean = units.mean(0)
        vectors = torch.linalg.svd(units - mean, full_matrices=False).Vh
        return _across(vectors[0], mean)

    def _units(self, x: Tensor) -> Tensor:
        """Standardised maps of noisy copies, [copies, P]; the same noise until the seed changes."""
        with torch.no_grad():
            points = list(self._copies(x))
        return torch.cat([self._maps(self.judged, self.model, one).detach() for one in points])

    def _slope(self, x: Tensor, across: Tensor) -> Tensor:
        """The derivative of ``<U, across>`` by the image, normalised units, [1, C, H, W]."""
        self.seed += 1
        total = torch.zeros_like(x)
        for points in self._copies(x.detach().requires_grad_(True)):
            score = (self._maps(self.climbed, self.surrogate, points) @ across).sum()
            if score.requires_grad:
                (slope,) = torch.autograd.grad(score, points)
                total += slope.sum(0, keepdim=True)
        return total / self.copies

    def _copies(self, x: Tensor) -> Iterator[Tensor]:
        """Noisy copies in passes, [N, C, H, W], before a denoiser."""
        generator = torch.Generator().manual_seed(self.seed)
        for first in range(0, self.copies, _AT_ONCE):
            shape = (min(_AT_ONCE, self.copies - first), *x.shape[1:])
            noise = torch.randn(shape, generator=generator, dtype=x.dtype).to(x.device)
            yield x + self.noise * noise

    def _maps(self, explain: object, network: nn.Module, points: Tensor) -> Tensor:
        """The standardised maps over squares of N images, [N, P]; 0 where a map is lost."""
        seen = points if self.denoise is None else self.denoise(points)
        found = explain(network, seen, self.target.expand(len(seen)))  # type: ignore[operator]
        found, _ = without_lost(found)
        share = squares(relative(found), self.pool).flatten(1)
        centred = share - share.mean(dim=1, keepdim=True)
        return centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-12)


def _across(direction: Tensor, mean: Tensor) -> Tensor:
    """The part of a direction across a mean, of length 1; 0 where there is none."""
    along = mean / mean.norm().clamp(min=1e-30)
    rest = direction - (direction @ along) * along
    return rest / rest.norm().clamp(min=1e-30)
