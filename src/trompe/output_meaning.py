"""What a model's outputs mean, as far as the numbers and the last operation tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trompe.outputs import Meaning, Outputs

_SIGMOID = frozenset({"Sigmoid", "Hardsigmoid", "SpecialExpit"})
_SOFTMAX = frozenset({"Softmax", "SafeSoftmax"})
_LOGARITHMS = frozenset({"LogSoftmax", "LogSigmoid", "LogSigmoidForward"})
#: Operations that a softmax or sigmoid may be followed by and its numbers stay probabilities.
_PASSING = frozenset(
    {
        *("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Clone", "ToCopy", "Alias"),
        *("Select", "Slice", "Transpose", "Permute", "T", "Expand", "Index", "IndexSelect"),
        *("Cat", "Stack", "Mean", "Clamp", "ClampMin", "ClampMax"),
    }
)
_CLAMPS = frozenset({"Clamp", "ClampMin", "ClampMax"})
#: Those that they may be followed by if what else enters is a number.
_SCALING = frozenset({"Add", "Sub", "Rsub", "Mul", "Div", "Sum", "Reciprocal"})


#: Ends that have no bounds: what they return is no probability, and of any sign.
_LINEAR = frozenset(
    {
        *("Addmm", "Mm", "Bmm", "Baddbmm", "Addbmm", "Mv", "Addmv", "Dot", "AccumulateGrad"),
        *("Convolution", "ConvolutionOverrideable", "MkldnnConvolution", "NativeBatchNorm"),
    }
)
#: Functions of any sign, and below those without a bound, if only moved afterwards.
_SIGNED = frozenset(
    {
        *("Tanh", "Erf", "Atan", "Sin", "Cos", "Silu", "Gelu", "Mish", "Elu", "LeakyRelu", "Prelu"),
        *("NativeLayerNorm", "NativeGroupNorm"),
    }
)
_UNBOUNDED = frozenset({"Relu", "Softplus", "Abs"})
_FAR = (-1, 3, -3, 10, -10, 100, -100)
#: What a probability, or one in per cent, exceeds on one of those images, by whether there is only
#: one output: an only number that stays small may be a score that is 0 on most images.
_CERTAIN = {(True, 1.0): 0.9, (False, 1.0): 0.0, (True, 100.0): 99.9, (False, 100.0): 99.9}


class Found(NamedTuple):
    """What the outputs of a model were found to mean.

    Args:
        meaning: ``classes``, ``binary``, ``probabilities``, or ``value``: one output that never
            changes its sign, and is no logit.
        each: whether each output would be a probability by itself, not a share of all.
        within: whether all numbers seen could be probabilities, of ``whole``.
        whole: what a certain answer is, 1 or, where they are per cent, 100.
    """

    meaning: Outputs
    each: bool
    within: bool
    whole: float = 1.0


def found_meaning(logits: Tensor, far: Callable[[], Tensor | None]) -> Found:
    """The meaning of the outputs for two images [2, K] with their graph.

    Probabilities are recognised by their numbers (rows that sum to 1 or 100), by the softmax or
    sigmoid they come from, or, however they are spelled, by numbers that stay within 0..1 (or
    reach 100 and stay within 0..100) on images far from all others, where logits grow. Scores that
    merely are not negative are logits. Several labels cannot be told from classes by their logits:
    they have to be named.

    Args:
        logits: of two images.
        far: gives the outputs of other images, [N, K], far from those; ``None`` where the model
            takes none. Only called where the numbers leave it open.
    """
    numbers, classes = logits.detach().double(), logits.shape[1]
    plain = Outputs("binary" if classes == 1 else "classes")
    if logits.is_meta:
        return Found(plain, False, False)
    dtype, likely = logits.dtype, Outputs("probabilities")
    small = _within(numbers, 1.0, dtype)
    for whole in (1.0, 100.0):
        shares = _within(numbers, whole, dtype) and _sum_to_1(numbers / whole, dtype)
        if shares and classes > 1:
            return Found(likely, False, True, whole)
    squashed = small and _comes_from(logits.grad_fn, _SIGMOID | _SOFTMAX)
    closed = not (_linear(logits.grad_fn) or _ends_in(logits.grad_fn, _SIGNED))
    bounded = closed and not _ends_in(logits.grad_fn, _UNBOUNDED)
    bounded = bounded and _within(numbers, 100.0, dtype)
    more = far() if small or bounded or (closed and classes == 1) else None
    seen = numbers if more is None else torch.cat([numbers, more.double()])
    each = classes == 1 or _above_1(seen, dtype)
    if squashed:
        return Found(likely, each or _comes_from(logits.grad_fn, _SIGMOID), True)
    if closed and more is not None and bool((seen - seen[:1]).nan_to_num().any()):
        for whole in (1.0, 100.0) if bounded else ():
            reached = float(seen.nan_to_num().amax()) > _CERTAIN[classes == 1, whole]
            if reached and _within(seen, whole, dtype):
                return Found(likely, classes == 1 or _above_1(seen / whole, dtype), True, whole)
        if classes == 1 and not (bool((seen > 0).any()) and bool((seen < 0).any())):
            return Found(Outputs("value"), True, small)
    return Found(plain, each, _within(seen, 1.0, dtype))


def far_outputs(run: Callable[[Tensor], Tensor], pair: Tensor) -> Tensor | None:
    """What a model answers on images far from all others: multiples of two images.

    Args:
        run: gives the outputs [2, K] of two images.
        pair: two images, [2, ...].

    Returns:
        [14, K]; ``None`` if the model takes no such images.
    """
    devices = [pair.device] if pair.is_cuda else []
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            return torch.cat([run(factor * pair.detach()) for factor in _FAR])
    except Exception:  # the model is the user's: anything can happen
        return None


def ends_in_probabilities(logits: Tensor) -> bool:
    """Whether the last operation is a softmax or sigmoid, or the logarithm of one.

    Args:
        logits: [B, K] with their graph. A sigmoid that scales something, an attention or a number
            that merely looks like a probability is none.
    """
    last = logits.grad_fn
    if _comes_from(last, _LOGARITHMS, scaled=False):
        return True
    numbers = logits.detach()
    if numbers.is_meta or not bool(((numbers >= 0) & (numbers <= 1)).all()):
        return False
    if _comes_from(last, _SIGMOID | _SOFTMAX):
        return True
    kind, before = _kind(last), last.next_functions if last is not None else ()
    written_out = kind == "Div" and _kind(before[0][0]) == "Exp"  # exp(h) / exp(h).sum()
    return written_out and _sum_to_1(numbers.double(), logits.dtype)


def meaning_of_logarithm(count: int, each: bool) -> Meaning:
    """What the logarithm of ``count`` probabilities means; ``each``: of sigmoids, see above."""
    if not each:
        return "classes"
    return "binary" if count == 1 else "labels"


def _within(numbers: Tensor, whole: float, dtype: torch.dtype) -> bool:
    """Whether all are within 0..whole, apart from rounding; those that are NaN tell nothing."""
    slack = whole * 4 * torch.finfo(dtype).eps
    return not bool(((numbers < -slack) | (numbers > whole + slack)).any())


def _above_1(numbers: Tensor, dtype: torch.dtype) -> bool:
    """Whether a row sums to more than 1: then its numbers are no shares of one whole."""
    return bool((numbers.nan_to_num().sum(dim=1) > 1 + 10 * torch.finfo(dtype).eps ** 0.5).any())


def _linear(last: Any) -> bool:
    """Whether the graph ends in linear operations alone, past those that only move or scale."""
    waiting, seen, found = [last], set(), False
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        kind = _kind(node)
        if kind in _LINEAR:
            found = True
        elif kind in _PASSING - _CLAMPS or kind in ("Add", "Sub", "Neg", "Mul", "Div", "Rsub"):
            before = [following for following, _ in node.next_functions if following is not None]
            if kind in ("Mul", "Div") and len(before) > 1:
                return False
            waiting.extend(before)
        else:
            return False
    return found


def _ends_in(last: Any, kinds: frozenset[str]) -> bool:
    """Whether the last node of a graph, past those that only move, is of the kinds."""
    waiting = [last]
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        if _kind(node) in kinds:
            return True
        if _kind(node) in _PASSING - _CLAMPS:
            waiting.extend(following for following, _ in node.next_functions)
    return False


def _sum_to_1(numbers: Tensor, dtype: torch.dtype) -> bool:
    """Whether each row does, as far as the type of the outputs can hold it."""
    slack = 10 * torch.finfo(dtype).eps ** 0.5
    return bool(((numbers.sum(dim=1) - 1).abs() <= slack).all())


def _kind(node: Any) -> str:
    """The operation of a node of a graph, such as ``Softmax``."""
    return type(node).__name__.rstrip("0123456789").removesuffix("Backward")


def _comes_from(last: Any, kinds: frozenset[str], scaled: bool = True) -> bool:
    """Whether the graph's last node, or one before it past harmless ones, is of the kinds.

    ``scaled``: whether sums and products with numbers are harmless.
    """
    waiting, seen = [(last, False)], set()
    while waiting:
        node, inverted = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        kind = _kind(node)
        if kind in kinds:
            return True
        before = [following for following, _ in node.next_functions if following is not None]
        inverted = inverted or kind == "Reciprocal"
        if inverted and kind == "Exp" and kinds >= _SIGMOID:  # 1 / (1 + exp(-h)), written out
            return True
        if kind in _PASSING or (scaled and kind in _SCALING and len(before) == 1):
            waiting.extend((following, inverted) for following in before)
    return False
