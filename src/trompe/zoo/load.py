"""Loading any classifier by name, with its weights, normalisation and labels."""

from __future__ import annotations

import importlib
import io
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import torch
from torch import nn

from trompe.errors import ModelError, UsageError
from trompe.ordinary import refuse_odd
from trompe.outputs import Outputs, as_outputs
from trompe.types import LoadedModel
from trompe.zoo.checkpoint import count_channels, count_outputs, fit_weights, plain, read_weights
from trompe.zoo.probe import input_channels, input_space, ready_model
from trompe.zoo.record import ModelRecord
from trompe.zoo.records import find_record, is_function

log = logging.getLogger(__name__)

_UNUSUAL = 64
"""So many times a model's usual number of pixels take so long that a word is said first."""

RANDOM = "random"
"""In place of a weights file: an untrained model, always the same one."""
_CHANGED = ": if yours is changed from the published one, name your code, package.module:function"


def load_model(
    name: str,
    weights: str | Path | None = None,
    *,
    classes: str | Path | Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    num_classes: int | None = None,
    outputs: Outputs | str | None = None,
    device: str | torch.device = "cpu",
) -> LoadedModel:
    """Load a classifier, ready to be explained: evaluation mode, float32, parameters frozen.

    Args:
        name: ``efficientnet-lite0``, ``tiny-vgg``, ``tiny-resnet``, ``tiny-vgg-noise``,
            ``tiny-vgg-robust``, ``tiny-resnet-robust``, ``resnet20-cifar10``, the name
            of any torchvision classifier, ``timm:NAME`` for a model of timm, ``hf:FOLDER`` or
            ``hf:NAME`` for an image classifier of Hugging Face, or ``package.module:function`` for
            a function of your own that takes no argument and returns a module (the current
            directory is searched first).
        weights: a safetensors file or a checkpoint with tensors alone; ``random`` for an untrained
            network. By default the model's own: installed, embedded, or downloaded by torchvision.
        classes: labels, one per output, or a text file with one label per line.
        mean: of the normalisation, per channel of the input, or one for all, pixels in 0..1.
            Default: the model's own; of a function's model ImageNet's, or none (0 and 1) where
            its first convolution does not take three channels.
        std: of the normalisation, as ``mean``.
        size: height and width of the input, in pixels.
        num_classes: number of outputs of a named model; by default that of the weights.
        outputs: what they mean: ``classes``, ``binary``, ``labels``, ``probabilities``, whose
            logarithm the loaded model returns in their place, ``value``, or an ``Outputs``. Found
            if not given, and said unless they are classes.
        device: ``cpu``, ``cuda``, or ``auto`` for CUDA where there is one.

    Returns:
        The model with its input space, labels and image size.

    Raises:
        ModelError: if it is unknown, cannot be built or downloaded, or is no classifier.
        WeightsError: if the weights are missing, broken, or do not fit.
        UsageError: if an option is out of range.

    Example:
        >>> import trompe
        >>> loaded = trompe.load_model("tiny-vgg", "random")
        >>> loaded.size, len(loaded.classes)
        (64, 50)
    """
    place = choose_device(device)
    channels = None if mean is None or len(mean) == 1 else len(mean)
    record = _factory_record(name) if is_function(name) else find_record(name, channels)
    if size is not None and size < 1:
        raise UsageError(f"size must be at least 1 pixel, not {size}")
    if num_classes is not None and (num_classes < 1 or is_function(name)):
        raise UsageError("num_classes goes with a named model, and must be at least 1")
    pixels = size or record.size
    if (times := (pixels / record.size) ** 2) >= _UNUSUAL:
        log.warning(
            "%s: %d x %d pixels are %.0f times as many as its usual %d x %d: every step takes that "
            "many times as long, and as much memory",
            *(name, pixels, pixels, times, record.size, record.size),
        )
    model = _with_weights(record, weights, num_classes)
    try:
        model = model.to(place, torch.float32).eval()
        for parameter in model.parameters():  # scripted modules have no method for it
            parameter.requires_grad_(False)
    except NotImplementedError as error:  # as torch refuses tensors of the device 'meta'
        raise ModelError(
            f"the model '{name}' has weights without values (device meta): load them first"
        ) from error
    except ValueError as error:  # as torch refuses the weights of lazy layers
        raise ModelError(
            f"the model '{name}' has lazy layers without weights: run it once before you return it"
        ) from error
    space = input_space(mean, std, record, input_channels(model))
    model, count = ready_model(model, space, pixels, place, name, as_outputs(outputs))
    return LoadedModel(
        model=model,
        input_space=space,
        classes=_labels(classes, record, count),
        name=name,
        size=pixels,
        resize=round(pixels * record.resize / record.size),
        patterns=record.patterns() if weights is None else None,
        interpolation=record.interpolation,
    )


