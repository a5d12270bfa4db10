"""Finding the place in a model that draws random numbers, or that mixes the images of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode

from trompe.engine.places import running
from trompe.engine.pytree import tensors_in
from trompe.engine.walk import names_of

_COARSE = (torch.float16, torch.bfloat16)


class Watch(TorchDispatchMode):
    """Notes the operations that draw random numbers, and whether any is of half precision.

    Args:
        model: whose modules name the places.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._names = names_of(model)
        self.drawing: list[str] = []  # operations with their places
        self.drawn: list[Tensor] = []  # what they returned
        self.coarse = False
        self.output: Any = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags:
            module = running(self._names)
            place = "" if module is None else f" in {named(self._names[id(module)], module)}"
            self.drawing.append(f"{func.name().removeprefix('aten::')}{place}")
            self.drawn.extend(t.detach().clone() for t in tensors_in(out))
        self.coarse = self.coarse or any(t.dtype in _COARSE for t in tensors_in(out))
        return out


def named(name: str, module: nn.Module) -> str:
    """A module's path and class, such as ``'features.3' (Fire)``."""
    kind = type(module).__name__
    return f"'{name}' ({kind})" if name else kind


def random_run(model: nn.Module, x: Tensor) -> Watch:
    """A forward pass, with what was drawn in it and where."""
    watch = Watch(model)
    with torch.no_grad(), watch:
        watch.output = model(x.clone())
    return watch


def ran_coarsely(model: nn.Module, x: Tensor) -> bool:
    """Whether an operation of a forward pass is of half precision."""
    return random_run(model, x).coarse


def equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same, entries that are not numbers included."""
    if one.shape != other.shape:
        return False
    return torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))


@contextmanager
def _outputs_of(model: nn.Module) -> Iterator[list[tuple[str, nn.Module, Tensor, Tensor]]]:
    """All calls of the model's modules in the order of their ends: name, module, input, output."""
    names = names_of(model)
    calls: list[tuple[str, nn.Module, Tensor, Tensor]] = []

    def note(module: nn.Module, args: Any, out: Any) -> None:
        given, made = tensors_in(args), tensors_in(out)
        if id(module) in names and given and made:
            name = names[id(module)]
            calls.append((name, module, given[0].detach().clone(), made[0].detach().clone()))

    handle = register_module_forward_hook(note)
    try:
        yield calls
    finally:
        handle.remove()


def mixing(model: nn.Module, pair: Tensor) -> str:
    """Say which module makes an image's output depend on the other ones.

    Args:
        model: whose output for an image is another one in the batch than alone.
        pair: two images, [2, ...].
    """
    together, *alone = (_calls(model, images) for images in (pair, pair[:1], pair[1:]))
    culprits = (_first_that_differs(model, together, one, i) for i, one in enumerate(alone))
    culprit = next((found for found in culprits if found), "the model")
    return f"{culprit} mixes the images of a batch: an image's output depends on the others"


def fixed_batch(reason: str) -> str:
    """What to say where an exported model refuses a batch of another size; nothing else."""
    if "Guard failed" not in reason or ".size()[0]" not in reason:
        return ""
    return (
        f"the model was exported for a fixed number of images ({reason}): export it for any, by "
        "dynamic_shapes=({0: torch.export.Dim('batch')},), or give the module it was made from"
    )


def batch_statistics(model: nn.Module, name: str = "") -> str:
    """The first batch norm that goes by its batch since it keeps no statistics, or nothing."""
    for path, module in model.named_modules(prefix=name):
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            return f"{named(path, module)}, which keeps no running statistics (train it with them),"
    return ""


def _calls(model: nn.Module, images: Tensor) -> list[tuple[str, nn.Module, Tensor, Tensor]]:
    with torch.no_grad(), _outputs_of(model) as calls:
        model(images.clone())
    return calls


def _first_that_differs(
    model: nn.Module,
    together: list[tuple[str, nn.Module, Tensor, Tensor]],
    alone: list[tuple[str, nn.Module, Tensor, Tensor]],
    row: int,
) -> str:
    """The first module whose output for an image is another one in the batch."""
    for (name, module, given, made), (_, _, given_alone, made_alone) in zip(
        together, alone, strict=False
    ):
        if not _differ(made, made_alone, row):
            continue
        if _differ(given, given_alone, row):  # what lies between two modules has mixed them
            parent = name.rpartition(".")[0]
            return named(parent, dict(model.named_modules())[parent])
        return batch_statistics(module, name) or named(name, module)
    return ""


def _differ(batch: Tensor, alone: Tensor, row: int) -> bool:
    """Whether a row of a batch differs from that of the image alone."""
    if batch.shape[:1] != (2,) or batch.shape[1:] != alone.shape[1:] or alone.shape[0] != 1:
        return False
    mine = batch[row : row + 1]
    if not batch.is_floating_point() or not alone.numel():
        return not equal(mine, alone)
    return float((mine - alone).abs().max()) > torch.finfo(batch.dtype).eps ** 0.5 * float(
        alone.abs().max()
    )
