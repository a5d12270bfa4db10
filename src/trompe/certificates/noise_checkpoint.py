"""What was counted of one image, in a file, so that a certificate goes on where it stopped."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from trompe.atomic import atomic_path
from trompe.certificates.noise_statistics import Counted, Pilot
from trompe.errors import UsageError
from trompe.ordinary import refuse_odd

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
    for tensor in (x, *model.state_dict().values()):
        if isinstance(tensor, Tensor):
            data = tensor.detach().cpu().contiguous()
            found.update(data.reshape(-1).view(torch.uint8).numpy().tobytes())
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

    def save(self, counted: Counted, generator: torch.Generator) -> None:
        """Write the sums, what the pilot chose and where the noise goes on, whole or not at all."""
        pilot = counted.pilot
        state: dict[str, Tensor] = {f"pilot.{n}": getattr(pilot, n) for n in _PILOT}
        state |= {f"sum.{n}": getattr(counted, n) for n in _SUMS}
        state["generator"] = generator.get_state()
        numbers = {n: str(getattr(counted, n)) for n in _COUNTS}
        numbers |= {"key": self.key, "explained": str(counted.explained)}
        numbers |= {"pilot.label": str(pilot.label), "pilot.top": str(pilot.top)}
        data = save({n: t.contiguous() for n, t in state.items()}, numbers)
        with atomic_path(self.path) as temporary:
            temporary.write_bytes(data)

    def load(self, generator: torch.Generator) -> Counted | None:
        """What was counted, the generator put where it was; ``None`` if there is nothing yet.

        Raises:
            UsageError: If the file belongs to something else, or cannot be read.
        """
        if not self.path.exists():
            return None
        refuse_odd(self.path, UsageError, f"'{self.path}'")
        try:
            with safe_open(self.path, framework="pt") as file:
                numbers = dict(file.metadata() or {})
            state = load_file(self.path)
        except (SafetensorError, OSError) as error:
            raise UsageError(
                f"'{self.path}' cannot be read ({error}): delete it to begin anew"
            ) from error
        if numbers.get("key") != self.key:
            raise UsageError(
                f"'{self.path}' holds samples of another image, model or setting: take another "
                "folder, or delete it to begin anew"
            )
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
