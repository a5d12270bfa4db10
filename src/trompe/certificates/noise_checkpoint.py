"""What was counted of one image, in a file, so that a certificate goes on where it stopped."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trompe.certificates.noise_statistics import Counted, Pilot
from trompe.kept import KeptFile, tensor_bytes, tensors_checksum

_PILOT = ("direction", "along", "centre", "away")
_SUMS = ("total", "square", "shares", "along", "away", "marked")
_COUNTS = ("samples", "label", "target")


def digest(model: nn.Module, explain: Any, x: Tensor, *settings: object) -> str:
    """A key that differs where weights, explainer, image or settings differ.

    Args:
        model: The classifier; its parameters and buffers count.
        explain: The explainer: by its fields, or a function by its name.
        x: The image.
        settings: Whatever else the samples depend on, as it prints.
    """
    name = getattr(explain, "__qualname__", None) or repr(explain)
    found = hashlib.sha256(repr((name, tuple(x.shape), settings)).encode())
    found.update(tensors_checksum(model).encode())
    found.update(tensor_bytes(x))
    return found.hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """The file of one image.

    Args:
        path: Where it is, or will be.
        key: What the numbers belong to: a digest of image, settings and explainer.
    """

    path: Path
    key: str

    @property
    def _file(self) -> KeptFile:
        other = "holds samples of another image, model or setting"
        return KeptFile(self.path, self.key, f"'{self.path}'", other)

    def save(self, counted: Counted, generator: torch.Generator) -> None:
        """Write the sums, what the pilot chose and where the noise goes on, whole or not at all."""
        pilot = counted.pilot
        state: dict[str, Tensor] = {f"pilot.{n}": getattr(pilot, n) for n in _PILOT}
        state |= {f"sum.{n}": getattr(counted, n) for n in _SUMS}
        state["generator"] = generator.get_state()
        numbers = {n: str(getattr(counted, n)) for n in _COUNTS}
        numbers["explained"] = str(counted.explained)
        numbers |= {"pilot.label": str(pilot.label), "pilot.top": str(pilot.top)}
        self._file.save(state, numbers)

    def load(self, generator: torch.Generator) -> Counted | None:
        """What was counted, the generator put where it was; ``None`` if there is nothing yet.

        Raises:
            UsageError: If the file belongs to something else, or cannot be read.
        """
        kept = self._file.load()
        if kept is None:
            return None
        state, numbers = kept
        pilot = Pilot(
            **{n: state[f"pilot.{n}"] for n in _PILOT},
            label=int(numbers["pilot.label"]),
            top=int(numbers["pilot.top"]),
        )
        counted = Counted(pilot, int(numbers["explained"]))
        for name in _SUMS:
            setattr(counted, name, state[f"sum.{name}"])
        for name in _COUNTS:
            setattr(counted, name, int(numbers[name]))
        generator.set_state(state["generator"])
        return counted
