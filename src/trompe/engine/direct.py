"""Maps that nobody differentiates: one ordinary backward pass, changed where a rule says so.

Some methods change the signal of the gradient at activations and nothing else. Where their map
carries no graph, PyTorch's own forward and backward pass do, with a hook at each activation: no
record, no aliases, memory freed on the way. (With a graph this would be wrong without notice, as
the second derivative would meet the hooks as well.) The forward pass is watched as closely as the
record does it; what cannot be vouched for raises ``NotDirect``, and is left to the record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trompe.engine.activations import ACTIVATIONS, HARDTANH, RELU
from trompe.engine.inplace import out_of_place
from trompe.engine.masks import Memory, note
from trompe.engine.pytree import tensors_in
from trompe.engine.reading import read
from trompe.engine.selections import functions_of
from trompe.engine.tape import OpCall

Hook = Callable[[OpCall], None]
"""Registers hooks at the output of an activation (``op.out``, whose graph is the caller's own)."""


def activation_hooks(cut: Hook, smoothly: Hook) -> dict[Callable[..., Any], Hook]:
    """The hooks of a method that cuts its signal at every ReLU, also at one with a cap (ReLU6).

    Other activations with a kink are left to the record, whose rules refuse them.

    Args:
        cut: for ReLU.
        smoothly: for the softplus that stands for it.
    """

    def left(op: OpCall) -> None:
        raise NotDirect

    def capped(op: OpCall) -> None:
        (cut if lower_bound(op) == 0 else left)(op)

    return {
        **dict.fromkeys(functions_of(*ACTIVATIONS), left),
        **dict.fromkeys(RELU.recorded, cut),
        **dict.fromkeys(HARDTANH.recorded, capped),
        **dict.fromkeys(RELU.smooth, smoothly),
    }


def lower_bound(op: OpCall) -> Any:
    """The lower bound of a recorded hard tanh, or of its stand-in."""
    if op.func is F.relu6:
        return 0.0
    place, name = (2, "low") if op.func in HARDTANH.smooth else (1, "min_val")
    return op.argument(place, name, -1.0)


def grad_fn(op: OpCall) -> Any:
    """The node of the graph that an activation's output comes from."""
    return op.out.grad_fn


class NotDirect(Exception):
    """The forward pass needs the record: to be explained rightly, or to be refused by name."""


class Watched(TorchFunctionMode):
    """Runs operations as they are, hooks activations, and keeps track of every tensor's origin.

    Args:
        x: the input, a leaf.
        hooks: by function.
    """

    def __init__(self, x: Tensor, hooks: Mapping[Callable[..., Any], Hook]) -> None:
        super().__init__()
        self._x = x
        self._hooks = hooks
        self._memory = Memory()
        self._seen: set[Any] = set()  # the graph's nodes made by calls that were seen

    def check(self, tensor: Tensor) -> None:
        """Refuse a tensor that was made, or changed, by something unseen.

        Raises:
            NotDirect: such as a custom autograd function, or a change of another view of it.
        """
        if tensor.grad_fn is not None and tensor.grad_fn not in self._seen:
            raise NotDirect

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        (plain, *_), overwritten = out_of_place(func, args, kwargs)
        with torch._C.DisableTorchFunction():
            for tensor in tensors_in(args, kwargs):
                self.check(tensor)
            if overwritten is not None and (
                overwritten._base is not None or overwritten is self._x
            ):
                raise NotDirect
        given = (args, kwargs)
        reading = read(self._memory, plain, args, kwargs)
        if reading is not None and reading.function is not None:  # whatever its spelling
            plain, given = reading.function, (reading.args, {})
            if overwritten is None:
                func, args, kwargs = plain, reading.args, {}
        out = func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            note(self._memory, func, args, kwargs, out)
            made = [t for t in tensors_in(out, overwritten) if t.grad_fn is not None]
            self._seen.update(t.grad_fn for t in made)
        hook = self._hooks.get(plain)
        if hook is not None and made:
            hook(OpCall(plain, given[0], given[1], [], made, 0))
        return out


def directly(
    model: nn.Module,
    x: Tensor,
    seed: Callable[[Tensor], Tensor],
    hooks: Mapping[Callable[..., Any], Hook],
) -> tuple[Tensor, Tensor]:
    """The map by one backward pass, without a graph, and the logits.

    Args:
        model: any module [B, ...] -> [B, K].
        x: a leaf that requires grad.
        seed: the signal at the output, from the logits.
        hooks: what changes the signal, by function.

    Returns:
        Of the shape of x, and [B, K].

    Raises:
        NotDirect: if only a record can tell.
    """
    watch = Watched(x, hooks)
    try:
        with watch:
            logits = model(x)
        if not isinstance(logits, Tensor) or not logits.requires_grad:
            raise NotDirect
        watch.check(logits)
        (relevance,) = torch.autograd.grad(logits, x, seed(logits.detach()), materialize_grads=True)
    except RuntimeError as error:  # a value that the backward pass needs was overwritten in place
        raise NotDirect from error
    return relevance, logits
