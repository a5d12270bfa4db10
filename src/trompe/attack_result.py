"""What an attack found."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from trompe.errors import TargetError
from trompe.in_brief import InBrief
from trompe.input_space import InputSpace
from trompe.outputs import Outputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _plot() -> Any:
    """What draws and words a result: it lies above, and the package hands it out when asked."""
    return importlib.import_module("trompe").plot


@dataclass(frozen=True, repr=False)
class AfterChannel(InBrief):
    """What is left of a manipulation after a channel: the real codec, not its differentiable twin.

    Args:
        map_adv: heat map of the manipulated image after the channel, [B, H, W].
        map_clean: that of the original image after it, [B, H, W]: what the channel alone does.
        logits_adv: of the manipulated image after it, [B, K].
    """

    map_adv: Tensor
    map_clean: Tensor
    logits_adv: Tensor


@dataclass(frozen=True)
class AttackResult:
    """What an attack found, judged on the ORIGINAL model for the ORIGINAL class.

    All tensors are detached, on the CPU, in the dtype of the attack; B images, T iterations.

    Args:
        x: the original images, normalised, [B, C, H, W].
        x_adv: the manipulated images: per image the best iterate that keeps the output, or the
            original where none is better.
        target_class: the class that all maps explain, [B]: the one predicted on the original image,
            or the one asked for.
        map_original: heat map of the original image, [B, H, W], each summing to 1.
        map_target: the heat map that was aimed at, [B, H, W]; ``None`` for an objective without.
        map_adv: heat map of the manipulated image, [B, H, W].
        logits_original: [B, K].
        logits_adv: [B, K].
        history: per quantity a tensor [T, B]; ``iteration`` is [T].
        iterations: how many were done (fewer than asked after an interruption or a NaN).
        stopped: why it ended: ``finished``, ``interrupted`` or ``not finite``.
        provenance: settings and versions, JSON-serialisable.
        input_space: the model's normalisation.
        classes: label of each output; empty if unknown.
        after: what is left after each channel of ``through``, by its name and options.
        outputs: what the logits mean.

    Example:
        >>> result = trompe.manipulate(loaded, x, target)  # doctest: +SKIP
        >>> print(result.summary())  # doctest: +SKIP
        >>> result.plot().savefig("fooled.png")  # doctest: +SKIP
        >>> trompe.load_result(result.save("fooled.safetensors"))  # doctest: +SKIP
    """

    x: Tensor
    x_adv: Tensor
    target_class: Tensor
    map_original: Tensor
    map_target: Tensor | None
    map_adv: Tensor
    logits_original: Tensor
    logits_adv: Tensor
    history: Mapping[str, Tensor]
    iterations: int
    stopped: str
    provenance: Mapping[str, Any]
    input_space: InputSpace = field(default_factory=InputSpace)
    classes: tuple[str, ...] = ()
    after: Mapping[str, AfterChannel] = field(default_factory=dict)
    outputs: Outputs = field(default_factory=Outputs)

    def __repr__(self) -> str:
        """What it is, how it ended and what it can do, in three lines."""
        count, *shape = self.x.shape
        size = " x ".join(map(str, shape))
        how = ", ".join(
            str(self.provenance[key]) for key in ("method", "preset") if key in self.provenance
        )
        return (
            f"AttackResult: {count} image{'s' * (count != 1)} {size}, {how or 'an attack'}, "
            f"{self.iterations} steps, {self.stopped}\n"
            f"  found and answer kept: {int(self.success.sum())} of {count}\n"
            "  more: .summary(), .plot(index), .save(path)"
        )

    def _repr_html_(self) -> str:
        """The picture of the first images and the summary, as a notebook shows it."""
        return _plot().html(self)

    def label(self, index: int) -> str:
        """The readable name of output ``index``."""
        return self.outputs.output_name(index, self.classes)

    def answer_label(self, answer: int) -> str:
        """The readable name of an answer: a class; of a binary decision that of 0 or 1."""
        return self.outputs.answer_name(answer, self.classes)

    def summary(self) -> str:
        """What happened to each image, in a few plain lines."""
        return _plot().summary(self)

    def plot(self, index: int = 0, *, target_pixels: Tensor | None = None) -> Figure:
        """Draw image, change and maps of one image.

        Args:
            index: which of the B images.
            target_pixels: the image whose explanation was aimed at, 0..1, [C, H, W], if any.

        Returns:
            A figure of matplotlib, which notebooks show; ``figure.savefig`` writes it.

        Raises:
            UsageError: if there is no image of that number.
        """
        return _plot().overview(self, index, target_pixels=target_pixels)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything to one safetensors file, which ``trompe.load_result`` reads.

        Returns:
            The path, as given.

        Raises:
            OutputError: if it cannot be written.
        """
        from trompe.saved_result import save_result

        return save_result(self, path)

    @property
    def class_kept(self) -> Tensor:
        """Whether the original model still answers as on the original image, bool [B].

        The same class; of a binary decision the same side; all labels on their sides; a value
        within its tolerance (``Outputs``).
        """
        return self.outputs.kept(self.logits_adv, self.logits_original)

    @property
    def found(self) -> Tensor:
        """Whether anything was found, bool [B]; the original image is nothing found."""
        return (self.x_adv != self.x).flatten(1).any(dim=1)

    @property
    def success(self) -> Tensor:
        """Whether something was found that keeps the class, bool [B].

        That the objective is better than on the original image is all that this says: how far the
        map has moved, the metrics tell.
        """
        return self.found & self.class_kept

    @property
    def aim(self) -> Tensor:
        """The heat map that was aimed at, [B, H, W].

        Raises:
            TargetError: if the objective aims at none.
        """
        if self.map_target is None:
            raise TargetError("this attack aimed at no map: its objective has none")
        return self.map_target
