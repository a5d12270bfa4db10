"""Finding the place in a model that draws random numbers, or that mixes the images of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode

from trompe.engine.pytree import tensors_in
from trompe.engine.tape import running

_COARSE = (torch.float16, torch.bfloat16)


class _Watch(TorchDispatchMode):
    """Notes the operations that draw random numbers, and whether any is of half precision."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._names = {id(module): name for name, module in model.named_modules()}
        self.drawing: list[str] = []
        self.coarse = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags:
            module = running(self._names)
            place = "" if module is None else f" in {named(self._names[id(module)], module)}"
            self.drawing.append(f"{func.name().removeprefix('aten::')}{place}")
        self.coarse = self.coarse or any(t.dtype in _COARSE for t in tensors_in(out))
        return out


def named(name: str, module: nn.Module) -> str:
    """A module's path and class, such as ``'features.3' (Fire)``."""
    kind = type(module).__name__
    return f"'{name}' ({kind})" if name else kind


def random_calls(model: nn.Module, x: Tensor) -> list[str]:
    """The operations of a forward pass that draw random numbers, and the modules they are in."""
    watch = _Watch(model)
    with torch.no_grad(), watch:
        model(x.clone())
    return watch.drawing


def ran_coarsely(model: nn.Module, x: Tensor) -> bool:
    """Whether an operation of a forward pass is of half precision."""
    watch = _Watch(model)
    with torch.no_grad(), watch:
        model(x.clone())
    return watch.coarse


@contextmanager
def _outputs_of(model: nn.Module) -> Iterator[list[tuple[str, nn.Module, Tensor, Tensor]]]:
    """All calls of the model's modules in the order of their ends: name, module, input, output."""
    names = {id(module): name for name, module in model.named_modules()}
    calls: list[tuple[str, nn.Module, Tensor, Tensor]] = []

    def note(module: nn.Module, args: Any, out: Any) -> None:
        given, made = next(tensors_in(args), None), next(tensors_in(out), None)
        if id(module) in names and given is not None and made is not None:
            calls.append((names[id(module)], module, given.detach().clone(), made.detach().clone()))

    handle = register_module_forward_hook(note)
    try:
        yield calls
    finally:
        handle.remove()


def mixing(model: nn.Module, pair: Tensor) -> str:
    """Say which module makes the first image's output depend on the second one.

    Args:
        model: whose output for the first image is another one in the batch than alone.
        pair: two images, [2, ...].
    """
    runs = []
    for images in (pair, pair[:1]):
        with torch.no_grad(), _outputs_of(model) as calls:
            model(images.clone())
        runs.append(calls)
    culprit = "the model"
    for (name, module, given, made), (_, _, given_alone, alone) in zip(*runs, strict=False):
        if _differ(made, alone):
            culprit = named(name, module)
            if _differ(given, given_alone):  # what lies between two modules has mixed them
                parent = name.rpartition(".")[0]
                culprit = named(parent, dict(model.named_modules())[parent])
            elif isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.training:
                culprit += ", which keeps no running statistics (train it with them),"
            break
    return f"{culprit} mixes the images of a batch: an image's output depends on the others"


def _differ(batch: Tensor, alone: Tensor) -> bool:
    """Whether the first row of a batch differs from the row of the image alone."""
    if batch.shape[:1] != (2,) or batch.shape[1:] != alone.shape[1:] or alone.shape[0] != 1:
        return False
    if not batch.is_floating_point():
        return not torch.equal(batch[:1], alone)
    size = float(alone.abs().max()) if alone.numel() else 0.0
    error = float((batch[:1] - alone).abs().max()) if alone.numel() else 0.0
    return error > torch.finfo(batch.dtype).eps ** 0.5 * size
