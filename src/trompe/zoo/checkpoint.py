"""Reading weights files, and fitting what they hold to a model."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from trompe.errors import WeightsError
from trompe.ordinary import refuse_odd

_NESTS = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.")
_SHOWN = 3
#: torchvision's old checkpoints of DenseNet: ``norm.1`` is ``norm1`` by now.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a weights file: safetensors, or a PyTorch checkpoint of tensors alone.

    A state dict nested in a checkpoint is found, the prefixes of wrappers are removed, and half
    precision becomes float32.

    Raises:
        WeightsError: if the file is missing, broken, or holds something else than tensors.
    """
    refuse_odd(path, WeightsError, f"weights file '{path}'")
    try:
        if path.suffix == ".safetensors":
            stored: Any = load_file(path)
        else:
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"weights file '{path}' does not exist: check the path") from error
    except IsADirectoryError as error:
        raise WeightsError(f"weights file '{path}' is a folder: name one file") from error
    except PermissionError as error:
        raise WeightsError(f"weights file '{path}' may not be read") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"weights file '{path}' is broken, or holds more than tensors and is not loaded for "
            "safety: save the model's state_dict() with safetensors"
        ) from error
    except Exception as error:  # a broken pickle raises almost anything
        raise WeightsError(
            f"weights file '{path}' is broken: give safetensors, or a checkpoint of torch.save"
        ) from error
    return plain(_unnested(stored, path))


def _unnested(stored: Any, path: Path) -> Mapping[str, Tensor]:
    for nest in _NESTS:
        if isinstance(stored, Mapping) and isinstance(stored.get(nest), Mapping):
            stored = stored[nest]
    tensors = isinstance(stored, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in stored.items()
    )
    if not tensors or not stored:
        raise WeightsError(
            f"weights file '{path}' holds no state dict: save the model's state_dict()"
        )
    return stored  # type: ignore[no-any-return]


def plain(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in float32, without the prefixes of wrappers and with today's names."""
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in stored):
            stored = {name.removeprefix(prefix): tensor for name, tensor in stored.items()}
    return {
        _OLD_DENSENET.sub(r"\1\2.", name): t.float() if t.is_floating_point() else t
        for name, t in stored.items()
    }


def count_outputs(model: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """How many classes ``state`` tells apart, by the last tensor of ``model``; None if unknown."""
    shaped = [name for name, tensor in model.state_dict().items() if tensor.dim() > 0]
    last = state.get(shaped[-1]) if shaped else None
    return None if last is None or last.dim() == 0 else last.shape[0]


def count_channels(model: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """How many channels ``state`` takes images of, by the first convolution; None if unknown."""
    for name, tensor in model.state_dict().items():
        if tensor.dim() == 4:
            first = state.get(name)
            return None if first is None or first.dim() != 4 else first.shape[1]
    return None


def fit_weights(
    model: nn.Module, state: Mapping[str, Tensor], source: str, way_out: str = ""
) -> None:
    """Copy ``state`` into ``model``, whose names and shapes must all agree.

    Entries of auxiliary classifiers, which serve training only, may be too many, and the batch
    counters of batch norm too few.

    Args:
        model: that is filled.
        state: what it is filled with.
        source: of the state, as an error names it.
        way_out: what to do where they do not agree, after the list of what differs.

    Raises:
        WeightsError: if they do not; the message lists the first few that differ.
    """
    expected = model.state_dict()
    missing = [n for n in expected if n not in state and not n.endswith(".num_batches_tracked")]
    unknown = [n for n in state if n not in expected and not n.startswith(("aux", "AuxLogits."))]
    unlike = [n for n in expected if n in state and state[n].shape != expected[n].shape]
    odd = [n for n, t in expected.items() if n in state and not _are_weights(state[n], t)]
    problems = [
        _listed("missing", missing),
        _listed("unknown", unknown),
        _listed(
            "of another shape",
            (f"{n} {tuple(state[n].shape)} not {tuple(expected[n].shape)}" for n in unlike),
        ),
        _listed("no dense floating point numbers", odd),
    ]
    if any(problems):
        listed = "; ".join(filter(None, problems))
        raise WeightsError(f"{source} do not fit the model: {listed}{way_out}")
    model.load_state_dict({n: t for n, t in state.items() if n in expected}, strict=False)


def _are_weights(given: Tensor, wanted: Tensor) -> bool:
    """Whether a tensor holds numbers that can be copied, as they are, into a model's."""
    if given.is_meta or given.is_quantized or given.layout is not torch.strided:
        return False
    return given.is_floating_point() or not wanted.is_floating_point()


def _listed(what: str, names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{what}: {', '.join(names[:_SHOWN])}{more}" if names else ""
