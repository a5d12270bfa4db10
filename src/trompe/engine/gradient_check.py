"""What to say of a model whose gradient is not the derivative of its output."""

from __future__ import annotations

import math

from torch import Tensor, nn

from trompe.engine.exact_slope import gradient_error
from trompe.engine.function_check import Tried, two_images
from trompe.engine.walk import modules_of
from trompe.engine.watching import Watched
from trompe.model_output import follow

_NEARBY = 0.01
"""So far from the image, as a share of its contrast, no numbers are equal that meet a kink."""
_LEAVING = frozenset({"item", "tolist", "numpy", "__array__", "__dlpack__", "__float__", "__int__"})
"""Methods by which numbers leave PyTorch, and with them its gradient."""
_FOLLOWED = "maps and attacks follow the gradient as it is"
_PROVES_NOTHING = f"{_FOLLOWED}, so an attack by it that moves nothing proves nothing"


def gradient_fault(model: nn.Module, x: Tensor, tried: Tried, seen: Watched) -> str:
    """One line on a model whose gradient is not that of its output; empty for any other.

    Differences in double precision decide. Where the model cannot be computed in it, what was held
    back from the gradient counts as missing, and else the slope in single precision.

    Args:
        model: any module.
        x: images, [B, ...].
        tried: what two of them showed.
        seen: what one of them showed.
    """
    if tried.undifferentiable:
        return ""
    if math.isinf(tried.slope):
        return (
            "the model's gradient is zero although its output depends on the image (rounding on "
            f"the way, or a saturated output): {_PROVES_NOTHING}"
        )
    pair = two_images(x)

    def logits_of(module: nn.Module, images: Tensor) -> Tensor:
        return follow(module(images), tried.path).reshape(len(images), -1)

    suspects = _suspects(model, seen)
    nearby = pair[:1] + _NEARBY * (pair[1:] - pair[:1])
    error = gradient_error(model, nearby, logits_of, rounded=bool(suspects))
    if error == 0:
        return ""
    if seen.held:
        return (
            "the model's gradient is not that of its output: values held back from it (detach(), "
            f".data or torch.no_grad()) come in by {seen.held}; {_PROVES_NOTHING}"
        )
    if error is not None:
        look = f"; look at {' and '.join(suspects[:2])}" if suspects else ""
        return (
            f"the model's gradient is not that of its output, from which it differs by "
            f"{_percent(error)}{look}; {_PROVES_NOTHING}"
        )
    if tried.slope != 1.0:
        return (
            "the model's gradient is not that of its output, which rises along it by "
            f"{tried.slope:.2g} times what it says: a backward hook, an autograd function of its "
            f"own, detach() or rounding on the way; {_PROVES_NOTHING}"
        )
    return ""


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.99 else "100 % or more"


def _suspects(model: nn.Module, seen: Watched) -> list[str]:
    """What in a model may make its gradient another one, the likeliest first."""
    found = [f"the autograd function '{name}'" for name in seen.custom]
    for kink in seen.kinks:
        if kink.fate == "remains" and kink.function.rpartition(".")[2] in _LEAVING:
            found.append(f"{kink.function} in {kink.place}")
    hooked = [m for m in modules_of(model) if m._backward_hooks or m._backward_pre_hooks]
    return found + [f"the backward hook of a {type(module).__name__}" for module in hooked]
