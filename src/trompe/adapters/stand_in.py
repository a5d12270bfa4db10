"""The module that another library's code gets to see in place of the user's."""

from __future__ import annotations

from functools import partial

from torch import nn

from trompe.engine.frozen import shared_copy
from trompe.engine.smoothing import Smoothed, unwrapped


def stand_in(model: nn.Module) -> nn.Module:
    """A copy of the model, around the same memory, on which hooks and exchanged weights are safe.

    A smoothed model is copied without its wrapping: rules by the names of layers, and functions
    that name a layer (``model.features``), find the user's own structure. ``smooth_as`` smooths it.

    Raises:
        ModelError: if the model's Python structure cannot be copied.
    """
    return shared_copy(unwrapped(model))


def smooth_as(model: nn.Module, copy: nn.Module) -> nn.Module:
    """Smooth the forward pass of a copy in place if ``model`` is a smoothed one; returns the copy.

    Only the forward pass is smoothed: what a hook does to a gradient stays as its library wrote it.
    """
    if isinstance(model, Smoothed):
        # An attribute of this one copy, so that it remains an instance of the user's class.
        copy.__dict__["forward"] = partial(model.run, copy.forward)
    return copy
