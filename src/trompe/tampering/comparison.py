"""Does a model explain itself differently from the one it claims to be?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trompe.engine import adapted, frozen
from trompe.errors import ExplanationError, UsageError
from trompe.explain import Method, as_explainer
from trompe.in_brief import InBrief
from trompe.input_space import InputSpace
from trompe.metrics import pcc, softmax_l2
from trompe.tampering.base import centred
from trompe.types import Explainer, relative

SUSPECT = 1.5
"""From this suspicion on a model is called suspect: the largest of eleven honest copies of one
network was 1.2 (``benchmarks/tampering.py``)."""
_ROLES = ("the model", "its reference")
_FLOOR = 0.05
"""Of the outputs' difference: what rounding and quantising do to outputs and maps alike."""


@dataclass(frozen=True, repr=False)
class Comparison(InBrief):
    """A model beside the one it claims to be, on the same images.

    Args:
        images: How many.
        same_answer: Share of the images with the same predicted class.
        softmax_l2: Mean Euclidean distance of the class probabilities.
        outputs: Root mean square difference of the logits, as a share of the reference's own
            spread: 0 where they are equal, about 1 where they have nothing in common. What is added
            to all classes alike does not count: no probability shows it, and fairwashing hides its
            map there.
        maps: By method, the correlation of both models' heat maps, [B].
        off_the_data: The share of the squared difference of the gradients that lies off the span of
            the images (their differences from their mean), 0..1: a change of the model that the
            data cannot show.
    """

    images: int
    same_answer: float
    softmax_l2: float
    outputs: float
    maps: dict[str, Tensor]
    off_the_data: float

    def median(self, method: str) -> float:
        """The median correlation of a method's maps."""
        return float(self.maps[method].median())

    @property
    def suspicion(self) -> float:
        """How much more unlike the maps are than the outputs: the largest over the methods.

        ``(1 - median PCC) / (outputs + 0.05)``. An honest copy that was trained anew differs in
        both, a quantised one in neither; one that was tampered with says the same and shows
        something else.
        """
        return max((1 - self.median(name)) / (self.outputs + _FLOOR) for name in self.maps)

    @property
    def suspect(self) -> bool:
        """Whether the maps are more unlike than honest copies' were."""
        return self.suspicion >= SUSPECT

    def verdict(self) -> str:
        """One sentence, and what it rests on."""
        worst = min(self.maps, key=self.median)
        facts = (
            f"{self.same_answer:.0%} of {self.images} images get the same class, the {worst} maps "
            f"correlate at {self.median(worst):.2f} (median), suspicion {self.suspicion:.1f} "
            f"(suspect from {SUSPECT:g})"
        )
        if self.suspect:
            return f"SUSPECT: both models say the same and explain it differently: {facts}."
        if 1 - self.median(worst) < 0.2:
            return f"Both models explain themselves alike: {facts}."
        return (
            f"The models explain themselves differently, as two honest ones may whose outputs "
            f"differ so much: {facts}."
        )


