"""Models with autograd functions of their own: is the derivative of their maps right?

A function marked ``once_differentiable``, or one that keeps what its derivative needs outside of
``save_for_backward``, has no second derivative, and PyTorch drops it without a word. An attack on
such a model follows a wrong direction, and what it does not move looks robust.
"""

from __future__ import annotations

import logging

from torch import Tensor, nn

from trompe.adapters.check import check_derivative
from trompe.engine.once import once, watched
from trompe.engine.smoothing import unwrapped
from trompe.errors import ExplanationError, ModelError
from trompe.explain.base import Method
from trompe.types import Explainer

log = logging.getLogger("trompe")


def check_own_functions(explainer: Explainer, model: nn.Module, x: Tensor, target: Tensor) -> None:
    """Refuse a model whose own autograd functions spoil the derivative of its maps.

    The derivative is compared with finite differences, once per method, structure and shape; only
    where the model has such functions.

    Args:
        explainer: the method whose map is to be differentiated; one made of outputs alone is not.
        model: any module; not changed.
        x: images [B, C, ...], of which the first is used.
        target: their classes, [B].

    Raises:
        ModelError: names the functions.
    """
    if isinstance(explainer, Method) and explainer.first_order:
        return
    inner = unwrapped(model)
    own = watched(inner, (x,), {}).custom
    if not own:
        return

    def find() -> bool:
        try:
            return check_derivative(lambda *given: explainer(*given), model, x, target)
        except ModelError as error:
            log.warning("the derivatives of %s could not be checked: %s", ", ".join(own), error)
            return False
        except ExplanationError as error:
            if error.__cause__ is not None:  # it fails, which is said where it is differentiated
                return False
            name = getattr(explainer, "name", type(explainer).__name__)
            raise ModelError(
                f"the map of '{name}' has a wrong derivative on this model, by its own autograd "
                f"function {' or '.join(own)} (once_differentiable, or values kept outside of "
                "save_for_backward): write it with plain torch functions, or attack by queries "
                "alone (trompe.attacks.query_attack)"
            ) from error

    once(inner, ("own functions", repr(explainer)), (x,), {}, find)
