"""Reading calls: every spelling of an operation with a kink, as its one record.

``F.relu_``, ``h.clip(0)``, ``torch.maximum(h, zeros)``, ``F.threshold(h, 0, 0)``,
``torch.ops.aten.relu`` and the layers of exported models are one operation. What takes more than
one call (``h * (h > 0)``, ``torch.where(h > 0, h, 0)``) is read in ``trompe.engine.masks``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.inplace import twin
from trompe.engine.masks import USES, Memory, soften
from trompe.engine.operations import Function, Reading
from trompe.engine.selection_spellings import SPELLINGS as SELECTIONS
from trompe.engine.spellings import SPELLINGS as ACTIVATIONS

Reader = Callable[..., "Reading | None"]


def spelled(name: str) -> list[Function]:
    """All functions of this name: of tensors, of modules' functional forms, overloads of aten.

    In-place forms are left out: calls are read after they were made out of place.
    """
    homes: tuple[Any, ...] = (torch, F, Tensor, torch._C._nn)
    found: dict[Function, None] = {}
    for home in homes:
        function = getattr(home, name, None)
        if callable(function):
            found[function] = None
    packet = getattr(torch.ops.aten, name, None)
    if isinstance(packet, torch._ops.OpOverloadPacket):
        found[packet] = None
        for overload in packet.overloads():
            if not overload.endswith("out"):
                found[getattr(packet, overload)] = None
    return list(found)


READERS: dict[Function, Reader] = {
    function: reader
    for reader, names in (*ACTIVATIONS, *SELECTIONS)
    for name in names.split()
    for function in spelled(name)
}
"""What reads each function: ``read(memory, *args, **kwargs)``, ``None`` where it has no kink."""


_READABLE: dict[Function, bool] = {}


def may_be_read(func: Function, memory: Memory) -> bool:
    """Whether ``read`` may know a function, or its out-of-place twin; quick."""
    found = _READABLE.get(func)
    if found is None:
        found = _READABLE[func] = func in READERS or twin(func) in READERS
    return found or bool(memory.masks)


def read(memory: Memory, func: Function, args: tuple[Any, ...], kwargs: Any) -> Reading | None:
    """What a call is, if it has a kink.

    Args:
        memory: of this pass; see ``trompe.engine.masks.note``.
        func: the function called, out of place.
        args: its arguments.
        kwargs: likewise.

    Returns:
        The call read, or ``None``: without a kink, or not known.
    """
    reader = READERS.get(func)
    if reader is not None:
        return _tried(reader, memory, args, kwargs)
    if memory.masks:
        use = USES.get(func)
        found = None if use is None else _tried(use, memory, args, kwargs)
        return found or soften(memory, func, args, kwargs)
    return None


def _tried(reader: Reader, memory: Memory, args: tuple[Any, ...], kwargs: Any) -> Reading | None:
    try:
        return reader(memory, *args, **kwargs)
    except TypeError:  # called in a way that is not known: found by watching, and reported
        return None