def compare(
    model: Any,
    reference: Any,
    x: Any,
    *,
    methods: Sequence[str | Explainer] = ("gradient", "grad_times_input", "lrp"),
    target: Any = None,
    input_space: InputSpace | None = None,
    batch_size: int = 32,
) -> Comparison:
    """Compare a model's outputs and explanations with those of the model it claims to be.

    The signature of a model that was tampered with (fairwashed, Anders et al. 2020) is equal output
    and unlike maps. A backdoor shows at images with its trigger only.

    Args:
        model: The one to be checked, [B, C, H, W] -> [B, K], or a ``LoadedModel``.
        reference: The one it claims to be, with the same classes.
        x: Images, normalised, [B, C, H, W]; 20 or more.
        methods: The explanations compared, names or objects.
        target: Class of each image; by default the one the reference predicts.
        input_space: The models' normalisation; a ``LoadedModel`` brings its own.
        batch_size: Images per pass.

    Raises:
        UsageError: If the models have other classes, or there is no method.
        ExplanationError: If an output or a map of either model is no number.

    Example:
        >>> import torch, trompe
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> found = trompe.compare(net, net, torch.rand(4, 3, 2, 2), methods=["gradient"])
        >>> found.suspicion, found.suspect
        (0.0, False)
    """
    if not methods:
        raise UsageError("give at least one method")
    given, other = adapted(model, x, evaluation=True), adapted(reference, x, evaluation=True)
    space = input_space or given.space or other.space or InputSpace()
    pair = (frozen(given.model), frozen(other.model))
    parts = given.x.split(batch_size)
    with torch.no_grad():
        logits = [torch.cat([net(part) for part in parts]) for net in pair]
    for who, found in zip(_ROLES, logits, strict=True):
        _all_numbers(found, f"the output of {who}")
    if logits[0].shape != logits[1].shape:
        raise UsageError(
            f"the models have {logits[0].shape[1]} and {logits[1].shape[1]} classes: compare "
            "models of the same classes"
        )
    classes = other.target(target)
    maps: dict[str, Tensor] = {}
    for entry in methods:
        method = as_explainer(entry, space)
        name = entry if isinstance(entry, str) else getattr(entry, "name", type(entry).__name__)
        one, two = (
            _heat(method, net, parts, classes, f"the {name} map of {who}")
            for net, who in zip(pair, _ROLES, strict=True)
        )
        alike = pcc(one, two)
        maps[name] = torch.where(alike.isnan(), 0.0, alike).cpu()
    gradient = as_explainer("gradient", space)
    changes = torch.cat(
        [
            (gradient(pair[0], part, own) - gradient(pair[1], part, own)).detach().flatten(1)
            for part, own in zip(parts, classes.split(batch_size), strict=True)
        ]
    )
    # A single output has no other class: its logit itself is what is said.
    shown = [found if found.shape[1] == 1 else centred(found) for found in logits]
    spread = float(centred(logits[1]).square().mean())
    error = float((shown[0] - shown[1]).square().mean())
    same = (logits[0].argmax(dim=1) == logits[1].argmax(dim=1)).double().mean()
    return Comparison(
        images=len(given.x),
        same_answer=float(same),
        softmax_l2=float(softmax_l2(logits[0], logits[1]).mean()),
        outputs=math.sqrt(error / max(spread, 1e-30)),
        maps=maps,
        off_the_data=_off_the_data(changes, given.x),
    )


def _heat(
    method: Explainer, net: nn.Module, parts: Sequence[Tensor], classes: Tensor, what: str
) -> Tensor:
    """The heat maps; where an image has none they are not numbers."""
    size = len(parts[0])
    found = torch.cat(
        [
            (method.relevance if isinstance(method, Method) else method)(net, part, own).detach()
            for part, own in zip(parts, classes.split(size), strict=True)
        ]
    )
    _all_numbers(found, what)
    return relative(found)


def _all_numbers(found: Tensor, what: str) -> None:
    """Refuse NaN and infinity [B, ...], which would pass for another explanation."""
    wrong = (~torch.isfinite(found)).flatten(1).any(dim=1).nonzero().flatten().tolist()
    if wrong:
        raise ExplanationError(
            f"{what} holds NaN or infinity for image {wrong[0]}: leave the image out, or mend the "
            "model"
        )


def _off_the_data(changes: Tensor, x: Tensor) -> float:
    """The share of the squared length of vectors [B, D] off the span of the images, 0..1."""
    flat = x.flatten(1).double()
    _, sizes, rows = torch.linalg.svd(flat - flat.mean(dim=0), full_matrices=False)
    basis = rows[sizes > sizes[0] * 1e-9]
    whole = float(changes.double().square().sum())
    if whole == 0:
        return 0.0
    within = float((changes.double() @ basis.mT).square().sum())
    return min(max(1 - within / whole, 0.0), 1.0)
