"""A view of a model for explaining it: same numbers, no gradients of weights, nothing written."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

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
    try:
        return shared_copy(model).eval()
    except ModelError as error:
        raise ModelError(
            f"{error}: call model.eval() and model.requires_grad_(False) yourself"
        ) from error


def shared_copy(model: nn.Module) -> nn.Module:
    """A structural copy of ``model`` around the same memory, its parameters without grad.

    Its modules, parameters and buffers are objects of its own: hooks put on it, and tensors
    exchanged in it (``weight.data = ...``), leave the model as it is.

    Raises:
        ModelError: if the model's Python structure cannot be copied.
    """
    shared: dict[int, Any] = {}
    for parameter in model.parameters():
        shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for buffer in model.buffers():
        shared[id(buffer)] = buffer.detach()
    for module in model.modules():  # what a pass has left, such as a weight of weight_norm's
        for left in vars(module).values():
            if isinstance(left, Tensor) and left.grad_fn is not None:
                shared[id(left)] = left.detach()
    try:
        return copy.deepcopy(model, shared)
    except Exception as error:
        raise ModelError(f"{type(model).__name__} cannot be copied ({error})") from error
