"""The record of a forward pass: one entry per operation that depends on the input.

The record is made by a torch function mode, so that functional calls (``F.relu``, ``x + y``) are
covered as well as modules, and nothing is hooked, patched or written to the model. Every tensor an
operation takes from the pass is handed over as an alias (a view of its own). An operation's
vector-Jacobian product towards its aliases is then purely local, even where one tensor is used
twice (residual connections), while the graph of the aliases still leads back to the input: what is
computed from recorded activations has its true derivative (DESIGN.md, "The decisive fact").
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trompe.engine.decompose import DECOMPOSITIONS, SUBSTITUTES
from trompe.engine.inplace import Redirects, out_of_place
from trompe.engine.notes import Notes
from trompe.engine.pytree import swapped, tensors_in
from trompe.errors import ModelError, UnsupportedOp

_unobserved = torch._C.DisableTorchFunction
"""A context in which what is done to tensors passes no function mode; each costs microseconds."""

_PROPERTIES = frozenset({"T", "mT", "H", "mH", "real", "imag"})


@dataclass
class OpCall:
    """One recorded operation.

    Args:
        func: the function called, such as ``torch.nn.functional.linear``; never an in-place one.
        args: its arguments, tensors of the pass replaced by their aliases.
        kwargs: likewise.
        edges: per tensor taken from the pass: the tensor, and the alias the operation saw.
        outputs: the tensors it returned that depend on the input.
        index: its place in the order of execution.
        place: the module that called it, where the record notes places.
        notes: what the rules of a method found out about it.
    """

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    edges: list[tuple[Tensor, Tensor]]
    outputs: list[Tensor]
    index: int
    place: str = ""
    notes: Notes = field(default_factory=Notes)

    @property
    def out(self) -> Tensor:
        """The output of an operation with one output."""
        return self.outputs[0]

    @property
    def name(self) -> str:
        """The operation's name, as it would be written in code."""
        module = getattr(self.func, "__module__", None) or ""
        owner = getattr(self.func, "__objclass__", None)
        if self.func.__name__ == "__get__":
            getter: Any = self.func
            return f"Tensor.{getter.__self__.__name__}"
        if owner is not None:
            return f"Tensor.{self.func.__name__}"
        return f"{module}.{self.func.__name__}".lstrip(".")

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """The argument at a position or of a name, whichever way it was passed."""
        if len(self.args) > position:
            return self.args[position]
        return self.kwargs.get(name, default)

    def call(self, **changed: Any) -> Tensor:
        """Run the operation again with some arguments, named ``a0``, ``a1``, ..., changed."""
        args = list(self.args)
        kwargs = dict(self.kwargs)
        for name, value in changed.items():
            position = int(name[1:]) if name[0] == "a" and name[1:].isdigit() else None
            if position is not None:
                args[position] = value
            else:
                kwargs[name] = value
        out: Tensor = self.func(*args, **kwargs)
        return out


