"""One place that turns what a caller gave into a module, images, classes, and a meaning.

What a model is like is found once per structure and shape of images, and kept as long as the model
lives: which of its outputs are the logits, what they mean, and that it is a function of one image
(``function_check``). A module put in training mode, or exchanged, is another structure.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from trompe.engine.apart import kept
from trompe.engine.frozen import frozen
from trompe.engine.function_check import try_function, two_images
from trompe.engine.gradient_check import gradient_fault
from trompe.engine.in_order import InOrder
from trompe.engine.inputs import as_images, as_target
from trompe.engine.once import Answers, forwards, structure, watched
from trompe.engine.smoothing import Smoothed
from trompe.engine.walk import modules_of
from trompe.errors import ModelError, UsageError
from trompe.model_output import Function, Logarithm, Logits, Path, follow
from trompe.output_meaning import Found, far_outputs, found_meaning, meaning_of_logarithm
from trompe.outputs import Outputs, declared
from trompe.types import InputSpace, LoadedModel

log = logging.getLogger("trompe")


@dataclass(frozen=True)
class Known:
    """What is known of a model.

    Args:
        path: where the logits are in its output.
        plain: whether its output is the logits, [B, K].
        classes: their number K.
        found: what its outputs mean.
        undifferentiable: why no gradient reaches the images; nothing if one does.
        gradient_fault: what was said of a gradient that is not that of the output.
        in_order: whether its gradient is right only by ``InOrder``.
    """

    path: Path
    plain: bool
    classes: int
    found: Found
    undifferentiable: str
    gradient_fault: str
    in_order: bool


@dataclass(frozen=True)
class Given:
    """What a caller gave, ready for work.

    Args:
        model: a module [B, ...] -> [B, K].
        x: images, [B, ...].
        outputs: what the module's outputs mean; never ``probabilities``.
        classes: their number K.
        probabilities: whether the model as given returns probabilities.
        space: the normalisation of a ``LoadedModel``.
        gradient_fault: what was said of a gradient that is not that of the output; empty else.
    """

    model: nn.Module
    x: Tensor
    outputs: Outputs
    classes: int | None
    probabilities: bool = False
    space: InputSpace | None = None
    gradient_fault: str = ""

    def target(self, target: Any) -> Tensor:
        """The classes that a caller gave, int64 [B]; ``None``: those that the model answers.

        Raises:
            UsageError: if they are no classes of the model.
        """
        if target is None:
            return self.predicted()
        return as_target(target, self.x, self.classes)

    def predicted(self) -> Tensor:
        """The output that the model itself answers, never its smoothed version, int64 [B]."""
        original = self.model.model if isinstance(self.model, Smoothed) else self.model
        with torch.no_grad():
            return self.outputs.explained(original(self.x.detach().clone()))


_KNOWN: WeakKeyDictionary[Any, Answers[Known]] = WeakKeyDictionary()


def as_module(model: Any) -> tuple[nn.Module, InputSpace | None]:
    """A module, and the normalisation if it comes with one.

    Raises:
        UsageError: if it is neither a module, a function, nor a loaded model.
    """
    if isinstance(model, nn.Module):
        if not hasattr(model, "training"):  # torch.jit.freeze has taken all attributes away
            return Function(model.__call__), None
        return model, None
    if isinstance(model, LoadedModel):
        return model.model, model.input_space
    if isinstance(model, str):
        raise UsageError(f"the model is a name: give trompe.load_model('{model}')")
    if isinstance(model, type) or not callable(model):
        made = ": make one, such as model()" if isinstance(model, type) else ""
        raise UsageError(
            f"the model is a {type(model).__name__}, no module, function or loaded model{made}"
        )
    return Function(model), None


def adapted(
    model: Any,
    x: Any,
    *,
    outputs: Outputs | None = None,
    differentiable: bool = True,
    evaluation: bool = False,
    by_chance: bool = False,
) -> Given:
    """Turn what a caller gave into a module [B, ...] -> [B, K] and its images.

    Args:
        model: a module, a function, or a loaded model.
        x: images: a tensor or NumPy array, [B, C, H, W], or one image [C, H, W].
        outputs: what the outputs mean, if the caller knows.
        differentiable: whether a gradient of the model is needed.
        evaluation: whether a model in training mode is run, as ``frozen`` does, in evaluation mode.
        by_chance: whether the model may answer by chance; nothing is said of its gradient then.

    Raises:
        UsageError: if it is something else, or an image holds NaN or infinite values.
        ModelError: if the model is no function of one image, or not differentiable.
    """
    module, space = as_module(model)
    x = as_images(x, module)
    if holds_numbers(x) and not all_finite(x.detach()):
        raise UsageError("x holds values that are not finite")
    smoothed = module if isinstance(module, Smoothed) else None
    inner = module if smoothed is None else smoothed.model
    owner = model if isinstance(inner, Function) else inner
    parts = () if isinstance(inner, Function) else tuple(modules_of(inner))
    built = structure(parts, training=False if evaluation else None)
    inner = frozen(inner) if evaluation else inner
    noted = None if outputs is not None else declared(inner)
    told = outputs is not None or noted is not None
    known = _known(inner, x, built, owner, parts, told, by_chance)
    if known is None:
        return Given(module, x, outputs or noted or Outputs(), None, space=space)
    if differentiable and known.undifferentiable:
        raise ModelError(known.undifferentiable)
    if outputs is not None:
        outputs.check(known.classes)
    found = known.found
    wanted = outputs or noted or found.meaning
    ready = InOrder(inner) if known.in_order else inner
    if not known.plain:
        ready = Logits(ready, known.path, known.classes)
    if outputs is not None and outputs.meaning == "probabilities":
        if not found.within:
            raise ModelError(
                "the model returns no probabilities (some of its numbers are not within 0..1): its "
                "outputs are classes, labels, binary or a value"
            )
        ready = Logarithm(ready, found.each, found.whole)
        wanted = Outputs(
            meaning_of_logarithm(known.classes, found.each), outputs.threshold, outputs.tolerance
        )
    if smoothed is not None and ready is smoothed.model:
        ready = smoothed
    elif smoothed is not None:
        ready = Smoothed(ready, smoothed.beta, smoothed.pooling, smoothed.activations)
    probabilities = wanted.meaning == "probabilities"
    if probabilities:
        half = 0.5 * found.whole if found.each else 0.0  # above which a label is on
        wanted = Outputs(meaning_of_logarithm(known.classes, found.each), half)
    return Given(ready, x, wanted, known.classes, probabilities, space, known.gradient_fault)


def _known(
    model: nn.Module,
    x: Tensor,
    built: Hashable,
    owner: Any,
    parts: tuple[nn.Module, ...],
    told: bool,
    by_chance: bool,
) -> Known | None:
    """What is known of the model for images of this shape; ``None`` where it cannot be tried.

    ``told``: whether what the outputs mean is known, so that a guess needs no warning.
    """
    try:
        answers = _KNOWN.setdefault(owner, Answers())
    except TypeError:  # no weak reference to it: a builtin, say
        answers = Answers()
    key = (built, tuple(x.shape[1:]), x.dtype, x.device, by_chance)
    if key not in answers:
        if not holds_numbers(x):
            return None
        tried = try_function(model, x, by_chance)
        seen = watched(model, (x,), {})
        if seen.severed:
            raise ModelError(
                "the model changes values behind the back of its gradient "
                f"({seen.severed} on .data or "
                "on a detached tensor), which is then that of another function: write it out of "
                "place, without .data and detach()"
            )
        classes = tried.logits.shape[1]

        def run(images: Tensor) -> Tensor:
            return follow(model(images), tried.path).reshape(len(images), classes)

        with torch.inference_mode(False), kept():
            found = found_meaning(tried.logits, lambda: far_outputs(run, two_images(x)))
        fault = "" if by_chance else gradient_fault(model, x, tried, seen)
        in_order = bool(fault) and not gradient_fault(InOrder(model), x, tried, seen)
        fault = "" if in_order else fault
        known = Known(
            tried.path,
            tried.plain,
            classes,
            found,
            tried.undifferentiable,
            fault,
            in_order,
        )
        answers.keep(key, known, [*parts, *forwards(parts)])
        if fault:
            log.warning(fault)
        if found.meaning.meaning == "binary" and not told:
            log.warning(
                "the model has one output: taken as the logit of a yes-or-no decision "
                "(outputs='binary'); a regression is outputs='value'"
            )
        elif found.meaning.meaning == "value" and not told:
            log.warning(
                "the model has one output, which never changes its sign: taken as a number "
                "(outputs='value'), not as the logit of a yes-or-no decision; a probability is "
                "outputs='probabilities'"
            )
    return answers[key]


def all_finite(x: Tensor) -> bool:
    """Whether all values are finite; their sum tells, sooner, unless it is itself too large."""
    return math.isfinite(float(x.sum())) or bool(torch.isfinite(x).all())


def holds_numbers(x: Tensor) -> bool:
    """Whether ``x`` holds numbers: it does not while a graph is traced or functions transformed."""
    traced = _get_current_dispatch_mode() is not None
    return type(x) in (Tensor, nn.Parameter) and not traced and not _transformed(x)


_transformed: Callable[[Tensor], bool] = torch._C._functorch.is_functorch_wrapped_tensor
