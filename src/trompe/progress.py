"""A bar for long work, in a terminal or a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from trompe.types import Progress


class Bar:
    """A ``Progress`` that draws itself with tqdm.

    Args:
        what: is going on.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._bar: Any = None

    def __call__(self, done: int, total: int, numbers: Mapping[str, float]) -> None:
        """Move the bar to ``done`` of ``total``; another one begins when work starts anew."""
        if self._bar is None or done < self._bar.n:
            self.close()
            self._bar = _bar_of()(desc=self.what, total=total)
        self._bar.set_postfix({k: f"{v:.3g}" for k, v in numbers.items()}, refresh=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def _bar_of() -> Any:
    """The kind of bar that fits: a notebook's own where it can draw one, or plain text."""
    if find_spec("ipywidgets") is None:  # tqdm.auto would complain of it in every notebook
        from tqdm import tqdm
    else:
        from tqdm.auto import tqdm
    return tqdm


def shown(progress: Progress | bool | None, what: str) -> Progress | None:
    """The callback for ``progress``: a bar if it is ``True``, none if ``False``."""
    if isinstance(progress, bool):
        return Bar(what) if progress else None
    return progress
