"""The strongest attack found below, every certificate above: where the worst change must lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trompe.certificates.ball import Ball, ball
from trompe.certificates.bounds import QUANTITIES
from trompe.certificates.methods import proved
from trompe.certificates.prepared import Prepared
from trompe.certificates.upper import WIDEN
from trompe.certificates.worst_case import Strongest, change, strongest_change
from trompe.engine import adapted, smooth
from trompe.errors import CertificateError, UsageError
from trompe.explain import explainer
from trompe.in_brief import InBrief
from trompe.per_image import per_image
from trompe.types import InputSpace, Progress


@dataclass(frozen=True)
class Layer:
    """One radius, one beta, one quantity, one image.

    Args:
        image: its index.
        beta: of the softplus network; ``None``: the model as it is.
        quantity: see ``Certificate``.
        radius: of the ball.
        lower: attained by the strongest attack found.
        search: which search found it.
        upper: per method, its bound; empty if the network is not covered.
    """

    image: int
    beta: float | None
    quantity: str
    radius: float
    lower: float
    search: str
    upper: dict[str, float]

    @property
    def best(self) -> float:
        """The smallest bound."""
        return min(self.upper.values(), default=float("inf"))

    @property
    def void(self) -> bool:
        """Whether the bound says nothing: of normals and heat maps, which never differ by more."""
        return self.quantity != "gradient_l2" and self.best >= 2

    @property
    def ratio(self) -> float | None:
        """Upper over lower; ``None`` where the attack found no change."""
        return self.best / self.lower if self.lower > 0 and self.upper else None


@dataclass(frozen=True, repr=False)
class Sandwich(InBrief):
    """All layers, and why there are no certificates, if there are none."""

    layers: tuple[Layer, ...]
    norm: str
    target: tuple[int, ...]
    refused: str | None = None

    def rows(self) -> list[dict[str, Any]]:
        """One JSON-ready object per layer."""
        return [
            {
                "image": layer.image,
                "beta": layer.beta,
                "quantity": layer.quantity,
                "radius": layer.radius,
                "lower": layer.lower,
                "search": layer.search,
                "upper": layer.upper,
                "ratio": layer.ratio,
            }
            for layer in self.layers
        ]


def sandwich(
    model: Any,
    x: Any,
    *,
    radii: Sequence[float],
    betas: Sequence[float | None] = (None, 10.0, 1.0, 0.8),
    norm: str = "l2",
    target: Any = None,
    quantities: Sequence[str] = QUANTITIES,
    restarts: int = 8,
    steps: int = 40,
    samples: int = 64,
    patient: bool = False,
    input_space: InputSpace | None = None,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> Sandwich:
    """Enclose the worst change of the gradient explanation, for each radius and beta.

    The attack at one radius starts from what it found at the smaller ones too, so that the lower
    end never falls. Work in float64: pass a double model and x.

    Args:
        model: as for ``certify``; where it is not covered, only lower ends are given.
        x: [B, ...].
        radii: rising.
        betas: of the softplus networks explained (max pooling smoothed too); ``None`` is the model
            itself.
        norm: ``l1``, ``l2`` or ``linf``.
        target: class of each image; by default the one the model itself predicts.
        quantities: see ``Certificate``.
        restarts: and the next two: see ``strongest_change``.
        steps: of each ascent.
        samples: random points.
        patient: also linearise large networks, for the bound by ``telescope``: for a network like
            tiny-vgg a quarter of an hour per image and beta, for all radii.
        input_space: the model's normalisation; radii then are in pixel units (0..1), else in units
            of x. The attack stays in a ball that the pixel ball holds, the bound is of one that
            holds the pixel ball: channels of unlike ``std`` widen the gap by their spread.
        generator: of the attack.
        progress: called after every radius.

    Raises:
        UsageError: if the radii do not rise or a quantity is unknown.
    """
    if not radii or radii[0] <= 0 or sorted(set(radii)) != list(radii):
        raise UsageError("radii must be positive and rising")
    unknown = [name for name in quantities if name not in QUANTITIES]
    if unknown:
        raise UsageError(f"unknown quantity '{unknown[0]}': choose from {', '.join(QUANTITIES)}")
    given = adapted(model, x, evaluation=True)
    judge, x, target = given.model, given.x, given.target(target)
    layers: list[Layer] = []
    refused: str | None = None
    space = input_space or given.space
    inner, outer = (1.0, 1.0) if space is None else (max(space.std), min(space.std))
    done, total = 0, len(x) * len(betas) * len(radii)
    for image in range(len(x)):
        one, classes = x[image : image + 1], target[image : image + 1]
        for beta in betas:
            network = judge if beta is None else smooth(judge, beta=beta, pooling=True)
            found: dict[str, list[Tensor]] = {name: [] for name in quantities}
            prepared: Prepared | None = None
            try:
                prepared = Prepared(network, one, int(classes)) if refused is None else None
            except CertificateError as error:
                refused = str(error)
            for radius in radii:
                bounds: dict[str, dict[str, float]] = {}
                if prepared is not None:
                    bounds = _every_bound(prepared, ball(radius / outer * WIDEN, norm), patient)
                attacks: dict[str, Strongest] = {}
                for name in quantities:
                    attacks[name] = strongest_change(
                        network,
                        one,
                        radius=radius / inner,
                        norm=norm,
                        target=classes,
                        quantity=name,
                        restarts=restarts,
                        steps=steps,
                        samples=samples,
                        starts=_starts(found, ball(radius / inner, norm)),
                        generator=generator,
                    )
                for name, attack in attacks.items():
                    found[name].append(attack.x_adv - one)
                for name in quantities:
                    lower, search = _largest(network, one, classes, name, attacks)
                    upper = {method: own[name] for method, own in bounds.items()}
                    layers.append(Layer(image, beta, name, float(radius), lower, search, upper))
                done += 1
                if progress is not None:
                    progress(done, total, {"radius": radius})
    return Sandwich(tuple(layers), norm, tuple(target.tolist()), refused)


def _largest(
    network: nn.Module, x: Tensor, target: Tensor, quantity: str, attacks: dict[str, Strongest]
) -> tuple[float, str]:
    """The largest change of a quantity at the points that all attacks found."""
    gradient = explainer("gradient")
    before = gradient(network, x, target)
    best, search = float(attacks[quantity].change), attacks[quantity].search[0]
    for aim, attack in attacks.items():
        after = gradient(network, attack.x_adv.to(x), target)
        value = float(torch.nan_to_num(change(quantity, after, before), nan=0.0).detach())
        if value > best:
            best, search = value, f"{attack.search[0]}, aimed at {aim}"
    return best, search


def _starts(found: dict[str, list[Tensor]], within: Ball) -> Tensor | None:
    """What was found so far, as it is and stretched to the new radius, [1, S, ...]."""
    offsets = [offset for rows in found.values() for offset in rows[-2:]]
    if not offsets:
        return None
    known = torch.cat(offsets)
    size = per_image(within.norm.size(known).clamp(min=1e-300), known)
    return torch.cat([known, known * (within.radius / size)]).unsqueeze(0)


def _every_bound(prepared: Prepared, within: Ball, patient: bool) -> dict[str, dict[str, float]]:
    """What each method that applies gives for one image: method, quantity, bound.

    ``telescope`` is left out where it takes more than seconds, unless one is ``patient``.
    """
    bounds = proved(prepared, within, "frobenius").bounds
    bounds |= proved(prepared, within, "best").bounds
    if patient and "telescope" not in bounds:
        bounds |= proved(prepared, within, "telescope").bounds
    return bounds
