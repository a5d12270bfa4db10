"""What the page does, without the page: a visitor's wish in, what is shown out."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trompe.app import pictures, words
from trompe.app.download import write_zip
from trompe.app.live import LiveAttack
from trompe.app.sessions import Finished, Session, Sessions
from trompe.app.wishes import MOST_STEPS, OWN, QUICK, WRITTEN, Wish, photo_pixels
from trompe.attacks.presets import DEFAULT_PRESET
from trompe.errors import TrompeError
from trompe.report.style import bright
from trompe.types import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger("trompe")

_ANY = Preprocessing(224, 256)


@dataclass(frozen=True)
class Outcome:
    """What is shown of a result.

    Args:
        images: the photo before and after.
        maps: its heat map before and after.
        smoothed: the maps by the smoothed network, HTML.
        download: path of the zip file, which is gone when the next thing is asked for.
    """

    images: tuple[Image, Image]
    maps: tuple[Image, Image]
    smoothed: str
    download: str


@dataclass(frozen=True)
class Shown:
    """What changes on the page; ``None`` stands for what stays.

    Args:
        status: a line of HTML above the pictures.
        live: the frame, HTML.
        running: whether an attack is running.
        fresh: whether the last result goes.
        outcome: the result.
    """

    status: str | None = None
    live: str | None = None
    running: bool | None = None
    fresh: bool = False
    outcome: Outcome | None = None


def in_a_line(error: Exception) -> str:
    """What went wrong, in a line for a visitor; a bug goes to the log as well."""
    if isinstance(error, TrompeError):
        return words.error_line(str(error))
    log.warning("the page: unexpected %s: %s", type(error).__name__, error)
    log.debug("where it happened", exc_info=error)
    return words.error_line(f"unexpected {type(error).__name__}: {error}")


class Handlers:
    """What happens when something is pressed.

    Args:
        sessions: of the open pages.
    """

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    def preview(self, photo: str, upload: str | None) -> tuple[str, str]:
        """The photo chosen, and nothing wrong; or nothing, and what is wrong."""
        if photo == OWN and upload is None:
            return "", ""
        try:
            pixels = photo_pixels(photo, upload, _ANY)
        except Exception as error:
            return "", in_a_line(error)
        address = pictures.address(pictures.photo(pixels))
        return f'<div class="chosen-photo"><img alt="the photo" src="{address}"></div>', ""

    def uploaded(self, upload: str) -> str:
        """What is wrong with an uploaded photo, HTML; empty if nothing is."""
        try:
            photo_pixels(OWN, upload, _ANY)
        except Exception as error:
            return in_a_line(error)
        return ""

    def look(self, page: str | None, *chosen: Any) -> str | None:
        """A photo, what the network answers, and why, before anything is changed.

        Args:
            page: what the browser calls it.
            chosen: photo, file of the own photo, network and explanation, as of ``Wish``.

        Returns:
            HTML; ``None`` where what is shown stays: an attack or its result is, the explanation
            takes long, or the choice makes no sense, which its start will say.
        """
        session = self.sessions.of(page)
        with session.looking() as ended:
            attack = None if ended is None else self._before(session, chosen)
            if attack is None:
                return None
            try:
                return words.before(attack.first(), attack)
            except TrompeError as error:
                log.debug("the page: nothing to look at: %s", error)
                return None

    def warm(self, page: str | None, *chosen: Any) -> None:
        """Do ahead, while the visitor draws, what an attack takes time for before its first step.

        Args:
            page: what the browser calls it; nothing is done where it was left.
            chosen: as of ``look``.
        """
        session = self.sessions.known(page)
        if session is None:
            return
        with session.looking() as ended:
            attack = None if ended is None else self._before(session, chosen)
            if attack is None or ended is None:
                return
            attack.stop = ended
            try:
                with closing(attack.__iter__()) as frames:
                    next((frame for frame in frames if frame.step), None)
            except TrompeError as error:
                log.debug("the page: nothing done ahead: %s", error)

    def _before(self, session: Session, chosen: Any) -> LiveAttack | None:
        """An attack of what is chosen, to be looked at before it is begun in earnest."""
        photo, upload, model, method = chosen
        if method not in QUICK:
            return None
        try:
            wish = Wish(photo, upload, model, method, DEFAULT_PRESET, MOST_STEPS, WRITTEN, text="?")
            loaded = session.model(model)
            explainer = wish.explainer(loaded)
            return LiveAttack(
                loaded, wish.image(loaded), wish.target(loaded, explainer), explainer,
                preset=wish.preset, steps=wish.steps, every=0.0,
            )  # fmt: skip
        except TrompeError as error:
            log.debug("the page: nothing to look at yet: %s", error)
            return None

    def start(self, page: str | None, *form: Any) -> Iterator[Shown]:
        """Run an attack, frame after frame, until it ends or is stopped."""
        session = self.sessions.of(page)
        try:
            wish = Wish(*form)
            with session.attacking() as stop:
                session.finished = None  # it is no longer shown, whatever comes of this attack
                yield Shown(words.note("Preparing ..."), running=True, fresh=True)
                try:
                    with session.alone:
                        yield from self._attack(session, wish, stop)
                except Exception as error:
                    yield Shown(in_a_line(error), running=False)
        except TrompeError as error:  # the wish makes no sense, or another attack is running
            yield Shown(in_a_line(error))

    def _attack(self, session: Session, wish: Wish, stop: Any) -> Iterator[Shown]:
        loaded = session.model(wish.model)
        method = wish.explainer(loaded)
        attack = LiveAttack(
            loaded,
            wish.image(loaded),
            wish.target(loaded, method),
            method,
            preset=wish.preset,
            steps=wish.steps,
            stop=stop,
        )
        view = words.View(attack)
        with closing(attack.__iter__()) as frames:
            for frame in frames:
                said = words.pace(attack.one_look, wish.steps) if frame.step == 0 else None
                yield Shown(said, view.show(frame))
        assert attack.result is not None  # or the iterator has raised
        finished = session.finished = Finished(loaded, wish.method, method, attack.result)
        with tempfile.TemporaryDirectory(prefix="trompe-app-") as folder:
            # Whoever takes this copies the file before asking for more.
            download = write_zip(finished.result, Path(folder) / "trompe-result.zip")
            outcome = _outcome(finished, session.beta, str(download))
            yield Shown(words.ended(finished), running=False, outcome=outcome)

    def stop(self, page: str | None) -> None:
        """End the attack of a page; what it has found is shown."""
        self.sessions.of(page).stop()

    def smooth(self, page: str | None, beta: float) -> str | None:
        """The maps by the network smoothed with ``beta``.

        Returns:
            HTML; ``None`` where there is no result, or another one by the time they are computed.
        """
        session = self.sessions.of(page)
        session.beta = beta
        finished = session.finished
        if finished is None:
            return None
        maps = _smoothed(finished, beta)
        return maps if session.finished is finished else None


def _outcome(finished: Finished, beta: float, download: str) -> Outcome:
    result = finished.result
    before, after = (result.input_space.to_pixels(x)[0] for x in (result.x, result.x_adv))
    maps = result.map_original[0], result.map_adv[0]
    brightest = bright([*maps, finished.target])
    return Outcome(
        images=(
            pictures.enlarged(pictures.photo(before)),
            pictures.enlarged(pictures.photo(after)),
        ),
        maps=(
            pictures.enlarged(pictures.heat(maps[0], brightest)),
            pictures.enlarged(pictures.heat(maps[1], brightest)),
        ),
        smoothed=_smoothed(finished, beta),
        download=download,
    )


def _smoothed(finished: Finished, beta: float) -> str:
    try:
        return words.smoothed(finished, beta)
    except Exception as error:
        return in_a_line(error)
