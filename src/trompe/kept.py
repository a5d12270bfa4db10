"""Work that goes on: tensors and notes in one file that knows what it belongs to."""

from __future__ import annotations

import hashlib
import json
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

_SHORT = 60
"""Letters of a setting that is shown in messages; of a longer one only that it is another."""


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


def content_checksum(tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> str:
    """The checksum of tensors and notes, in whatever order they are."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor))
    digest.update(json.dumps(dict(notes), sort_keys=True).encode())
    return digest.hexdigest()


def differing(known: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The settings that differ, by name: ``rate was 0.1, is 0.2``; of long ones the name alone."""
    found = []
    for name in dict.fromkeys([*known, *now]):
        was, given = (str(one.get(name, "not given")) for one in (known, now))
        if was != given:
            short = max(len(was), len(given)) <= _SHORT
            found.append(f"{name} was {was}, is {given}" if short else f"other {name}")
    return "; ".join(found)


@dataclass(frozen=True)
class KeptFile:
    """A file of tensors and notes.

    Args:
        path: Where it is, or will be.
        key: What it belongs to: settings by name, or one text.
        what: It is called in messages.
        other: Said of a file with another key: what it holds.
    """

    path: Path
    key: str | Mapping[str, str]
    what: str
    other: str

    def save(self, tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> None:
        """Write it whole or not at all."""
        content = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
        key = self.key if isinstance(self.key, str) else json.dumps(dict(self.key))
        said = {**notes, "key": key}
        said["sha256"] = content_checksum(content, said)
        with atomic_path(self.path) as temporary:
            temporary.write_bytes(save(content, said))

    def load(self) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Its tensors and notes; ``None`` if there is nothing yet.

        Raises:
            UsageError: If the file belongs to something else, is damaged, or cannot be read.
        """
        if not self.path.exists():
            return None
        refuse_odd(self.path, UsageError, self.what)
        try:
            with safe_open(self.path, framework="pt") as file:
                notes = dict(file.metadata() or {})
                self._check_key(notes.get("key", ""))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise UsageError(
                f"{self.what} cannot be read ({error}): delete it to begin anew"
            ) from error
        checksum = notes.pop("sha256", None)  # earlier versions wrote none
        if checksum is not None and checksum != content_checksum(tensors, notes):
            raise UsageError(
                f"{self.what} is damaged, its checksum does not fit: delete it to begin anew"
            )
        return tensors, notes

    def check(self) -> None:
        """Refuse a file, if there is one, that belongs to something else; its tensors are not read.

        Raises:
            UsageError: If it does, or cannot be read.
        """
        if not self.path.exists():
            return
        refuse_odd(self.path, UsageError, self.what)
        try:
            with safe_open(self.path, framework="pt") as file:
                self._check_key((file.metadata() or {}).get("key", ""))
        except (SafetensorError, OSError) as error:
            raise UsageError(
                f"{self.what} cannot be read ({error}): delete it to begin anew"
            ) from error

    def _check_key(self, found: str) -> None:
        why = self.other
        if isinstance(self.key, str):
            if found == self.key:
                return
        else:
            try:
                known = json.loads(found)
                changed = differing(known, self.key)
            except (ValueError, AttributeError, TypeError):  # an earlier version's
                changed = ""
            else:
                if not changed:
                    return
            why += f" ({changed})" if changed else ""
        raise UsageError(f"{self.what} {why}: take another place, or delete it to begin anew")
