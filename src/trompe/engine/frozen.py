"""A view of a model for explaining it: same numbers, no gradients of weights, nothing written."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from trompe.errors import ModelError


def frozen(model: nn.Module) -> nn.Module:
    """A structural copy of ``model`` in evaluation mode that shares the memory of its tensors.

    Its parameters do not require grad: gradients of weights, which no attack needs, cost the
    reference implementation a third of its time and memory. The model itself is not touched.

    Raises:
        ModelError: if the model's Python structure cannot be copied.
    """
    trained = any(module.training for module in model.modules())
    if not trained and not any(p.requires_grad for p in model.parameters()):
        return model
    shared: dict[int, Any] = {}
    for parameter in model.parameters():
        shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for buffer in model.buffers():
        shared[id(buffer)] = buffer
    try:
        return copy.deepcopy(model, shared).eval()
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} cannot be copied ({error}): call model.eval() and "
            "model.requires_grad_(False) yourself"
        ) from error
