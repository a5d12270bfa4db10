"""The record of a forward pass: one entry per operation that depends on the input.

The record is made by a torch function mode, so that functional calls (``F.relu``, ``x + y``) are
covered as well as modules, and nothing is hooked, patched or written to the model. Every tensor an
operation takes from the pass is handed over as an alias (a view of its own). An operation's
vector-Jacobian product towards its aliases is then purely local, even where one tensor is used
twice (residual connections), while the graph of the aliases still leads back to the input: what is
computed from recorded activations has its true derivative.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trompe.engine.arithmetic import FACTORS, functions
from trompe.engine.calls import Faint as Faint
from trompe.engine.calls import OpCall as OpCall
from trompe.engine.catalogue import named
from trompe.engine.contractions import SUMS, Products, contract
from trompe.engine.decompose import DECOMPOSITIONS, SUBSTITUTES
from trompe.engine.disguises import DISGUISES
from trompe.engine.expressions import FOLLOWED, Expressions
from trompe.engine.inplace import Redirects, out_of_place
from trompe.engine.masks import Memory, note
from trompe.engine.matrix_products import KNOWN as PRODUCTS
from trompe.engine.matrix_products import as_linear
from trompe.engine.places import running
from trompe.engine.plain import PLAIN, REORDERED
from trompe.engine.pytree import swapped, tensors_in
from trompe.engine.quotients import KNOWN as OTHERS
from trompe.engine.quotients import as_other
from trompe.engine.reading import read
from trompe.engine.walk import is_wrapper, names_of
from trompe.errors import UnsupportedOp

_unobserved = torch._C.DisableTorchFunction
"""A context in which what is done to tensors passes no function mode; each costs microseconds."""

TAKEN_APART = {**DECOMPOSITIONS, **REORDERED, **DISGUISES}
"""What is run, and recorded, in place of one call."""

_LIKE = functions("expand_as view_as reshape_as type_as")
"""What takes of its second argument the shape or the type alone."""

_PROPERTIES = frozenset({"T", "mT", "H", "mH", "real", "imag"})


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
        self._products = Products()
        self._expressions = Expressions(self._memory.uniform, self._known)
        self._rewritten = False  # whether parts of a function were recorded before it was known
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
        if self._rewritten:
            self._leave_out_unused(logits)
        return logits

    def _leave_out_unused(self, logits: Tensor) -> None:
        """Forget the parts of functions that are recorded as a whole."""
        used = {id(logits), *(id(t) for returned in self.returned for t in returned)}
        kept: list[OpCall] = []
        for call in reversed(self.calls):
            if any(id(t) in used for t in call.outputs):
                kept.append(call)
                used.update(id(tensor) for tensor, _ in call.edges)
            else:
                for tensor in call.outputs:
                    self._known.pop(id(tensor), None)
        self.calls = kept[::-1]
        for index, call in enumerate(self.calls):
            call.index = index

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
        if func in SUMS:
            layer = self._products.summed(func, args, kwargs)
            if layer is not None:
                self._rewritten = True
                with self:
                    return contract(*layer)
        reading = read(self._memory, func, args, kwargs)
        if reading is not None and reading.function is not None:  # whatever its spelling
            func, args, kwargs = reading.function, reading.args, {}
        func, given = SUBSTITUTES.get(func, func), (args, kwargs)
        edges: list[tuple[Tensor, Tensor]] = []
        if func not in _LIKE or id(args[0]) in self._known:  # else a constant, of another's shape
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
            if edges and func in FOLLOWED:
                found = self._expressions.follow(func, *given, out)
                whole = named(found, self._expressions.betas)
                if func in FACTORS and len(edges) == 1:
                    self._products.note(given[0], self._known, out)
                if whole is None and func in OTHERS:
                    whole = as_other(self._expressions, func, given[0], self._known)
            else:
                whole = None
        if whole is not None:  # the last part of a function that has a name
            self._rewritten = True
            laid = out.is_contiguous()
            with self:
                out = whole()
                if laid and not out.is_contiguous():  # the model may view it
                    out = out.contiguous()
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
