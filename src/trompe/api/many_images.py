"""``trompe.audit`` and ``trompe.report``: the attack over many images, and what it showed."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from trompe.api.inputs import usual_model
from trompe.audit import Run, Settings, Status, open_run, run_audit
from trompe.cli.audit import WORST_CASE
from trompe.errors import UsageError
from trompe.progress import shown
from trompe.report.for_audit import Statement, write_audit_report
from trompe.report.html import write_report
from trompe.zoo import ModelSpec


def audit(
    output: str | os.PathLike[str],
    *,
    models: str | ModelSpec | tuple[str | ModelSpec, ...] | None = None,
    methods: str | tuple[str, ...] = "gradient",
    worst_case: float | None = WORST_CASE,
    device: str = "cpu",
    workers: int | None = None,
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Attack the explanations of many images, and keep everything in a folder.

    It may be ended at any moment: the same call goes on where it was.

    Args:
        output: folder of the run.
        models: names of networks, ``NAME=WEIGHTS`` for weights of your own, or specifications; by
            default ``efficientnet-lite0``.
        methods: explanations attacked.
        worst_case: share of the full search that is spent on the worst map of every image; ``None``
            for attacks towards targets alone.
        device: where to compute.
        workers: processes; one by default.
        progress: whether to draw a bar.
        **settings: the other fields of ``trompe.audit.Settings``: ``images``, ``smoothings``,
            ``presets``, ``objective``, ``constraint``, ``pairs``, ``seed``, ``iterations``, ...

    Returns:
        The run, for reading: ``run.rows``, ``run.status``.

    Raises:
        TrompeError: if a setting is unknown or out of range, or the folder holds another run.
    """

    def spec(model: str | ModelSpec) -> ModelSpec:
        if isinstance(model, ModelSpec):
            return model
        name, _, weights = model.partition("=")
        return ModelSpec(name, weights or None)

    known = set(Settings.__dataclass_fields__) - {"known"}
    if unknown := sorted(settings.keys() - known):
        raise UsageError(
            f"an audit has no setting '{unknown[0]}'; it has {', '.join(sorted(known))}"
        )
    named = usual_model() if models is None else models
    wanted = named if isinstance(named, tuple) else (named,)
    chosen = Settings(
        models=tuple(map(spec, wanted)),
        methods=methods if isinstance(methods, tuple) else (methods,),
        worst_case=worst_case,
        **settings,
    )
    bar = shown(progress, "audit")

    def watch(now: Status) -> None:
        if bar is not None:
            bar(now.done + now.errors, now.cells, {"errors": float(now.errors)})

    run_audit(Path(output), chosen, device=device, workers=workers, watch=watch)
    return open_run(Path(output))


def report(
    run: Run | str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    reader: Literal["client", "audit"] = "client",
    author: str | None = None,
    intended_use: str | None = None,
    relied_on_by: str | None = None,
    most: int = 12,
    before: Run | str | os.PathLike[str] | None = None,
) -> Path:
    """Write what a run showed, as a page.

    Args:
        run: or its folder.
        output: folder for the report; by default the run's.
        reader: ``client``, or ``audit`` for eleven sections to sign, as a page and as JSON.
        author: who answers for the report.
        intended_use: what the system is for; for ``audit``.
        relied_on_by: who relies on the maps; for ``audit``.
        most: attacks shown as pictures; for ``client``.
        before: the same audit of the network before it was hardened.

    Returns:
        Where the page lies.

    Raises:
        TrompeError: if the run has no finished cell or is not as it was written, a file cannot be
            written, or options do not go together.
    """
    said = {"author": author, "intended_use": intended_use, "relied_on_by": relied_on_by}
    with ExitStack() as held:
        opened = _opened(run, held)
        original = None if before is None else _opened(before, held)
        folder = opened.folder if output is None else Path(output)
        if reader == "audit":
            given = {name: text for name, text in said.items() if text is not None}
            return write_audit_report(opened, folder, Statement(**given), before=original)
        if intended_use is not None or relied_on_by is not None:
            raise UsageError("intended_use and relied_on_by go with reader='audit'")
        return write_report(opened, folder, most=most, author=author, before=original)


def _opened(run: Run | str | os.PathLike[str], held: ExitStack) -> Run:
    """The run, or that of the folder, which is then closed with the rest."""
    if isinstance(run, Run):
        return run
    found = open_run(Path(run))
    held.callback(found.store.close)
    return found
