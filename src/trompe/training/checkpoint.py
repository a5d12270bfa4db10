"""Weights, optimiser and history of a training in one file, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from trompe.atomic import atomic_path
from trompe.errors import UsageError
from trompe.ordinary import refuse_odd


def digest(model: nn.Module) -> str:
    """A key of a model's weights."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor):
            found.update(name.encode())
            data = tensor.detach().cpu().contiguous().reshape(-1)
            found.update(data.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@dataclass(frozen=True)
class Stored:
    """What a checkpoint held beside weights and optimiser.

    Args:
        history: One object per finished epoch.
        best: The state of the best epoch.
    """

    history: list[dict[str, Any]]
    best: dict[str, Tensor]


class Checkpoint:
    """The file of one training.

    Args:
        path: Where it is, or will be.
        key: The settings it belongs to.
        model: The model it began with.
    """

    def __init__(self, path: Path, key: str, model: nn.Module) -> None:
        self.path, self.key = path, f"{key} {digest(model)}"

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        history: list[dict[str, Any]],
        best: dict[str, Tensor],
    ) -> None:
        """Write it."""
        state = {f"now.{name}": tensor for name, tensor in model.state_dict().items()}
        state |= {f"best.{name}": tensor for name, tensor in best.items()}
        for number, values in optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{number}.{name}": value for name, value in values.items()}
        content = {n: t.detach().cpu().contiguous().clone() for n, t in state.items()}
        metadata = {"key": self.key, "history": json.dumps(history)}
        with atomic_path(self.path) as temporary:
            temporary.write_bytes(save(content, metadata))

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Stored | None:
        """Put model and optimiser where they were; ``None`` if there is nothing yet.

        Raises:
            UsageError: If the file belongs to another training, or cannot be read.
        """
        if not self.path.exists():
            return None
        refuse_odd(self.path, UsageError, f"checkpoint '{self.path}'")
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = dict(file.metadata() or {})
            content = load_file(self.path)
        except (SafetensorError, OSError) as error:
            raise UsageError(
                f"checkpoint '{self.path}' cannot be read ({error}): delete it to begin anew"
            ) from error
        if metadata.get("key") != self.key:
            raise UsageError(
                f"checkpoint '{self.path}' belongs to another model or other settings: take "
                "another file, or delete it to begin anew"
            )
        parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}, "optimizer": {}}
        for name, tensor in content.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        model.load_state_dict(parts["now"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            number, _, rest = name.partition(".")
            state.setdefault(int(number), {})[rest] = tensor
        full = optimizer.state_dict()
        optimizer.load_state_dict({"state": state, "param_groups": full["param_groups"]})
        return Stored(json.loads(metadata["history"]), parts["best"])
