"""What a model's outputs mean, as far as the numbers and the last operation tell."""

from __future__ import annotations

from typing import Any

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
#: Those that they may be followed by if what else enters is a number.
_SCALING = frozenset({"Add", "Sub", "Rsub", "Mul", "Div", "Sum", "Reciprocal"})


def found_meaning(logits: Tensor) -> tuple[Outputs, bool]:
    """The meaning of the outputs for two images [2, K] with their graph.

    Probabilities are recognised by their numbers (within 0..1, rows that sum to 1), or, where all
    numbers are within 0..1, by the sigmoid they come from. Scores that merely are not negative
    are logits. Several labels cannot be told from classes by their logits: they have to be named.

    Returns:
        ``classes``, ``binary`` or ``probabilities``; and whether each output has a sigmoid.
    """
    numbers = logits.detach().double()
    classes = logits.shape[1]
    within = bool(((numbers >= 0) & (numbers <= 1)).all())
    if within and classes > 1 and _sum_to_1(numbers, logits.dtype):
        return Outputs("probabilities"), False
    kinds = _SIGMOID | _SOFTMAX if classes == 1 else _SIGMOID
    if within and _comes_from(logits.grad_fn, kinds):
        return Outputs("probabilities"), True
    if within and classes > 1 and _comes_from(logits.grad_fn, _SOFTMAX):
        return Outputs("probabilities"), False
    return Outputs("binary" if classes == 1 else "classes"), False


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
