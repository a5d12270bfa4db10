"""Finding the kinks of a model by watching what it does.

Two watchers stand one below the other. The upper one sees the functions that a model calls, and
reads those with a kink by their records. The lower one sees every operation of aten that computes
with numbers coming from the image, whoever calls it (a scripted or exported model, a custom
autograd function), and reports what is not known to be smooth and was not read above.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode

from trompe.engine.apart import apart, as_written, kept
from trompe.engine.bends import BEND, bent, far_off
from trompe.engine.inplace import Redirects, out_of_place
from trompe.engine.masks import Memory, note, passes_mask
from trompe.engine.places import running
from trompe.engine.pytree import swapped, tensors_in
from trompe.engine.reading import may_be_read, read
from trompe.engine.selections import OPERATIONS
from trompe.engine.singular import kinked
from trompe.engine.smooth_operations import READS, VALUELESS
from trompe.engine.strays import Strays
from trompe.engine.walk import names_of

Fate = Literal["smoothed", "pooling", "remains"]

_AS_A_WHOLE = frozenset(
    {
        *(F.scaled_dot_product_attention, F.softsign, F.local_response_norm, F.interpolate),
        *(F.tanhshrink, F.softmin),
    }
)
"""Functions without a kink that PyTorch computes with operations that have one."""
_STAND_INS = frozenset(function for record in OPERATIONS for function in record.smooth)
"""Likewise, of a part of the model that is smoothed already."""


@dataclass(frozen=True)
class Kink:
    """Calls of one function at one place.

    Args:
        function: its name, such as ``torch.nn.functional.hardtanh``.
        place: the module that calls it, such as ``features.2 (ReLU6)``.
        fate: ``smoothed`` always, ``pooling``: only where pooling is smoothed too, or ``remains``.
        count: how often it is called in one forward pass.
        operation: the name of its record, such as ``relu``; ``sharp bend`` of a curved activation
            that is none for the numbers it gets; empty where it has none.
    """

    function: str
    place: str
    fate: Fate
    count: int
    operation: str = ""


@dataclass
class Watched:
    """What one pass of a model showed.

    Args:
        kinks: in the order of execution.
        careful: whether smoothing must tell weights from activations, or views are changed in
            place.
        whole: whether the model takes no other number of images than it was given, so that it was
            watched on all of them.
        severed: the operation that changed values without the graph's knowledge, or empty.
        custom: the names of the model's own autograd functions, whose derivatives are nobody's
            but theirs.
        held: where numbers of the image that the graph does not know of (detached, or made without
            gradients) meet those that it knows, or empty.
    """

    kinks: tuple[Kink, ...]
    careful: bool
    severed: str
    whole: bool = False
    custom: tuple[str, ...] = ()
    held: str = ""


class _Below(TorchDispatchMode):
    """Follows the numbers of the image through the operations of aten."""

    def __init__(
        self,
        inputs: list[Tensor],
        report: Callable[..., None],
        held: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._strays = Strays(held)
        self.paused = 0
        self.severed = ""
        self._graph: set[int] = set()  # memory that tensors of the graph have had
        self._report = report
        self._storages = dict(map(_memory, inputs))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else PyTorch imports its compiler, a second, to keep it out of here

    def follows(self, tensor: Tensor) -> bool:
        """Whether a tensor's numbers come from the image."""
        try:
            return _memory(tensor)[0] in self._storages
        except NotImplementedError:  # of a transform such as vmap, which has no memory of its own
            return True

    def _sever(self, func: Any, changed: list[Any]) -> None:
        """Note a change of values that the graph does not know of (``h.data.mul_(2)``)."""
        for tensor in tensors_in(changed):
            detached = torch.is_grad_enabled() and not tensor.requires_grad
            if detached and _memory(tensor)[0] in self._graph:
                self.severed = self.severed or func._schema.name.replace("aten::", "torch.")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        with torch._C.DisableTorchFunction():
            kwargs = kwargs or {}
            met = [t for t in tensors_in(args, kwargs) if self.follows(t)]
            if not met or func._schema.name in VALUELESS:
                return func(*args, **kwargs)
            branches = not self.paused and func._schema.name in READS
            writes = [
                i
                for i, a in enumerate(func._schema.arguments)
                if a.alias_info and a.alias_info.is_write and i < len(args)
            ]
            changed = [args[i] for i in writes]
            # What an operation in place was given is gone when it is looked at.
            given = {id(t): t.clone() for t in tensors_in(changed) if not self.paused}
            out = func(*args, **kwargs)
            made = tensors_in(out)
            self._sever(func, changed)
            self._graph.update(_memory(t)[0] for t in met if t.requires_grad)
            self._strays.met(func, met, made)
            for tensor in (*made, *tensors_in(changed)):
                self._storages.setdefault(*_memory(tensor))
            before = tuple(given.get(id(a), a) for a in args)
            met = [given.get(id(t), t) for t in met]
            name = f"torch.ops.{func._schema.name.replace('::', '.')}"
            if branches or (not self.paused and kinked(func, before, kwargs, met, made)):
                self._report(name)
            elif not self.paused and bent(func, before, kwargs):
                self._report(name, BEND)
            return out


