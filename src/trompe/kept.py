"""Work that goes on: tensors and notes in one file that knows what it belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from trompe.atomic import atomic_path
from trompe.errors import UsageError
from trompe.ordinary import refuse_odd


def tensors_checksum(model: nn.Module) -> str:
    """The checksum of all parameters and buffers of a model, wherever they lie."""
    digest = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> bytes:
    """The numbers of a tensor as they lie in memory."""
    plain = tensor.detach().cpu().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes()


@dataclass(frozen=True)
class KeptFile:
    """A file of tensors and notes.

    Args:
        path: Where it is, or will be.
        key: What it belongs to.
        what: It is called in messages.
        other: Said of a file with another key: what it holds.
    """

    path: Path
    key: str
    what: str
    other: str

    def save(self, tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> None:
        """Write it whole or not at all."""
        content = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
        with atomic_path(self.path) as temporary:
            temporary.write_bytes(save(content, {**notes, "key": self.key}))

    def load(self) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Its tensors and notes; ``None`` if there is nothing yet.

        Raises:
            UsageError: If the file belongs to something else, or cannot be read.
        """
        if not self.path.exists():
            return None
        refuse_odd(self.path, UsageError, self.what)
        try:
            with safe_open(self.path, framework="pt") as file:
                notes = dict(file.metadata() or {})
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise UsageError(
                f"{self.what} cannot be read ({error}): delete it to begin anew"
            ) from error
        if notes.get("key") != self.key:
            raise UsageError(
                f"{self.what} {self.other}: take another place, or delete it to begin anew"
            )
        return tensors, notes
