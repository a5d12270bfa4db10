"""Which network, in words: what options, settings and ``load_model`` have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from trompe.types import LoadedModel
from trompe.zoo.load import load_model
from trompe.zoo.records import is_function


@dataclass(frozen=True)
class ModelSpec:
    """Which network; the fields are the arguments of ``trompe.load_model``.

    Args:
        name: of the model.
        weights: file of its weights, ``random``, or ``None`` for its own.
        classes: file of labels.
        mean: of the normalisation.
        std: of the normalisation.
        size: height and width of its input.
        num_classes: number of outputs.
        outputs: what they mean; found if not given.
    """

    name: str
    weights: str | None = None
    classes: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    num_classes: int | None = None
    outputs: str | None = None

    @property
    def key(self) -> str:
        """What it is called in tables: its name, and that of its weights file if it has one."""
        return self.name if self.weights is None else f"{self.name}={Path(self.weights).stem}"

    @property
    def is_code(self) -> bool:
        """Whether loading it imports and runs a function of the user's."""
        return is_function(self.name)

    def load(self, device: str | torch.device = "cpu") -> LoadedModel:
        """Load it.

        Args:
            device: where to compute.

        Raises:
            TrompeError: if it cannot be loaded.
        """
        return load_model(
            self.name,
            self.weights,
            classes=self.classes,
            mean=self.mean,
            std=self.std,
            size=self.size,
            num_classes=self.num_classes,
            outputs=self.outputs,
            device=device,
        )