class Tape(TorchFunctionMode):
    """Records while active; see ``record``.

    Args:
        x: the input; whatever is computed from it is recorded.
        model: where ``locate`` is true, used to name the place of each call in it.
        locate: whether to note the place of each call (slow: it walks the Python stack).
    """

    def __init__(self, x: Tensor, model: nn.Module, locate: bool = False) -> None:
        super().__init__()
        self.calls: list[OpCall] = []
        self.input = x
        self._known: dict[int, Tensor] = {id(x): x}
        self._apart: dict[int, Tensor] = {}  # computed from weights alone
        self._redirects = Redirects()
        self._paths = {id(m): n for n, m in model.named_modules()} if locate else None
        self._viewed: dict[int, Tensor] = {}
        self.view_overwritten: OpCall | None = None

    def _alias(self, edges: list[tuple[Tensor, Tensor]], tensor: Tensor) -> Tensor:
        if id(tensor) not in self._known:
            self.check_seen(tensor)
            return tensor
        alias = tensor.view_as(tensor)
        edges.append((tensor, alias))
        return alias

    def check_seen(self, tensor: Tensor) -> None:
        """Refuse a tensor that depends on the input by a way that was not recorded.

        Raises:
            UnsupportedOp: for what bypasses torch functions, such as a custom autograd function.
        """
        if id(tensor) in self._known or id(tensor) in self._apart or tensor.grad_fn is None:
            return
        if depends(tensor, self.input):
            place = self._place() or f"call {len(self.calls)}"
            name = type(tensor.grad_fn).__name__.removesuffix("Backward")
            raise UnsupportedOp(name, place, "tape", "cannot be recorded")
        self._apart[id(tensor)] = tensor

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = self._redirects.resolve((args, kwargs or {}))
        if getattr(func, "__name__", "") == "__get__" and not self._tensor_property(func):
            return func(*args, **kwargs)
        if func in DECOMPOSITIONS:
            with self:
                return DECOMPOSITIONS[func](*args, **kwargs)
        untouched = (func, args, kwargs)
        (func, args, kwargs), overwritten = out_of_place(func, args, kwargs)
        if overwritten is not None and self._constant_view(overwritten, args, kwargs):
            func, args, kwargs = untouched
            return func(*args, **kwargs)
        func = SUBSTITUTES.get(func, func)
        edges: list[tuple[Tensor, Tensor]] = []
        with _unobserved():
            args, kwargs = swapped((args, kwargs), lambda t: self._alias(edges, t))
        out = func(*args, **kwargs)
        with _unobserved():
            made = [t for t in tensors_in(out) if t.requires_grad]
            if not edges:
                self._apart.update((id(t), t) for t in made)
            elif made:
                call = OpCall(func, args, kwargs, edges, made, len(self.calls), self._place())
                self._enter(call, overwritten)
        if overwritten is not None and isinstance(out, Tensor):
            self._redirects.overwrite(overwritten, out)
        return out

    def _enter(self, call: OpCall, overwritten: Tensor | None) -> None:
        """Take a call into the record."""
        self.calls.append(call)
        self._known.update((id(t), t) for t in call.outputs)
        for tensor in call.outputs:
            if tensor._base is not None:
                self._viewed[id(tensor._base)] = tensor._base
        if overwritten is not None and self._seen_elsewhere(overwritten):
            self.view_overwritten = call

    def _seen_elsewhere(self, overwritten: Tensor) -> bool:
        """Whether other tensors of the pass share its memory, so that they change with it."""
        return overwritten._base is not None or id(overwritten) in self._viewed

    def _constant_view(self, overwritten: Tensor, args: Any, kwargs: Any) -> bool:
        """Whether part of a constant is overwritten by constants: that is safe as it is."""
        tensors = tensors_in(args, kwargs)
        return overwritten._base is not None and not any(id(t) in self._known for t in tensors)

    @staticmethod
    def _tensor_property(func: Any) -> bool:
        name = getattr(getattr(func, "__self__", None), "__name__", "")
        return name in _PROPERTIES

    def _place(self) -> str:
        """The innermost module whose forward is running, such as ``features.3 (Conv2d)``."""
        if self._paths is None:
            return ""
        module = running(self._paths)
        if module is None:
            return "an unknown place"
        return f"'{self._paths[id(module)]}' ({type(module).__name__})"


def running(names: Mapping[int, str]) -> nn.Module | None:
    """The innermost module whose forward is running, of those whose ids are given."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in names:
            return owner
        frame = frame.f_back
    return None


def depends(tensor: Tensor, x: Tensor) -> bool:
    """Whether the graph of ``tensor`` leads to ``x``."""
    waiting: list[Any] = [tensor.grad_fn]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node is x.grad_fn or getattr(node, "variable", None) is x:
            return True
        seen.add(node)
        waiting.extend(following for following, _ in node.next_functions)
    return False


def record(model: nn.Module, x: Tensor, *, locate: bool = False) -> tuple[Tape, Tensor]:
    """Run ``model`` on ``x`` and record it.

    Args:
        model: any module [B, ...] -> [B, K].
        x: must require grad.
        locate: whether each call notes its place in the model (for error messages).

    Returns:
        The tape, and the logits [B, K].

    Raises:
        ModelError: if the output is not a tensor that depends on the input, differentiably.
        UnsupportedOp: if the record would differ from the model: a change in place through a view,
            or an operation that bypasses torch functions.
    """
    tape = Tape(x, model, locate)
    with tape:
        logits = model(x)
    if not isinstance(logits, Tensor) or not logits.requires_grad:
        raise ModelError(
            f"{type(model).__name__} does not return a tensor that depends differentiably on its "
            "input: return logits [B, K], computed outside torch.no_grad()"
        )
    logits = tape._redirects._follow(logits)
    tape.check_seen(logits)
    if tape.view_overwritten is not None:
        _verify(tape, model, x, logits)
    return tape, logits


def _verify(tape: Tape, model: nn.Module, x: Tensor, logits: Tensor) -> None:
    """A change in place through a view is not seen by the base: is the output still right?"""
    with torch.no_grad():
        expected = model(x.detach().clone())
    if not torch.allclose(expected, logits, rtol=1e-3, atol=1e-4):
        call = tape.view_overwritten
        assert call is not None  # the caller has checked
        raise UnsupportedOp(call.name, call.place or "a view", "tape", "changes a view in place")
