"""Numbers of a step, read only by who looks at them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor


class Means(Mapping[str, float]):
    """Means over a batch, NaN left out.

    Each is taken when it is looked at: reading a number waits for a GPU to finish, and a bar that
    is drawn five times a second looks at few.

    Args:
        values: per name the numbers of the images, [B].
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> float:
        return float(self._values[name].nanmean())

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
