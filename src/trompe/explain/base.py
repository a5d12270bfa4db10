"""What all explanation methods share."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trompe.engine import adapted, all_finite, explained, holds_numbers
from trompe.engine.sweep import RuleSet, relevance_of
from trompe.errors import ExplanationError, ModelError, UsageError
from trompe.explain.meant import meant
from trompe.explain.quantus_call import for_quantus
from trompe.given import options
from trompe.per_image import per_image
from trompe.registry import Registry
from trompe.types import Explanation, InputSpace


@dataclass(frozen=True)
class Method:
    """Base of the explanation methods: frozen options, and one method to fill in.

    A method is pure and batched: the map of a batch is the maps of its images, and neither the
    model nor the caller's tensors change. Its map is twice differentiable and carries a graph when
    ``x`` (or the model) requires grad, and only then.
    """

    name: ClassVar[str] = ""
    masked: ClassVar[bool] = False
    """Whether the map is made of the scores of randomly masked images."""
    first_order: ClassVar[bool] = False
    """Whether the map is made of outputs alone: then its derivative takes no second derivative of
    the model, and an attack on a network of kinks needs no surrogate."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Refuse options of another kind than they are declared to be."""
        options(cls, args, kwargs)
        return super().__new__(cls)

    @abstractmethod
    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """Map and logits of one forward pass; the arguments are those of ``__call__``."""

    def __call__(
        self,
        model: Any,
        x: Any = None,
        target: Any = None,
        *,
        inputs: Any = None,
        targets: Any = None,
        **quantus: Any,
    ) -> Any:
        """Explain the classes ``target`` for the images ``x``.

        Args:
            model: any module or function [B, C, H, W] -> [B, K], or a ``LoadedModel``, whose
                input space then is the method's. It may return its logits in a tuple, a mapping
                or an object. Before the first map of a model and a shape of images it is checked
                that the model is a function of one image, and its gradient that of its output.
            x: [B, C, H, W], normalised; a NumPy array, or one image [C, H, W], are a batch too.
            target: class of each image, [B], or one number for all of them.
            inputs: what Quantus calls ``x``: on any device, of any type, moved to the model's.
            targets: what it calls ``target``; so that a method is an ``explain_func`` as it is.
            quantus: ``device`` and ``method``, which Quantus sends along; they change nothing.

        Returns:
            The relevance map, [B, C, H, W], of any sign; ``trompe.heatmap`` turns it into a
            picture. A NumPy array where ``inputs`` was one.

        Raises:
            UsageError: if an argument is something else, or a class out of range.
            ModelError: if the model is no function of one image, or not differentiable.
            ExplanationError: if a map holds values that are not finite.
        """
        if inputs is not None or targets is not None or quantus:
            return for_quantus(self, model, x, target, inputs, targets, quantus)
        if target is None:
            raise UsageError("a method is called with a model, images and classes")
        given = adapted(model, x, differentiable=not self.first_order)
        method = self if given.space is None else self.within(given.space)
        method.check_outputs(given.probabilities)
        method = meant(method, given.outputs)
        found = method.explain(given.model, given.x, given.target(target)).map
        if holds_numbers(found) and not all_finite(found.detach()):
            raise ExplanationError(_not_finite(found.detach()))
        return found

    def relevance(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        """The map alone, of arguments that are what they have to be already."""
        return self.explain(model, x, target).map

    def within(self, space: InputSpace) -> Method:
        """The same method in an input space, where it takes one and was given none."""
        changes: dict[str, Any] = {}
        if getattr(self, "input_space", None) == InputSpace():
            changes["input_space"] = space
        base = getattr(self, "base", None)
        if isinstance(base, Method):
            changes["base"] = base.within(space)
        return dataclasses.replace(self, **changes) if changes else self

    def with_hard_cut(self) -> Method:
        """The same method as an attack differentiates it on a smoothed model.

        Guided backpropagation cuts its signal there as it does on the model itself.
        """
        base = getattr(self, "base", None)
        if isinstance(base, Method):
            changes: dict[str, Any] = {"base": base.with_hard_cut()}
            return dataclasses.replace(self, **changes)
        return self

    def check_outputs(self, probabilities: bool) -> None:
        """Refuse a model whose outputs the method would misread.

        Args:
            probabilities: whether they are probabilities already.

        Raises:
            ModelError: with the way out.
        """
        if probabilities and getattr(self, "score", "") == "softmax":
            raise ModelError(
                f"the model returns probabilities, whose softmax {self.name} would explain: remove "
                "the model's softmax or sigmoid, or give score='logit' for its output as it is"
            )
        base = getattr(self, "base", None)
        if isinstance(base, Method):
            base.check_outputs(probabilities)

    @property
    def copies(self) -> int:
        """How many inputs the map is a mean over; ``chunk`` bounds how many are held at once."""
        return 1

    def holding(self, chunk: int) -> Method:
        """The same map with at most ``chunk`` images held with their graph at once.

        That goes for the method and the one it wraps; where a method holds one image per map,
        nothing changes.

        Raises:
            UsageError: if chunk is not positive.
        """
        changes: dict[str, Any] = {}
        base = getattr(self, "base", None)
        if isinstance(base, Method):
            changes["base"] = base.holding(chunk)
        if hasattr(self, "chunk"):
            changes["chunk"] = chunk
        return dataclasses.replace(self, **changes)

    def redrawn(self, seed: int) -> Method:
        """The same method with other random numbers, here and in the method it wraps.

        Maps of two draws of one image tell how far a map depends on chance; an attack is honest
        where it is judged on draws that it has never used.

        Args:
            seed: in place of the method's own.

        Returns:
            The method itself where it draws nothing.
        """
        changes: dict[str, Any] = {}
        base = getattr(self, "base", None)
        if isinstance(base, Method):
            other = base.redrawn(seed)
            if other is not base:
                changes["base"] = other
        if hasattr(self, "seed") and self.draws:
            changes["seed"] = seed
        return dataclasses.replace(self, **changes) if changes else self

    @property
    def draws(self) -> bool:
        """Whether this method, apart from the one it wraps, draws random numbers by its seed."""
        return hasattr(self, "seed")

    def lighter(self) -> Method | None:
        """The same map of one image in about half the memory; ``None`` where that cannot be."""
        held = min(int(getattr(self, "chunk", 1)), self.copies)
        if held > 1:
            return dataclasses.replace(self, **{"chunk": held // 2})
        base = getattr(self, "base", None)
        less = base.lighter() if isinstance(base, Method) else None
        return None if less is None else dataclasses.replace(self, **{"base": less})


def _not_finite(found: Tensor) -> str:
    lost = ~torch.isfinite(found).flatten(1).all(dim=1)
    return (
        f"the map of image {int(lost.nonzero()[0])} is not finite: the model has no derivative "
        "there (the root, the logarithm or the inverse of 0 or less, even in a branch that "
        "torch.where does not take: clamp its argument), or its numbers are too large for their "
        "type"
    )


explainers: Registry[type[Method]] = Registry("explanation method", "trompe.explain")
"""All explanation methods, by name."""


def pick(logits: Tensor, target: Tensor) -> Tensor:
    """The score of each image's class: ``logits[i, target[i]]``, [B].

    Raises:
        ModelError: if the logits are not [B, K].
        UsageError: if a class is out of range or the batch sizes differ.
    """
    if logits.dim() != 2:
        raise ModelError(
            f"the model returns the shape {tuple(logits.shape)}: a classifier returns [B, K]"
        )
    if target.shape != logits.shape[:1]:
        raise UsageError(
            f"target has the shape {tuple(target.shape)}, the logits {tuple(logits.shape)}: give "
            "one class per image"
        )
    try:
        # The check is gather's own: comparing here would wait for a GPU in every step.
        index = target.clone() if target.is_inference() else target  # autograd keeps the index
        return logits.gather(1, index.view(-1, 1)).squeeze(1)
    except (RuntimeError, IndexError) as error:
        raise UsageError(
            f"target {target.tolist()} does not fit: the model has {logits.shape[1]} classes"
        ) from error


def scored(logits: Tensor, target: Tensor, score: str) -> Tensor:
    """What of the output is explained: the logit of each image's class, or its probability, [B].

    Args:
        logits: [B, K].
        target: class of each image, [B].
        score: ``logit`` or ``softmax``.

    Raises:
        ModelError: if the logits are not [B, K].
        UsageError: if a class is out of range or the batch sizes differ.
    """
    if score == "softmax" and logits.dim() == 2:  # the probability of an only logit is its sigmoid
        logits = logits.softmax(dim=1) if logits.shape[1] > 1 else logits.sigmoid()
    return pick(logits, target)


def check_score(score: str) -> None:
    """Refuse a score that ``scored`` does not know.

    Raises:
        UsageError: naming it.
    """
    if score not in ("softmax", "logit"):
        raise UsageError(f"unknown score '{score}': choose from softmax, logit")


def one_hot(logits: Tensor, target: Tensor) -> Tensor:
    """The logits with every class but the explained one set to zero, [B, K]."""
    score = pick(logits, target)
    mask = logits.new_zeros(logits.shape).scatter(1, target.view(-1, 1), 1.0)
    return mask * score.unsqueeze(1)


def scaled_signal(model: nn.Module, x: Tensor, target: Tensor, rules: RuleSet) -> Explanation:
    """The frame of methods that cut the backward signal, whose scale is then that of the logit.

    Sweep from the magnitude of each class's logit, and divide the map by it again. On a
    smoothed model the cut of the signal depends on the signal's scale; the reference
    implementation starts it as the logit.

    Args:
        model: any module [B, C, H, W] -> [B, K].
        x: images [B, C, H, W].
        target: class of each, [B].
        rules: made of vector-Jacobian products and of functions of the signal alone.
    """

    def method(x: Tensor, keep: bool) -> Explanation:
        relevance, logits = relevance_of(
            model, x, lambda logits: one_hot(logits, target).abs(), lambda _: rules, keep
        )
        scale = pick(logits, target).abs().clamp_min(torch.finfo(x.dtype).tiny)
        return Explanation(relevance / per_image(scale, x), logits)

    return explained(method, model, x)
