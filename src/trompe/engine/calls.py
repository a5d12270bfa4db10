"""The entries of the record of a forward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from trompe.engine.notes import Notes


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


def users_of(calls: Iterable[OpCall]) -> Counter[int]:
    """How many operations take each tensor, by its id."""
    return Counter(id(tensor) for call in calls for tensor, _ in call.edges)
