"""A method called as Quantus calls an ``explain_func``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trompe.errors import UsageError
from trompe.given import classes, in_short

_SENT = ("device", "method")
"""What Quantus sends along, whatever the ``explain_func``."""


def for_quantus(
    method: Callable[[Any, Any, Any], Tensor],
    model: Any,
    x: Any,
    target: Any,
    inputs: Any,
    targets: Any,
    others: Mapping[str, Any],
) -> Any:
    """The map of ``inputs``, as an array where they are one.

    Args:
        method: explains.
        model: a module.
        x: must not be given beside ``inputs``.
        target: must not be given beside ``targets``.
        inputs: images [B, C, H, W], a NumPy array or a tensor.
        targets: class of each, [B].
        others: further arguments.

    Raises:
        UsageError: if something is missing, given twice, or unknown.
    """
    unknown = [name for name in others if name not in _SENT]
    if unknown:
        raise UsageError(
            f"a method has no argument '{unknown[0]}': give its options when it is made"
        )
    if inputs is None or targets is None or x is not None or target is not None:
        raise UsageError("give images and classes as inputs= and targets=, or as x and target")
    numbers = classes(targets)
    chosen = numbers.to(torch.int64)
    if not torch.equal(chosen.to(numbers.dtype), numbers):
        raise UsageError("targets must be class numbers, whole ones, one per image")
    try:
        images = torch.as_tensor(inputs)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"inputs must be images, an array, not {in_short(inputs)}") from error
    if isinstance(model, nn.Module):
        for parameter in model.parameters():
            images = images.to(parameter.device, parameter.dtype)
            break
    # Quantus calls from inside torch.no_grad() at times.
    with torch.enable_grad():
        found = method(model, images, chosen.to(images.device))
    return found if isinstance(inputs, Tensor) else found.detach().cpu().numpy()
