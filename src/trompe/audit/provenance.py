"""What made the results: software, the code of one's own models and parts, weights."""

from __future__ import annotations

import ast
import hashlib
import platform
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import trompe
from trompe.errors import StoreError, UsageError
from trompe.kept import tensors_checksum
from trompe.outputs import Outputs
from trompe.types import InputSpace, LoadedModel
from trompe.zoo import ModelSpec


def versions() -> dict[str, str]:
    """The software that makes the results."""
    import numpy
    import safetensors
    import torchvision

    return {
        "trompe": trompe.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": numpy.__version__,
        "safetensors": safetensors.__version__,
        "sqlite": sqlite3.sqlite_version,
        "platform": platform.platform(),
    }


def _named(tree: ast.Module, package: str) -> Iterator[str]:
    """The modules that a module may import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                parts = parts[: len(parts) - node.level + 1]
                base = ".".join([*parts, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def code_checksums(name: str) -> dict[str, str]:
    """The checksums of the files that a function or a registered part comes from, by module.

    These are its module and, as long as they lie in or below the same folder and are not
    installed packages, the modules which that imports. They must have been imported.

    Args:
        name: ``package.module:function``, or ``package.module``.
    """
    start = name.partition(":")[0]
    found: dict[str, str] = {}
    waiting = [start]
    top = start.partition(".")[0]
    home = getattr(sys.modules.get(top), "__file__", None)
    root = Path(home).resolve().parent if home else None
    if root is not None and getattr(sys.modules[top], "__path__", None):
        root = root.parent
    while waiting:
        module = sys.modules.get(current := waiting.pop())
        file = getattr(module, "__file__", None)
        if current in found or not file or root is None:
            continue
        path = Path(file).resolve()
        installed = (
            {"site-packages", "dist-packages"} & set(path.relative_to(root).parts[:-1])
            if (path.is_relative_to(root))
            else {"elsewhere"}
        )
        if installed and current != start:
            continue
        try:
            source = path.read_bytes()
            tree = ast.parse(source)
        except (OSError, SyntaxError, ValueError):  # a compiled module, or one that is gone
            continue
        found[current] = hashlib.sha256(source).hexdigest()
        package = current if getattr(module, "__path__", None) else current.rpartition(".")[0]
        waiting += _named(tree, package)
    return found


def code_of_parts(parts: Iterable[Any]) -> dict[str, str]:
    """The checksums of the files of registered parts that are not trompe's own, by module.

    Args:
        parts: classes and functions, of trompe or of a plugin.
    """
    found: dict[str, str] = {}
    for module in dict.fromkeys(part.__module__ for part in parts):
        if module.partition(".")[0] != "trompe":
            found |= code_checksums(module)
    return found


def facts(spec: ModelSpec, loaded: LoadedModel) -> dict[str, Any]:
    """What is written down of a model, so that nobody need load it to read the results.

    Args:
        spec: which model.
        loaded: the same, loaded.
    """
    return {
        "mean": list(loaded.input_space.mean),
        "std": list(loaded.input_space.std),
        "labels": list(loaded.classes),
        **({} if loaded.outputs == Outputs() else {"outputs": asdict(loaded.outputs)}),
        "weights_of": {spec.key: tensors_checksum(loaded.model)},
        "code_of": code_checksums(spec.name) if spec.is_code else {},
    }


def input_space(found: dict[str, Any]) -> InputSpace:
    """The normalisation of a model, from what ``facts`` wrote down.

    Raises:
        StoreError: if what was written down is no normalisation.
    """
    try:
        return InputSpace(tuple(map(float, found["mean"])), tuple(map(float, found["std"])))
    except _NOT_WRITTEN as error:
        raise _damaged("normalisation") from error


def outputs_meaning(found: dict[str, Any]) -> Outputs | None:
    """What a model's outputs mean, if that was written down: it is where they are not classes.

    Raises:
        StoreError: if what was written down is no meaning of outputs.
    """
    if "outputs" not in found:
        return None
    try:
        return Outputs(**found["outputs"])
    except _NOT_WRITTEN as error:
        raise _damaged("meaning of the outputs") from error


#: What values raise that ``facts`` never wrote: of other types, out of range.
_NOT_WRITTEN = (TypeError, ValueError, OverflowError, UsageError)


def _damaged(what: str) -> StoreError:
    return StoreError(
        f"the run's record of a model, the {what}, is damaged: restore it from a copy"
    )
