"""Where in a model an operation is called: the innermost module whose forward is running."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import FrameType

from torch import nn


def running(names: Mapping[int, str]) -> nn.Module | None:
    """The innermost module whose forward is running, of those whose ids are given."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in names:
            return owner
        frame = frame.f_back
    return None