def custom_functions(outputs: Any) -> tuple[str, ...]:
    """The names of autograd functions, not of PyTorch or of this package, behind some outputs."""
    waiting: list[Any] = [tensor.grad_fn for tensor in tensors_in(outputs)]
    seen: set[Any] = {None}
    found: dict[str, None] = {}
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        waiting.extend(before for before, _ in node.next_functions)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            own: Any = type(node)
            function = own._forward_cls
            if function.__module__.split(".")[0] not in ("torch", "trompe"):
                found[function.__name__] = None
    return tuple(found)


def id_of(tensor: Tensor) -> int:
    """The identity of a tensor's memory."""
    found: int = tensor.untyped_storage()._cdata
    return found


def _memory(tensor: Tensor) -> tuple[int, Any]:
    """A tensor's identity, and what keeps it from being given anew; a sparse one is its own."""
    if tensor.layout != torch.strided:
        return id(tensor), tensor
    return id_of(tensor), tensor.untyped_storage()


_LEAVING = frozenset({Tensor.numpy, Tensor.__array__, Tensor.tolist, Tensor.__dlpack__})
"""Ways out of PyTorch, on which numbers are followed no further."""


class _Watch(TorchFunctionMode):
    """Counts calls of kinked functions on what depends on the input."""

    def __init__(self, model: Any, inputs: list[Tensor]) -> None:
        super().__init__()
        self.found: Counter[tuple[str, str, Fate, str]] = Counter()
        self.careful = False
        self.held = ""
        self.below = _Below(inputs, self._remains, self._hold)
        self._names = names_of(model) if isinstance(model, nn.Module) else {}
        self._memory = Memory()
        self._redirects = Redirects()
        self._current: str | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        memory = self._memory
        quiet = func in _AS_A_WHOLE or func in _STAND_INS or passes_mask(memory, func, args)
        self.below.paused += 1
        quiet = quiet and not (func is F.softsign and far_off(args[0].detach()))
        self.below.paused -= 1
        if may_be_read(func, memory):
            (plain, a, k), overwritten = out_of_place(func, args, kwargs)
            reading = read(memory, plain, a, k)
            if reading is not None:
                with torch._C.DisableTorchFunction():
                    tensors = tensors_in(reading.on or reading.args)
                    depends = any(self.below.follows(t) for t in tensors)
                    quiet = True
                    if depends:
                        fate: Fate = "pooling" if reading.kind == "pooling" else "smoothed"
                        if not torch.is_grad_enabled():  # in a function with its own derivative
                            fate = "remains"
                        key = (_name(func), self._place(), fate, reading.name)
                        self.found[key] += 1
                    self.careful |= not depends
                    if overwritten is not None and self._redirects.shared(overwritten):
                        self.careful = True
        if func in _LEAVING and self.below.follows(args[0]):
            self._remains(_name(func))
        self.below.paused += quiet
        outer, self._current = self._current, _name(func)
        try:
            out = func(*args, **kwargs)
        finally:
            self.below.paused -= quiet
            self._current = outer
        with torch._C.DisableTorchFunction():
            note(memory, func, args, kwargs, out)
            for tensor in tensors_in(out):
                self._redirects.track(tensor)
        return out

    def _remains(self, operation: str, record: str = "") -> None:
        name = self._current
        if name is None or name.startswith("torch.Tensor.__get__"):
            name = operation
        self.found[name, self._place(), "remains", record] += 1

    def _hold(self, operation: str) -> None:
        self.held = self.held or f"{self._current or operation} in {self._place()}"

    def _place(self) -> str:
        module = running(self._names)
        if module is None:
            return "the model"
        return f"{self._names[id(module)] or 'the model'} ({type(module).__name__})"


def _name(func: Callable[..., Any]) -> str:
    return resolve_name(func) or getattr(func, "__name__", str(func))


def watch(function: Callable[..., Any], args: Any, kwargs: Any) -> Watched:
    """Run a model once, on copies of its arguments, and see where its kinks are.

    Args:
        function: a module, or another callable; not changed.
        args: its arguments; tensors of floating point are followed.
        kwargs: likewise.
    """

    def copied(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        if tensor.is_floating_point():
            return tensor.clone().requires_grad_(True).clone()  # no leaf: it may change in place
        return tensor.clone()

    with apart(), kept(), as_written(), torch.inference_mode(False), torch.enable_grad():
        args, kwargs = swapped((args, kwargs), copied)
        inputs = [t for t in tensors_in(args, kwargs) if t.is_floating_point()]
        seen = _Watch(function, inputs)
        with seen.below, seen:
            out = function(*args, **kwargs)
    found = tuple(
        Kink(name, place, fate, count, operation)
        for (name, place, fate, operation), count in seen.found.items()
    )
    custom = custom_functions(out)
    return Watched(found, seen.careful, seen.below.severed, custom=custom, held=seen.held)
