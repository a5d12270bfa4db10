"""The result of an attack as one file: tensors and text, nothing that could run."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from trompe.atomic import atomic_path
from trompe.attack_result import AfterChannel, AttackResult
from trompe.errors import OutputError, UsageError
from trompe.input_space import InputSpace
from trompe.kept import content_checksum
from trompe.outputs import Outputs

FORMAT, FIRST = "trompe attack result 2", "trompe attack result 1"
"""The second has a checksum of all it holds."""

_TENSORS = ("x", "x_adv", "target_class", "map_original", "map_target", "map_adv")
_LOGITS = ("logits_original", "logits_adv")
_HISTORY = "history."
_AFTER = "after."
_PARTS = ("map_adv", "map_clean", "logits_adv")


def save_result(result: AttackResult, path: str | os.PathLike[str]) -> Path:
    """Write a result to a safetensors file, whole or not at all.

    Args:
        result: of an attack.
        path: of the file; replaced if it exists.

    Returns:
        The path.

    Raises:
        OutputError: if it cannot be written.
    """
    tensors = {
        name: getattr(result, name).contiguous()
        for name in (*_TENSORS, *_LOGITS)
        if getattr(result, name) is not None
    }
    tensors |= {f"{_HISTORY}{name}": t.contiguous() for name, t in result.history.items()}
    for name, left in result.after.items():
        tensors |= {f"{_AFTER}{name}.{part}": getattr(left, part).contiguous() for part in _PARTS}
    # safetensors refuses tensors that share memory.
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    about = {
        "iterations": result.iterations,
        "stopped": result.stopped,
        "mean": result.input_space.mean,
        "std": result.input_space.std,
        "classes": result.classes,
        "outputs": dataclasses.asdict(result.outputs),
        "history": list(result.history),
        "after": list(result.after),
        "provenance": result.provenance,
    }
    try:
        with atomic_path(path) as temporary:
            notes = {"format": FORMAT, "result": json.dumps(about)}
            save_file(tensors, temporary, {**notes, "sha256": content_checksum(tensors, notes)})
    except SafetensorError as error:
        raise OutputError(f"result '{os.fspath(path)}' cannot be written: {error}") from error
    return Path(path)


def load_result(path: str | os.PathLike[str]) -> AttackResult:
    """Read a result that ``AttackResult.save`` wrote; nothing in the file is run.

    Args:
        path: of the file.

    Raises:
        UsageError: if it is missing, broken, damaged, or no result of an attack.
    """
    name = os.fspath(path)
    wanted = "give a file that result.save(path) wrote"
    try:
        with safe_open(path, framework="pt") as file:
            text = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise UsageError(f"result '{name}' does not exist: check the path") from error
    except (OSError, SafetensorError) as error:
        raise UsageError(f"result '{name}' cannot be read ({error}): {wanted}") from error
    if text.get("format") not in (FORMAT, FIRST):
        raise UsageError(f"'{name}' is no result of an attack: {wanted}")
    checksum = text.pop("sha256", None)
    if text["format"] == FORMAT and checksum != content_checksum(tensors, text):
        raise UsageError(f"result '{name}' is damaged, its checksum does not fit: {wanted}")
    try:
        about: dict[str, Any] = json.loads(text["result"])
        return AttackResult(
            **{key: tensors.get(key) for key in (*_TENSORS, *_LOGITS)},  # type: ignore[arg-type]
            history={key: tensors[f"{_HISTORY}{key}"] for key in about["history"]},
            iterations=about["iterations"],
            stopped=about["stopped"],
            provenance=about["provenance"],
            input_space=InputSpace(tuple(about["mean"]), tuple(about["std"])),
            classes=tuple(about["classes"]),
            after={
                key: AfterChannel(*[tensors[f"{_AFTER}{key}.{part}"] for part in _PARTS])
                for key in about.get("after", ())
            },
            outputs=Outputs(**about.get("outputs", {})),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"result '{name}' is incomplete ({error}): {wanted}") from error
