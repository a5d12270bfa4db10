"""An attack that is interrupted gives back what it had; whoever needs all of it must not go on."""

from __future__ import annotations

from typing import Protocol, TypeVar


class _Ended(Protocol):
    @property
    def stopped(self) -> str: ...


Result = TypeVar("Result", bound=_Ended)


def whole(result: Result) -> Result:
    """The result of an attack that ran to its end.

    Args:
        result: with ``stopped``, why it ended.

    Raises:
        KeyboardInterrupt: if the attack was interrupted: a number computed from a part of it would
            pass for one of the whole.
    """
    if result.stopped == "interrupted":
        raise KeyboardInterrupt
    return result
