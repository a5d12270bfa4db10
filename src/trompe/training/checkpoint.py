"""Weights, optimiser and history of a training in one file, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trompe.kept import KeptFile, tensors_checksum


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
        key: The settings it belongs to, by name.
        model: The model it began with.
    """

    def __init__(self, path: Path, key: Mapping[str, str], model: nn.Module) -> None:
        self._file = KeptFile(
            path,
            {**key, "weights of the model": tensors_checksum(model)},
            f"checkpoint '{path}'",
            "belongs to another model or other settings",
        )

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
        self._file.save(state, {"history": json.dumps(history)})

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Stored | None:
        """Put model and optimiser where they were; ``None`` if there is nothing yet.

        Raises:
            UsageError: If the file belongs to another training, or cannot be read.
        """
        kept = self._file.load()
        if kept is None:
            return None
        content, notes = kept
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
        return Stored(json.loads(notes["history"]), parts["best"])
