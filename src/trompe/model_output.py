"""Finding the logits in whatever a model returns: a tensor, a tuple, a dict, an object."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trompe.errors import ModelError

Path = tuple[int | str, ...]
"""Where in an output a tensor is: positions, keys and names of attributes, one after the other."""

_DEPTH = 3
"""Outputs are searched so deep: hidden states and caches lie in tuples of tuples."""


def in_same_form(logits: Tensor, batch: int, classes: int) -> Tensor:
    """What a model returned, in the form that it had before, [B, K].

    Args:
        logits: that it returned now.
        batch: how many images it was given.
        classes: how many numbers per image it returned before.

    Raises:
        ModelError: if there are more or fewer numbers.
    """
    if logits.numel() != batch * classes:
        raise ModelError(
            f"the model returned {classes} numbers per image, and now a tensor "
            f"{tuple(logits.shape)} for {batch}: it has to return the same form every time"
        )
    return logits.reshape(batch, classes)


class Function(nn.Module):
    """A function of images as a module.

    Args:
        function: takes [B, C, H, W] and returns [B, K].
    """

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.training = False

    def forward(self, x: Tensor) -> Any:
        """Call the function."""
        return self.function(x)


class Logits(nn.Module):
    """The logits [B, K] of a model that returns them in another form, or writes to its images.

    It is given a copy of them: what is differentiated by is not to be overwritten.

    Args:
        model: returns a tensor, tuple, mapping or object.
        path: where the logits are in it.
        classes: their number K.
    """

    wraps = True

    def __init__(self, model: nn.Module, path: Path, classes: int) -> None:
        super().__init__()
        self.model = model
        self.path = path
        self.classes = classes
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """The logits [B, K] of images [B, C, H, W]."""
        logits = in_same_form(follow(self.model(x.clone()), self.path), len(x), self.classes)
        # Half as many bits are no answer to reckon with beside the images.
        return logits.to(torch.promote_types(logits.dtype, x.dtype))


class Logarithm(nn.Module):
    """What a network's probabilities are the softmax, or the sigmoid, of.

    Args:
        model: returns probabilities [B, K].
        each: whether each output has a sigmoid of its own; otherwise a softmax is over all.
        whole: what a certain answer is: 1, or 100 of a model that returns per cent.
    """

    wraps = True

    def __init__(self, model: nn.Module, each: bool, whole: float = 1.0) -> None:
        super().__init__()
        self.model = model
        self.each = each
        self.whole = whole
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """``log p``, or ``log p - log(1 - p)``, [B, K]; finite where p underflows to 0."""
        p: Tensor = self.model(x)
        if self.whole != 1:
            p = p / self.whole
        least = torch.finfo(p.dtype).tiny
        logarithm = p.clamp_min(least).log()
        return logarithm - (1 - p).clamp_min(least).log() if self.each else logarithm


def find_logits(out: Any, batch: int) -> tuple[Path, int]:
    """Where the logits are in the output for ``batch`` images, and how many per image.

    They are what is called ``logits``, or else the only tensor that has one row per image and no
    other dimensions. A single dimension means one logit per image.

    Raises:
        ModelError: if there is none, or which one is meant cannot be told.
    """
    tensors = list(_tensors(out, ()))
    named = [(path, t) for path, t in tensors if path and path[-1] == "logits"]
    fitting = [(path, t) for path, t in named or tensors if _fits(t, batch)]
    if len(fitting) == 1:
        path, tensor = fitting[0]
        return path, tensor.numel() // batch
    shapes = ", ".join(f"{_spelled(path)}{tuple(t.shape)}" for path, t in (named or tensors)[:4])
    what = "a tensor" if isinstance(out, Tensor) else f"a {type(out).__name__}"
    if any(t.layout is not torch.strided for _, t in tensors):
        raise ModelError(
            f"the model returns a sparse tensor ({shapes}): return a dense one, y.to_dense()"
        )
    if len(fitting) > 1:
        raise ModelError(
            f"the model returns {what} of several outputs ({shapes}): choose one, such as "
            f"lambda x: model(x){_spelled(fitting[0][0])}"
        )
    if tensors and not any(t.is_floating_point() for _, t in tensors):
        raise ModelError(
            f"the model returns {tensors[0][1].dtype} numbers ({shapes}), such as the classes it "
            "chose: return its floating point logits [B, K]"
        )
    found = f"{what} ({shapes})" if tensors else f"{what} without a tensor"
    raise ModelError(
        f"the model returns {found} for {batch} images: a classifier returns logits [B, K]; wrap "
        "it in a function that does"
    )


def follow(out: Any, path: Path) -> Tensor:
    """The tensor at a path of an output."""
    for step in path:
        if isinstance(step, str) and not isinstance(out, Mapping):
            out = getattr(out, step)
        else:
            out = out[step]
    found: Tensor = out
    return found


def _fits(tensor: Tensor, batch: int) -> bool:
    """Whether a tensor is one row of numbers per image."""
    sizes = [size for size in tensor.shape[1:] if size != 1]
    rows = tensor.dim() > 0 and tensor.shape[0] == batch and tensor.numel() > 0
    dense = tensor.layout is torch.strided
    return rows and len(sizes) <= 1 and tensor.is_floating_point() and dense


def _tensors(out: Any, path: Path) -> Iterator[tuple[Path, Tensor]]:
    """All tensors in an output with their paths."""
    if isinstance(out, Tensor):
        yield path, out
    elif len(path) < _DEPTH:
        for step, part in _parts(out):
            yield from _tensors(part, (*path, step))


def _parts(out: Any) -> Iterator[tuple[int | str, Any]]:
    if isinstance(out, Mapping):
        yield from out.items()
    elif isinstance(out, (tuple, list)):
        yield from zip(getattr(out, "_fields", range(len(out))), out, strict=True)
    elif dataclasses.is_dataclass(out):
        yield from ((field.name, getattr(out, field.name)) for field in dataclasses.fields(out))
    elif isinstance(getattr(out, "logits", None), Tensor):
        yield "logits", out.logits


def _spelled(path: Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f"['{step}']" for step in path)
