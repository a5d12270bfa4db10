"""Numbers of the image that the graph of gradients does not know of, and where they come back in.

``h * torch.sigmoid(h.detach())`` has a gradient, and it is not that of the output. Detached numbers
that are only compared, counted or printed do no harm: what matters is where they meet, in one
operation, others that the graph knows. Numbers that go in steps (a mask, a rounded index) have no
derivative to lose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_STEPS = frozenset(
    f"aten::{name}"
    for name in ("sign", "sgn", "floor", "ceil", "round", "trunc", "heaviside", "floor_divide")
)
_ROUNDING = frozenset({"Tensor_mode", "Scalar_mode"})
"""Divisions that round have the name of the others."""


class Strays:
    """Told of every operation of a pass, reports those in which strays meet the graph.

    Args:
        report: called with the name of each.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._loose: set[int] = set()  # memory made of strays, by weights that require grad too
        self._steps: set[int] = set()  # memory of numbers that go in steps

    def met(self, func: Any, met: list[Tensor], made: list[Tensor]) -> None:
        """Note an operation.

        Args:
            func: of aten.
            met: its inputs that hold numbers of the image.
            made: its outputs.
        """
        steps = func._schema.name in _STEPS or func._overloadname in _ROUNDING
        if not torch.is_grad_enabled():
            if steps:
                self._steps.update(_memories(made))
            return  # what is made here requires no grad, and is known by that
        numbers = [t for t in met if t.is_floating_point() or t.is_complex()]
        smooth = [t for t in numbers if not self._in(t, self._steps)]
        if not smooth or steps:
            self._steps.update(_memories(made))
            return
        strays = [t for t in smooth if not t.requires_grad or self._in(t, self._loose)]
        if not strays:
            return
        if len(strays) == len(smooth):
            known = set(_memories(met))
            self._loose.update(memory for memory in _memories(made) if memory not in known)
        elif any(t.is_floating_point() or t.is_complex() for t in made):
            self._report(f"torch.ops.{func._schema.name.replace('::', '.')}")

    @staticmethod
    def _in(tensor: Tensor, memories: set[int]) -> bool:
        return any(memory in memories for memory in _memories([tensor]))


def _memories(tensors: list[Tensor]) -> list[int]:
    """The identities of the tensors' memory; of a transform's tensors, which have none, nothing."""
    found: list[int] = []
    for tensor in tensors:
        try:
            found.append(tensor.untyped_storage()._cdata)
        except NotImplementedError:
            continue
    return found
