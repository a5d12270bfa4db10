"""What each operation with a kink is, in one record: its kinks, its derivative, its stand-in.

How such an operation may be spelled stands in ``trompe.engine.spellings``, which reads every
spelling into one of these records. Smoothing, the report of kinks, the record of a pass and the
rules of all methods read the same records, so that what is entered once is known everywhere. The
records stand in ``trompe.engine.activations`` and ``trompe.engine.selections``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor

Function = Callable[..., Any]
Kind = Literal["activation", "pooling", "choice"]


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation with a kink.

    Args:
        name: in the words of the literature, such as ``relu``.
        kind: an ``activation`` (place by place), a ``pooling`` (the maximum of a window or of a
            dimension), or a ``choice`` between two values by a comparison.
        function: what it is recorded as, however the model spells it.
        stand_in: ``stand_in(beta, *arguments)``, the smooth function that tends to it as beta
            grows, for the arguments of ``function``.
        smooth: what a stand-in is recorded as.
        gate: ``gate(x, *settings)``, the derivative of an activation of one input, between its
            kinks.
        kinks: ``kinks(*settings)``, the inputs at which the derivative of an activation of one
            input jumps.
        also: other functions that it may be recorded as, of the same meaning.
    """

    name: str
    kind: Kind
    function: Function
    stand_in: Function
    smooth: tuple[Function, ...]
    gate: Callable[..., Tensor] | None = None
    kinks: Callable[..., tuple[float, ...]] | None = None
    also: tuple[Function, ...] = ()

    def of(self, *args: Any, function: Function | None = None) -> Reading:
        """A call of this operation, recorded as ``function`` if not by its own."""
        return Reading(self, function or self.function, args)

    @property
    def recorded(self) -> tuple[Function, ...]:
        """All functions that it is recorded as, not smoothed."""
        return (self.function, *self.also)


class Reading(NamedTuple):
    """A call, read.

    Args:
        operation: what it is.
        function: what is recorded, with ``args``, in its place, of equal value; ``None`` records
            the call as it stands.
        args: see ``function``.
        soft: the value of the stand-in at a beta, where it does not follow from ``args``.
        on: what was compared, if not ``args``: a kink in constants is none of the model's.
        maxout: whether a maximum over a dimension is no pooling, but an activation.
    """

    operation: Operation
    function: Function | None
    args: tuple[Any, ...] = ()
    soft: Callable[[Any], Any] | None = None
    on: tuple[Any, ...] = ()
    maxout: bool = False

    @property
    def kind(self) -> Kind:
        """That of this call of the operation."""
        return "activation" if self.maxout else self.operation.kind

    @property
    def name(self) -> str:
        """In the words of the literature."""
        return "maxout" if self.maxout else self.operation.name

    def smoothed(self, beta: Any) -> Any:
        """The value of the smooth stand-in."""
        if self.soft is not None:
            return self.soft(beta)
        return self.operation.stand_in(beta, *self.args)