def choose_device(device: str | torch.device) -> torch.device:
    """The device of that name; ``auto`` is CUDA where there is one.

    Raises:
        UsageError: if there is no such device on this machine.
    """
    name = str(device)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device '{name}': choose cpu, cuda or auto") from error
    if place.type == "cpu":  # torch takes any number after it, and then means none of them
        if place.index:
            raise UsageError(f"no device '{name}' on this machine: choose cpu, or auto")
        return torch.device("cpu")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"no device '{name}' on this machine: choose cpu, or auto")
    try:
        torch.zeros(1, device=place).item()
    except Exception as error:  # of 'meta', or of devices that this torch was built without
        raise UsageError(f"cannot compute on '{name}' here: choose cpu, or auto") from error
    return place


def _with_weights(
    record: ModelRecord, weights: str | Path | None, num_classes: int | None
) -> nn.Module:
    """Build the model of a record with the weights asked for."""
    if str(weights) == RANDOM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return record.build(num_classes or record.outputs)
    if weights is not None:
        state, source = read_weights(Path(weights)), f"the weights in '{weights}'"
    elif record.state is not None:
        state, source = plain(record.state()), f"the weights of {record.name}"
    elif record.source == "a function":
        return record.build(record.outputs)
    else:
        raise ModelError(f"{record.name} comes without weights: give them with --weights")
    model = record.build(num_classes or record.outputs)
    channels = count_channels(model, state)
    if record.with_channels and channels not in (None, input_channels(model)):
        record = record.with_channels(channels)
        model = record.build(num_classes or record.outputs)
    found = count_outputs(model, state)
    if num_classes is None and record.outputs and found not in (None, record.outputs):
        model = record.build(found or record.outputs)
    way_out = "" if record.source == "a function" else _CHANGED
    fit_weights(model, state, source, way_out)
    return model


@contextmanager
def _current_directory_first() -> Iterator[None]:
    """Let modules of the current directory be imported, as ``python -m`` does."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


class _Aside(io.TextIOBase):
    """Standard error, for what a function prints; blank lines before its first word are not."""

    def __init__(self) -> None:
        self.said = False

    def write(self, text: str) -> int:
        self.said = self.said or bool(text.strip())
        return sys.stderr.write(text) if self.said else len(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _factory_record(name: str) -> ModelRecord:
    """The record of a model that a function of the user's makes."""

    def build(outputs: int) -> nn.Module:
        try:
            # What it says must not mix with what a command writes for machines.
            with _current_directory_first(), redirect_stdout(_Aside()):
                module, _, function = name.partition(":")
                make: Callable[[], object] = getattr(importlib.import_module(module), function)
                model = make()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the code is the user's: anything can happen
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ModelError(f"model '{name}' cannot be made ({reason})") from error
        if not isinstance(model, nn.Module):
            raise ModelError(
                f"model '{name}' is a {type(model).__name__}: the function must return an nn.Module"
            )
        return model

    return ModelRecord(name=name, source="a function", build=build, outputs=0, size=224, resize=256)


def _labels(
    classes: str | Path | Sequence[str] | None, record: ModelRecord, outputs: int
) -> tuple[str, ...]:
    """One label per output, or none if they are unknown."""
    if classes is None:
        own = record.labels()
        return own if len(own) == outputs else ()
    source = "the list of labels"
    if isinstance(classes, (str, Path)):
        source = f"'{classes}'"
        refuse_odd(classes, UsageError, source)
        try:
            text = Path(classes).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UsageError(f"{source} cannot be read as a text file of labels") from error
        classes = [line.strip() for line in text.splitlines() if line.strip()]
    if len(classes) != outputs and (len(classes), outputs) != (2, 1):  # those of no and yes
        raise UsageError(
            f"{source} has {len(classes)} labels, the model {outputs} outputs: give one each"
        )
    return tuple(classes)
