"""A function of tensors as one flat graph: recorded once, replayed with other numbers.

A step of an attack runs thousands of small operations through autograd, torch function modes and
rules written in Python. Recorded below all of these, it is a list of calls. Replaying them gives
the same numbers to the last bit, since they are the same calls in the same order, and each tensor
is freed after its last use. ``make_fx`` makes such a graph too, five to ten times as slowly
(measured: ``docs/decisions.md``).
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from trompe.errors import CaptureError

Function = Callable[..., tuple[Tensor, ...]]
"""``function(*inputs)``: tensors from tensors, and from weights that stay as they are."""


class _Traits(NamedTuple):
    """What matters of an operation: where it writes, whether it is a view, reads, or draws."""

    writes: tuple[int, ...]
    view: bool
    reads: bool
    random: bool


@functools.cache
def _traits(func: Any) -> _Traits:
    schema = func._schema
    writes = tuple(
        i for i, a in enumerate(schema.arguments) if a.alias_info and a.alias_info.is_write
    )
    aliased = any(r.alias_info is not None for r in schema.returns)
    reads = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags)
    random = torch.Tag.nondeterministic_seeded in func.tags
    return _Traits(writes, aliased, bool(reads), random)


class _Recorder(TorchDispatchMode):
    """Runs what it sees, and notes it in a graph."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.root = nn.Module()
        self.graph = fx.Graph()
        self._nodes: Any = WeakIdKeyDictionary()
        self._owners: dict[fx.Node, fx.Node] = {}  # of the memory that a node is a view of
        for i, tensor in enumerate(inputs):
            self._nodes[tensor] = self.graph.placeholder(f"input_{i}")
        self._given = set(self.graph.nodes)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else PyTorch imports its compiler, a second, to keep it out of here

    def node(self, tensor: Tensor) -> fx.Node:
        """That of a tensor; one that was not made here is a constant, kept by reference."""
        found: fx.Node | None = self._nodes.get(tensor)
        if found is None:
            name = f"constant_{sum(1 for _ in self.root.buffers(recurse=False))}"
            self.root.register_buffer(name, tensor)
            found = self._nodes[tensor] = self.graph.get_attr(name)
            self._given.add(found)
        return found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, traits = kwargs or {}, _traits(func)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [t for t in tensors if t in self._nodes and self._nodes[t].op != "get_attr"]
        if traits.reads and made:
            raise CaptureError(f"it reads the values of its tensors as it runs ({func})")
        if traits.random:
            if tensors or kwargs.get("generator") is None:
                raise CaptureError(f"it draws random numbers ({func})")
            return func(*args, **kwargs)  # of a seed of its own: constants
        if traits.reads:
            return func(*args, **kwargs)
        given, named = tree_map_only(Tensor, self.node, (args, kwargs))
        for i in traits.writes:
            target = given[i] if i < len(given) else named.get(func._schema.arguments[i].name)
            if self._owner(target) in self._given:
                raise CaptureError(f"it writes to its inputs or to the model's tensors ({func})")
        node = self.graph.call_function(func, given, named)
        if traits.view:
            self._owners[node] = self._owner(self.node(tensors[0]))
        out = func(*args, **kwargs)
        if isinstance(out, Tensor):
            self._nodes[out] = node
        elif out is not None and not isinstance(out, (tuple, list)):
            self.graph.erase_node(node)  # a type or a number, which stays as it is
        else:
            for i, part in enumerate(out or ()):
                if isinstance(part, Tensor):
                    item = self.graph.call_function(operator.getitem, (node, i))
                    self._nodes[part] = item
                    self._owners[item] = self._owner(node)
        return out

    def _owner(self, node: Any) -> Any:
        return self._owners.get(node, node)


def capture(function: Function, inputs: Sequence[Tensor]) -> fx.GraphModule:
    """Record ``function`` on ``inputs`` (which runs it once).

    Args:
        function: differentiates within itself, if it does; what it returns carries no graph.
            Whatever it uses beside its inputs is a constant: tensors are kept by reference, so that
            their new values are seen, and what was derived from them before is not derived again.
        inputs: distinct tensors. The graph holds for others of their shapes, types and devices.

    Returns:
        The graph as a module, ``graph(*inputs) -> tuple of tensors``. Call it without gradients.

    Raises:
        CaptureError: if the function depends on values of its tensors otherwise than by
            operations, draws random numbers, or writes to what was given.
    """
    recorder = _Recorder(inputs)
    with recorder:
        out = function(*inputs)
    recorder.graph.output(tuple(recorder.node(tensor) for tensor in out))
    _simplify(recorder.graph)
    return fx.GraphModule(recorder.root, recorder.graph)


def _simplify(graph: fx.Graph) -> None:
    """Leave out what the outputs do not need, and views that are for autograd alone."""
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    graph.eliminate_dead_code()


def agree(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Whether results are the same to rounding: differences below the root of the precision.

    Relative to the largest number of each tensor. What is not finite must be so in both.
    """
    for one, other in zip(found, expected, strict=True):
        finite = torch.isfinite(other)
        if one.shape != other.shape or not torch.equal(torch.isfinite(one), finite):
            return False
        if not bool(finite.any()):
            continue
        error = (one - other)[finite].abs().max()
        scale = other[finite].abs().max()
        if bool(error > torch.finfo(other.dtype).eps ** 0.5 * scale):
            return False
    return True
