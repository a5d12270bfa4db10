"""The record of a forward pass: one entry per operation that depends on the input.

The record is made by a torch function mode, so that functional calls (``F.relu``, ``x + y``) are
covered as well as modules, and nothing is hooked, patched or written to the model. Every tensor an
operation takes from the pass is handed over as an alias (a view of its own). An operation's
vector-Jacobian product towards its aliases is then purely local, even where one tensor is used
twice (residual connections), while the graph of the aliases still leads back to the input: what is
computed from recorded activations has its true derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trompe.engine.decompose import DECOMPOSITIONS, SUBSTITUTES
from trompe.engine.inplace import Redirects, out_of_place
from trompe.engine.masks import Memory, note
from trompe.engine.matrix_products import KNOWN as PRODUCTS
from trompe.engine.matrix_products import as_linear
from trompe.engine.notes import Notes
from trompe.engine.places import running
from trompe.engine.plain import PLAIN, REORDERED
from trompe.engine.pytree import swapped, tensors_in
from trompe.engine.reading import read
from trompe.engine.walk import is_wrapper, names_of
from trompe.errors import UnsupportedOp

_unobserved = torch._C.DisableTorchFunction
"""A context in which what is done to tensors passes no function mode; each costs microseconds."""

TAKEN_APART = {**DECOMPOSITIONS, **REORDERED}
"""What is run, and recorded, in place of one call."""

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


@dataclass
class Faint:
    """An operation where the signal nearly vanishes.

    Args:
        name: of the operation.
        index: its place in the order of execution.
        size: the largest of its activations.
        said: whether the user knows.
    """

    name: str
    index: int
    size: float
    said: bool = False


class Tape(TorchFunctionMode):
    """Records while active; see ``record``.

    Args:
        x: the input; whatever is computed from it is recorded.
        model: where ``locate`` is true, used to name the place of each call in it.
        locate: whether to note the place of each call (slow: it walks the Python stack).

    ``returned`` holds what the module that ``record`` was asked about returned, call by call.
    """

    def __init__(self, x: Tensor, model: nn.Module, locate: bool = False) -> None:
        super().__init__()
        self.calls: list[OpCall] = []
        self.input = x
        self.faint: Faint | None = None
        self.returned: list[list[Tensor]] = []
        self._known: dict[int, Tensor] = {id(x): x}
        self._apart: dict[int, Tensor] = {}  # computed from weights alone
        self._redirects = Redirects()
        self._memory = Memory()
        self._paths = names_of(model) if locate else None

    def note_return(self, output: Any) -> None:
        """Keep the tensors of a module's output, as they are now: later, some are overwritten."""
        with _unobserved():
            self.returned.append(tensors_in(self._redirects.resolve(output)))

    def final(self, logits: Tensor) -> Tensor:
        """The output that the model returned, as it is at the end of the pass.

        Raises:
            UnsupportedOp: if it depends on the input by a way that was not recorded.
        """
        logits = self._redirects._follow(logits)
        self.check_seen(logits)
        return logits

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
        untouched = (func, args, kwargs)
        (func, args, kwargs), overwritten = out_of_place(func, args, kwargs)
        if overwritten is not None and self._constant_view(overwritten, args, kwargs):
            func, args, kwargs = untouched
            return func(*args, **kwargs)
        func = PLAIN.get(func, func)
        if func in TAKEN_APART:
            with self:
                out = TAKEN_APART[func](*args, **kwargs)
            return self._written(overwritten, out)
        if func in PRODUCTS:
            product = as_linear(func, args, kwargs, lambda t: id(t) in self._known)
            if product is not None:
                with self:
                    return self._written(overwritten, product())
        reading = read(self._memory, func, args, kwargs)
        if reading is not None and reading.function is not None:  # whatever its spelling
            func, args, kwargs = reading.function, reading.args, {}
        func, given = SUBSTITUTES.get(func, func), (args, kwargs)
        edges: list[tuple[Tensor, Tensor]] = []
        with _unobserved():
            args, kwargs = swapped(given, lambda t: self._alias(edges, t))
        out = func(*args, **kwargs)
        with _unobserved():
            note(self._memory, func, *given, out)
            made = [t for t in tensors_in(out) if t.requires_grad]
            if not edges:
                self._apart.update((id(t), t) for t in made)
            elif made:
                call = OpCall(func, args, kwargs, edges, made, len(self.calls), self._place())
                self._enter(call)
        return self._written(overwritten, out)

    def _written(self, overwritten: Tensor | None, out: Any) -> Any:
        """What a call returns that would have written ``out`` into ``overwritten``, if any."""
        if overwritten is None or not isinstance(out, Tensor):
            return out
        with _unobserved():
            shared = self._redirects.shared(overwritten)
        if shared:
            with self:  # its views are taken anew, and that is recorded
                self._redirects.overwrite_shared(overwritten, out)
            return self._redirects.resolve(overwritten)
        self._redirects.overwrite(overwritten, out)
        return out

    def _enter(self, call: OpCall) -> None:
        """Take a call into the record."""
        self.calls.append(call)
        self._known.update((id(t), t) for t in call.outputs)
        for tensor in call.outputs:
            self._redirects.track(tensor)

    def _constant_view(self, overwritten: Tensor, args: Any, kwargs: Any) -> bool:
        """Whether part of a constant is overwritten by constants: that is safe as it is."""
        tensors = tensors_in(args, kwargs)
        return overwritten._base is not None and not any(id(t) in self._known for t in tensors)

    @staticmethod
    def _tensor_property(func: Any) -> bool:
        name = getattr(getattr(func, "__self__", None), "__name__", "")
        return name in _PROPERTIES

    def _place(self) -> str:
        """The innermost module whose forward is running, such as ``'features.3' (Conv2d)``."""
        if self._paths is None:
            return ""
        module = running(self._paths)
        if module is None:
            return "an unknown place"
        if is_wrapper(module):
            return "the model's output"
        path = self._paths[id(module)]
        return f"{repr(path) if path else 'the model'} ({type(module).__name__})"


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
