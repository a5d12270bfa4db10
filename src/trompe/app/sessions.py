"""Who uses the page: each visitor has models, an attack and a result of their own."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor

from trompe.engine.frozen import shared_copy
from trompe.errors import UsageError
from trompe.explain import Method
from trompe.types import AttackResult, LoadedModel
from trompe.zoo import load_model

BETA = 5.0
"""Of the smoothed maps that are shown first."""


class Models:
    """The networks that the page offers, each loaded once.

    Args:
        names: that may be asked for; the page runs no others, whatever a request says.
        device: where they compute.
    """

    def __init__(self, names: Sequence[str], device: str = "cpu") -> None:
        self.names, self.device = tuple(names), device
        self._loaded: dict[str, LoadedModel] = {}
        self._lock = threading.Lock()

    def load(self, name: str) -> LoadedModel:
        """The network ``name``, around the same weights but an object of its own.

        What is remembered of a network (captured steps, checks) is remembered per object: two
        visitors at once never share it.

        Raises:
            UsageError: if the page does not offer it.
            TrompeError: if it cannot be loaded.
        """
        if name not in self.names:
            raise UsageError(f"this page has no model '{name}': choose {', '.join(self.names)}")
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = load_model(name, device=self.device)
            loaded = self._loaded[name]
        return dataclasses.replace(loaded, model=shared_copy(loaded.model))


@dataclass(frozen=True)
class Finished:
    """What an attack of a visitor left.

    Args:
        loaded: the network.
        name: of the method attacked.
        method: the method.
        result: what was found.
    """

    loaded: LoadedModel
    name: str
    method: Method
    result: AttackResult

    @property
    def target(self) -> Tensor:
        """The map aimed at, [H, W]."""
        return self.result.aim[0]


@dataclass
class Session:
    """One open page.

    Args:
        models: that it may use.
        beta: of the smoothed maps that it shows.
        finished: what its last attack left.
    """

    models: Models
    beta: float = BETA
    finished: Finished | None = None
    _own: dict[str, LoadedModel] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event | None = None
    _look: threading.Event | None = None
    alone: threading.Lock = field(default_factory=threading.Lock)
    """Held by whatever works with the networks of this page."""

    def model(self, name: str) -> LoadedModel:
        """The network ``name`` as this page uses it; the last one is kept."""
        if name not in self._own:
            self._own = {name: self.models.load(name)}
        return self._own[name]

    @property
    def running(self) -> bool:
        """Whether an attack is running."""
        return self._stop is not None

    @contextmanager
    def attacking(self) -> Iterator[threading.Event]:
        """The time of an attack; yields what ends it when set.

        Raises:
            UsageError: if one is running already.
        """
        with self._lock:
            if self._stop is not None:
                raise UsageError("an attack is running: stop it, or wait for its end")
            stop = self._stop = threading.Event()
            if self._look is not None:
                self._look.set()
        try:
            yield stop
        finally:
            with self._lock:
                self._stop = None

    @contextmanager
    def looking(self) -> Iterator[threading.Event | None]:
        """The time of a look at a photo before an attack of it; yields what ends it when set.

        The start of an attack ends it, and so does another look. Yields ``None`` where it is not
        the time for one: an attack is running, or what it left is shown.
        """
        ended = threading.Event()
        with self._lock:
            if self._look is not None:
                self._look.set()
            if self._stop is not None or self.finished is not None:
                ended.set()
            self._look = ended
        mine = False
        while not (ended.is_set() or mine):
            mine = self.alone.acquire(timeout=0.1)
        try:
            yield None if ended.is_set() else ended
        finally:
            if mine:
                self.alone.release()

    def stop(self) -> None:
        """End the attack that is running, if one is, and a look."""
        with self._lock:
            for event in (self._stop, self._look):
                if event is not None:
                    event.set()


class Sessions:
    """All open pages, by what the browser calls them.

    Args:
        models: that they may use.
    """

    def __init__(self, models: Models) -> None:
        self.models = models
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()

    def of(self, name: str | None) -> Session:
        """The session of a page; a new one where there is none."""
        with self._lock:
            return self._open.setdefault(name or "", Session(self.models))

    def known(self, name: str | None) -> Session | None:
        """The session of a page that is open."""
        with self._lock:
            return self._open.get(name or "")

    def close(self, name: str | None) -> None:
        """The page was left: end its work and forget it."""
        with self._lock:
            session = self._open.pop(name or "", None)
        if session is not None:
            session.stop()

    def __len__(self) -> int:
        """How many pages are open."""
        return len(self._open)
