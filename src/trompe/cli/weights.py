"""The weights and the card that a training leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def kept_training(folder: Path) -> Iterator[Path]:
    """Where the training is kept after every epoch.

    After an error that other settings would mend nothing stays of a training that began here, so
    that it does not refuse the corrected command; after a full disk or a kill it does.
    """
    from trompe.errors import OutputError, TrompeError

    path = folder / "training.safetensors"
    before = path.exists()
    try:
        yield path
    except TrompeError as error:
        if not before and not isinstance(error, OutputError):
            path.unlink(missing_ok=True)
        raise


def write_weights(folder: Path, network: nn.Module, card: dict[str, Any]) -> None:
    """Write ``model.safetensors`` and ``card.json``, each whole or not at all."""
    from safetensors.torch import save

    from trompe.atomic import atomic_path

    kept = network.state_dict().items()
    state = {name: value.detach().cpu().contiguous() for name, value in kept}
    with atomic_path(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(state, {"format": "pt", "model": card["model"]}))
    with atomic_path(folder / "card.json") as temporary:
        temporary.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
