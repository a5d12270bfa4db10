"""What the numbers that a network returns mean, and when an answer counts as kept."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from trompe.errors import UsageError

Meaning = Literal["classes", "binary", "labels", "probabilities", "value"]


@dataclass(frozen=True)
class Outputs:
    """The meaning of a network's output [B, K].

    Args:
        meaning: ``classes``: logits of classes, of which the largest is the answer. ``binary``:
            one logit, whose side of the threshold is the answer. ``labels``: one logit per label,
            each of which is on or off. ``probabilities``: of classes (each row sums to 1), of a
            binary decision or of labels, whose logarithm is explained and kept in their place.
            ``value``: numbers as they are (regression).
        threshold: of ``binary`` and ``labels``: the logit above which a label is on; 0 is a
            probability of one half.
        tolerance: of ``value``: the largest change of an output that counts as kept, in its own
            unit; by default 5 % of the largest output of the original image.

    Raises:
        UsageError: if a setting is out of range.

    Example:
        >>> import torch
        >>> before, after = torch.tensor([[0.5], [0.5]]), torch.tensor([[0.1], [-0.1]])
        >>> Outputs("binary").kept(after, before).tolist()
        [True, False]
    """

    meaning: Meaning = "classes"
    threshold: float = 0.0
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.meaning not in get_args(Meaning):
            raise UsageError(
                f"unknown outputs '{self.meaning}': choose from {', '.join(get_args(Meaning))}"
            )
        if not math.isfinite(self.threshold):
            raise UsageError(f"the threshold must be finite, not {self.threshold}")
        if self.tolerance is not None and not 0 <= self.tolerance < math.inf:
            raise UsageError(f"the tolerance must not be negative, not {self.tolerance}")

    def check(self, count: int) -> None:
        """Refuse a meaning that ``count`` outputs cannot have.

        Raises:
            UsageError: if they cannot.
        """
        if self.meaning == "binary" and count != 1:
            raise UsageError(
                f"outputs='binary' is of one output, the model has {count}: two logits of no and "
                "yes are 'classes', a logit for each of several labels 'labels'"
            )
        if self.meaning == "classes" and count == 1:
            raise UsageError("one output is no choice of classes: outputs='binary', or 'value'")

    @property
    def decides(self) -> bool:
        """Whether ``answer`` is one that an image's label can be compared with."""
        return self.meaning in ("classes", "binary")

    def kept(self, logits: Tensor, reference: Tensor) -> Tensor:
        """Whether the answer is still that of the reference, bool [B].

        Args:
            logits: the output now, [B, K].
            reference: the output on the original images, [B, K].
        """
        if self.meaning in ("binary", "labels"):
            same = (logits > self.threshold) == (reference > self.threshold)
            return same.all(dim=1) & torch.isfinite(logits).all(dim=1)
        if self.meaning == "value":
            return (logits - reference).abs().amax(dim=1) <= self._allowed(reference)
        return logits.argmax(dim=1) == reference.argmax(dim=1)

    def explained(self, logits: Tensor) -> Tensor:
        """The output that is explained if none is named, int64 [B]: the largest one."""
        return logits.argmax(dim=1)

    def answer(self, logits: Tensor) -> Tensor:
        """What the model says, int64 [B]: the largest output; of a binary decision 1 or 0."""
        if self.meaning == "binary":
            return (logits[:, 0] > self.threshold).long()
        return logits.argmax(dim=1)

    def decision(self, logits: Tensor) -> Tensor:
        """A number per answer, int64 [B], equal for two outputs where one keeps the other's.

        Values are kept within a tolerance, which no number per output can say: none are equal.
        """
        if self.meaning == "value":
            return torch.arange(len(logits))
        if self.meaning != "labels":
            return self.answer(logits)
        on = (logits > self.threshold).cpu().numpy()
        names = [hashlib.blake2b(row.tobytes(), digest_size=7).digest() for row in on]
        return torch.tensor([int.from_bytes(name, "big") for name in names], dtype=torch.int64)

    def probabilities(self, logits: Tensor) -> Tensor:
        """The output on the scale on which its change is measured, [B, K].

        The softmax of classes, the sigmoid of a binary decision and of labels; values as they are.
        """
        if self.meaning in ("binary", "labels"):
            return (logits - self.threshold).sigmoid()
        return logits if self.meaning == "value" else logits.softmax(dim=1)

    def output_name(self, index: int, labels: Sequence[str] = ()) -> str:
        """What output ``index`` is called.

        Args:
            index: of the output.
            labels: one per output; of a binary decision also two, those of no and of yes.
        """
        if self.meaning == "binary":
            return labels[-1] if labels else "yes"
        if index < len(labels):
            return labels[index]
        kind = {"classes": "class", "labels": "label"}.get(self.meaning, "output")
        return f"{kind} {index}"

    def answer_name(self, answer: int, labels: Sequence[str] = ()) -> str:
        """What an answer of ``answer`` is called; ``labels`` as in ``output_name``."""
        if self.meaning != "binary" or answer:
            return self.output_name(answer, labels)
        if len(labels) > 1:
            return labels[0]
        return f"not {labels[0]}" if labels else "no"

    def said(self, logits: Tensor, labels: Sequence[str] = ()) -> str:
        """What the model says of one image, in words.

        Args:
            logits: of the image, [K].
            labels: as in ``output_name``.

        Example:
            >>> import torch
            >>> Outputs("binary").said(torch.tensor([-2.0]), ["cat", "dog"])
            'cat, 88.1 %'
        """
        logits = logits.detach().double().cpu()
        shares = self.probabilities(logits[None])[0].tolist()
        answer = int(self.answer(logits[None])[0])
        name = self.answer_name(answer, labels)
        if self.meaning == "value":
            return f"{name}: {shares[answer]:.4g}"
        if self.meaning == "binary":
            return f"{name}, {100 * (shares[0] if answer else 1 - shares[0]):.1f} %"
        if self.meaning == "classes":
            return f"{name}, {100 * shares[answer]:.1f} %"
        on = [int(index) for index in logits.argsort(descending=True) if shares[index] > 0.5]
        if not on:
            return f"no label, at most {100 * shares[answer]:.1f} %"
        said = ", ".join(f"{self.output_name(i, labels)} {100 * shares[i]:.1f} %" for i in on[:2])
        return f"{said}, {len(on) - 2} more" if len(on) > 2 else said

    def _allowed(self, reference: Tensor) -> Tensor:
        if self.tolerance is not None:
            return reference.new_full(reference.shape[:1], self.tolerance)
        return 0.05 * reference.abs().amax(dim=1)


def outputs_of(logits: Tensor) -> Outputs:
    """What outputs [B, K] mean if nothing but their number is known: one is a binary decision."""
    return Outputs("binary" if logits.shape[1] == 1 else "classes")


_ATTRIBUTE = "_trompe_outputs"
"""Of a module whose outputs' meaning is known: copies and smoothed versions keep it."""


def declare(model: nn.Module, outputs: Outputs) -> None:
    """Note what a module's outputs mean, for all that is done with it later."""
    setattr(model, _ATTRIBUTE, outputs)


def declared(model: nn.Module) -> Outputs | None:
    """What was noted of a module by ``declare``; ``None`` if nothing was."""
    found: Outputs | None = getattr(model, _ATTRIBUTE, None)
    return found


def as_outputs(outputs: Outputs | str | None) -> Outputs | None:
    """The meaning that a caller names; ``None`` if it is to be found.

    Raises:
        UsageError: if there is no such meaning.
    """
    if outputs is None or isinstance(outputs, Outputs):
        return outputs
    if outputs == "auto":
        return None
    if isinstance(outputs, str):
        return Outputs(outputs)  # type: ignore[arg-type]  # checked there
    raise UsageError(f"outputs must be a name or an Outputs, not a {type(outputs).__name__}")
