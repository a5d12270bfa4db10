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

from trompe.engine.apart import apart, kept
from trompe.engine.inplace import Redirects, out_of_place
from trompe.engine.masks import Memory, note, passes_mask
from trompe.engine.places import running
from trompe.engine.pytree import swapped, tensors_in
from trompe.engine.reading import may_be_read, read
from trompe.engine.smooth_operations import EXPONENTS, IN_FIRST, READS, SMOOTH, VALUELESS
from trompe.engine.spellings import GUARD

Fate = Literal["smoothed", "pooling", "remains"]

_AS_A_WHOLE = frozenset(
    {
        *(F.scaled_dot_product_attention, F.normalize, F.cosine_similarity, F.softsign),
        *(F.local_response_norm, F.interpolate, F.tanhshrink, F.logsigmoid, F.softmin),
    }
)
"""Functions without a kink that PyTorch computes with operations that have one."""


@dataclass(frozen=True)
class Kink:
    """Calls of one function at one place.

    Args:
        function: its name, such as ``torch.nn.functional.hardtanh``.
        place: the module that calls it, such as ``features.2 (ReLU6)``.
        fate: ``smoothed`` always, ``pooling``: only where pooling is smoothed too, or ``remains``.
        count: how often it is called in one forward pass.
        operation: the name of its record, such as ``relu``; empty where it has none.
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
    """

    kinks: tuple[Kink, ...]
    careful: bool
    severed: str
    whole: bool = False


class _Below(TorchDispatchMode):
    """Follows the numbers of the image through the operations of aten."""

    def __init__(self, inputs: list[Tensor], report: Callable[[str], None]) -> None:
        super().__init__()
        self.paused = 0
        self.severed = ""
        self._graph: set[int] = set()  # memory that tensors of the graph have had
        self._report = report
        self._storages = {id_of(t): t.untyped_storage() for t in inputs}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else PyTorch imports its compiler, a second, to keep it out of here

    def follows(self, tensor: Tensor) -> bool:
        """Whether a tensor's numbers come from the image."""
        try:
            return id_of(tensor) in self._storages
        except NotImplementedError:  # of a transform such as vmap, which has no memory of its own
            return True

    def _sever(self, func: Any, changed: list[Any]) -> None:
        """Note a change of values that the graph does not know of (``h.data.mul_(2)``)."""
        for tensor in tensors_in(changed):
            detached = torch.is_grad_enabled() and not tensor.requires_grad
            if detached and id_of(tensor) in self._graph:
                self.severed = self.severed or func._schema.name.replace("aten::", "torch.")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        with torch._C.DisableTorchFunction():
            kwargs = kwargs or {}
            met = [t for t in tensors_in(args, kwargs) if self.follows(t)]
            if not met or func._schema.name in VALUELESS:
                return func(*args, **kwargs)
            kinked = not self.paused and func._schema.name in READS
            out = func(*args, **kwargs)
            made = list(tensors_in(out))
            changed = [
                args[i]
                for i, a in enumerate(func._schema.arguments)
                if a.alias_info and a.alias_info.is_write and i < len(args)
            ]
            self._sever(func, changed)
            self._graph.update(id_of(t) for t in met if t.requires_grad)
            for tensor in (*made, *tensors_in(changed)):
                self._storages.setdefault(id_of(tensor), tensor.untyped_storage())
            if kinked or (not self.paused and _kinked(func, args, kwargs, met, made)):
                self._report(f"torch.ops.{func._schema.name.replace('::', '.')}")
            return out


def id_of(tensor: Tensor) -> int:
    """The identity of a tensor's memory."""
    found: int = tensor.untyped_storage()._cdata
    return found


_LEAVING = frozenset({Tensor.numpy, Tensor.__array__, Tensor.tolist, Tensor.__dlpack__})
"""Ways out of PyTorch, on which numbers are followed no further."""


def _kinked(func: Any, args: Any, kwargs: Any, met: list[Tensor], made: list[Tensor]) -> bool:
    """Whether an operation may have a kink in what comes from the image."""
    if not any(t.is_floating_point() or t.is_complex() for t in made):
        return False  # a comparison: a kink only where it is used
    if any(not t.is_floating_point() and not t.is_complex() for t in met):
        return True
    name = func._schema.name
    name = name[:-1] if name.endswith("_") else name
    if name in EXPONENTS and any(t.numel() == met[0].numel() for t in made):
        return True  # of single numbers: their absolute values
    if name in EXPONENTS:
        order = args[1] if len(args) > 1 else kwargs.get("ord", kwargs.get("p", 2))
        return order not in (None, 2, 2.0)
    if name in IN_FIRST:
        return any(t is not args[0] for t in met)
    if name in ("aten::clamp", "aten::clamp_min"):
        low = args[1] if len(args) > 1 else kwargs.get("min")
        high = args[2] if len(args) > 2 else kwargs.get("max")
        guard = high is None and isinstance(low, (int, float)) and 0 < low <= GUARD
        return not (guard and (args[0].is_meta or bool((args[0] > low).all())))
    return name not in SMOOTH


class _Watch(TorchFunctionMode):
    """Counts calls of kinked functions on what depends on the input."""

    def __init__(self, model: Any, inputs: list[Tensor]) -> None:
        super().__init__()
        self.found: Counter[tuple[str, str, Fate, str]] = Counter()
        self.careful = False
        self.below = _Below(inputs, self._remains)
        modules = model.named_modules() if isinstance(model, nn.Module) else ()
        self._names = {id(module): name for name, module in modules}
        self._memory = Memory()
        self._redirects = Redirects()
        self._current: str | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        memory = self._memory
        quiet = func in _AS_A_WHOLE or passes_mask(memory, func, args)
        if may_be_read(func, memory):
            (plain, a, k), overwritten = out_of_place(func, args, kwargs)
            reading = read(memory, plain, a, k)
            if reading is not None:
                with torch._C.DisableTorchFunction():
                    tensors = list(tensors_in(reading.on or reading.args))
                    depends = any(self.below.follows(t) for t in tensors)
                    quiet = True
                    if depends:
                        fate: Fate = (
                            "pooling" if reading.operation.kind == "pooling" else "smoothed"
                        )
                        if not torch.is_grad_enabled():  # in a function with its own derivative
                            fate = "remains"
                        key = (_name(func), self._place(), fate, reading.operation.name)
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

    def _remains(self, operation: str) -> None:
        name = self._current
        if name is None or name.startswith("torch.Tensor.__get__"):
            name = operation
        self.found[name, self._place(), "remains", ""] += 1

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

    with apart(), kept(), torch.inference_mode(False), torch.enable_grad():
        args, kwargs = swapped((args, kwargs), copied)
        inputs = [t for t in tensors_in(args, kwargs) if t.is_floating_point()]
        seen = _Watch(function, inputs)
        with seen.below, seen:
            function(*args, **kwargs)
    found = tuple(
        Kink(name, place, fate, count, operation)
        for (name, place, fate, operation), count in seen.found.items()
    )
    return Watched(found, seen.careful, seen.below.severed)
