"""``trompe verify --repeat``: some batches of a run are done again."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from trompe.cli.console import progress_bar

if TYPE_CHECKING:
    from trompe.audit import Run
    from trompe.audit.source import Source
    from trompe.audit.verify import Verifier


def given_source(opened: Run, images: str) -> Source:
    """The images that were named, which must be those of the run."""
    from trompe.audit.repeat import check_images
    from trompe.audit.sources import open_source

    source = open_source(images)
    check_images(opened, source)
    return source


def done_again(
    verifier: Verifier,
    count: int,
    seed: int | None,
    *,
    exact: bool,
    source: Source | None,
    quiet: bool,
) -> dict[str, Any]:
    """Do some batches again: which were drawn, and what came of it."""
    from trompe.audit.repeat import Repeater

    # A forger must not know beforehand which ones.
    chosen = secrets.randbelow(2**32) if seed is None else seed
    repeater = Repeater(verifier.run, verifier, source=source, exact=exact)
    batches = repeater.drawn(count, chosen)
    done = []
    with progress_bar("repeat", unit="batch", quiet=quiet) as bar:
        for number in batches:
            done.append(repeater.repeat(number))
            if bar is not None:
                bar(len(done), len(batches), {})
    found = [text for one in done for text in one.problems]
    numbers = {name: sum(getattr(one, name) for one in done) for name in ("exact", "close")}
    return {
        "seed": chosen,
        "batches": batches,
        "cells": sum(one.cells for one in done),
        **numbers,
        "left": [text for one in done for text in one.left],
        "problems": found,
    }
