"""Batches that are done, kept in files, so that the same call goes on after it was killed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trompe.atomic import remove_abandoned
from trompe.errors import OutputError, UsageError
from trompe.kept import KeptFile, tensor_bytes
from trompe.ordinary import refuse_odd
from trompe.robustness.controls import Control
from trompe.robustness.result import RobustnessResult

_TENSORS = ("x", "target", "maps", "judged", "flipped")
_PLAIN = ("found_by", "flags", "failures", "radius", "norm", "cost", "stopped", "provenance")
_NAME = re.compile(r"batch-\d{6}\.safetensors")

SAME_MAP = 1e-3
"""How far, of its maximum, a map may be from the one that was kept: versions round otherwise."""


@dataclass(frozen=True)
class Done:
    """What came of one batch.

    Args:
        lost: why images of it could not be explained, by name.
        attempts: what was found, by radius; empty if no image could be attacked.
        floors: what harmless changes do, by radius and name.
    """

    lost: Mapping[str, str] = field(default_factory=dict)
    attempts: Mapping[float, RobustnessResult] = field(default_factory=dict)
    floors: Mapping[float, Mapping[str, Control]] = field(default_factory=dict)


@dataclass(frozen=True)
class KeptBatches:
    """A folder with one file per batch that is done.

    Args:
        folder: made when the first batch is kept.
        settings: all that the results depend on, by name.
    """

    folder: Path
    settings: Mapping[str, str]

    def _file(self, path: Path) -> KeptFile:
        return KeptFile(path, self.settings, f"'{path}'", "was begun with other settings")

    def _path(self, number: int) -> Path:
        return self.folder / f"batch-{number:06d}.safetensors"

    def check(self) -> int:
        """How many batches are kept; refuse those of other settings before any work.

        Raises:
            UsageError: if one belongs to other settings, which are named, or cannot be read.
        """
        refuse_odd(self.folder, UsageError, f"'{self.folder}'")
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"'{self.folder}' is no folder: choose another output")
        kept = sorted(one for one in self._entries() if _NAME.fullmatch(one.name))
        for path in kept:
            self._file(path).check()
        return len(kept)

    def _entries(self) -> list[Path]:
        return list(self.folder.iterdir()) if self.folder.is_dir() else []

    def load(self, number: int) -> Done | None:
        """What was kept of a batch; ``None`` if it is not done.

        Raises:
            UsageError: if the file is damaged.
        """
        path = self._path(number)
        found = self._file(path).load()
        if found is None:
            return None
        tensors, notes = found
        try:
            return _unpacked(tensors, json.loads(notes["done"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"'{path}' cannot be used ({error}): delete it to begin anew"
            ) from error

    def save(self, number: int, done: Done) -> None:
        """Keep a batch: whole, and on the disk, or not at all.

        Raises:
            OutputError: if it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make '{self.folder}': {error.strerror}") from error
        tensors, about = _packed(done)
        self._file(self._path(number)).save(tensors, {"done": json.dumps(about)})

    def clear(self) -> None:
        """Remove what was kept, and the folder if nothing else is in it."""
        with contextlib.suppress(OSError):  # what stays is gone on with, or refused by name
            for path in self._entries():
                name = path.name.split(".", 2)[-1] if path.name.startswith(".") else path.name
                if _NAME.fullmatch(name):
                    remove_abandoned(self.folder / name)
                    (self.folder / name).unlink(missing_ok=True)
            self.folder.rmdir()


def checksum_of(pixels: Mapping[str, Tensor]) -> str:
    """The checksum of images and their names."""
    digest = hashlib.sha256()
    for name, image in pixels.items():
        digest.update(f"{name} {tuple(image.shape)}\n".encode(errors="surrogateescape"))
        digest.update(tensor_bytes(image))
    return digest.hexdigest()


def refuse_other_map(kept: RobustnessResult, fresh: Tensor) -> None:
    """Refuse to go on where the first map, [H, W], is no longer the one that was kept.

    Raises:
        UsageError: if it differs: the code of the model, or what the method reads, has changed.
    """
    known = kept.maps[0].double()
    away = (fresh.cpu().double() - known).abs().max()
    if fresh.shape != known.shape or not float(away) <= SAME_MAP * float(known.abs().max()):
        raise UsageError(
            "the explanation of the first image is another one than when this was begun: the code "
            "of the model or the method has changed; choose another output to begin anew"
        )


def _packed(done: Done) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    rows: list[dict[str, Any]] = []
    for index, (radius, found) in enumerate(done.attempts.items()):
        floor = done.floors[radius]
        tensors |= {f"{index}.{name}": getattr(found, name) for name in _TENSORS}
        for kind in ("worst", "images"):
            tensors |= {f"{index}.{kind}.{k}": t for k, t in getattr(found, kind).items()}
        for member, values in found.by_member.items():
            tensors |= {f"{index}.by.{member}.{k}": t for k, t in values.items()}
        for name, control in floor.items():
            tensors |= {f"{index}.floor.{name}.{k}": t for k, t in control.likeness.items()}
            tensors[f"{index}.kept.{name}"] = control.kept
        plain = {name: getattr(found, name) for name in _PLAIN}
        plain |= {name: dict(plain[name]) for name in ("found_by", "failures", "cost")}
        names = {"measures": list(found.worst), "members": list(found.by_member)}
        names["floor"] = list(floor)
        rows.append({"of": radius, **plain, **names, "provenance": dict(found.provenance)})
    return tensors, {"lost": dict(done.lost), "radii": rows}


def _unpacked(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Done:
    attempts: dict[float, RobustnessResult] = {}
    floors: dict[float, Mapping[str, Control]] = {}
    for index, row in enumerate(about["radii"]):

        def several(lead: str, row: Any = row, index: int = index) -> dict[str, Tensor]:
            return {name: tensors[f"{index}.{lead}.{name}"] for name in row["measures"]}

        plain: dict[str, Any] = {name: row[name] for name in _PLAIN}
        plain |= {name: tensors[f"{index}.{name}"] for name in _TENSORS}
        attempts[row["of"]] = RobustnessResult(
            **plain,
            worst=several("worst"),
            images=several("images"),
            by_member={member: several(f"by.{member}") for member in row["members"]},
        )
        floors[row["of"]] = {
            name: Control(several(f"floor.{name}"), tensors[f"{index}.kept.{name}"].to(torch.bool))
            for name in row["floor"]
        }
    return Done(dict(about["lost"]), attempts, floors)
