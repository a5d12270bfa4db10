"""Doing what is missing of a run, in this process or in several."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from trompe.audit.agreement import agree, unused
from trompe.audit.cell import refuse_unfit, unusable_methods
from trompe.audit.cluster import RayOptions, ray_package
from trompe.audit.findings import reopen
from trompe.audit.on_ray import work_on_ray
from trompe.audit.processes import end_with_parent
from trompe.audit.provenance import facts
from trompe.audit.schema import FILE
from trompe.audit.seal import write_seal
from trompe.audit.settings import Settings
from trompe.audit.sources import open_source
from trompe.audit.status import Status, status
from trompe.audit.store import Store
from trompe.audit.worker import POLL, Watch, work_on
from trompe.errors import ModelError, OutputError, TrompeError, UsageError

#: What may do the work of a run.
ENGINES = ("plain", "ray")
#: How often a cell is tried that fails.
TRIES = 3
#: No more processes, and no more threads of each: more would bring the machine down.
MOST = max(64, os.cpu_count() or 1)


def _child(folder: Path, device: str, threads: int) -> None:
    """The body of a worker process."""
    end_with_parent()
    torch.set_num_threads(threads)
    try:
        work_on(folder, device)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except TrompeError as error:
        logging.getLogger("trompe").error("%s", error)
        raise SystemExit(2) from error


def run_audit(
    folder: str | Path,
    settings: Settings,
    *,
    device: str = "cpu",
    engine: str = "plain",
    workers: int | None = None,
    threads: int | None = None,
    ray_address: str | None = None,
    retry: bool = False,
    watch: Watch | None = None,
) -> Status:
    """Attack every cell of an audit that is not done yet.

    May be ended at any moment and started again with the same settings; may be started several
    times at once, by one or several processes. Cells that failed are tried again, by each start
    once, up to ``TRIES`` times.

    Args:
        folder: of the run; made if it is not there.
        settings: what is to be done; the same every time.
        device: where to compute.
        engine: ``plain`` for processes on this machine, ``ray`` for those of a Ray cluster. It has
            no part in the results, and may be another one when the run goes on.
        workers: processes; by default one, or on Ray as many as there is room for.
        threads: of each; by default torch's choice, shared by the workers, or one on Ray.
        ray_address: of a cluster that runs (``auto`` for the one on this machine); by default one
            is started on this machine, and ended with the run.
        retry: also try failed cells again that failed ``TRIES`` times already.
        watch: called now and then with how far the run is.

    Returns:
        How far the run is.

    Raises:
        UsageError: if the folder was begun with other settings, or Ray cannot be used.
        StoreError: if it is damaged.
        OutputError: if it cannot be written.
    """
    folder = Path(folder)
    if engine not in ENGINES:
        raise UsageError(f"unknown engine '{engine}': choose from {', '.join(ENGINES)}")
    for name, number in (("workers", workers), ("threads", threads)):
        if number is not None and not 1 <= number <= MOST:
            raise UsageError(f"{name} must be within 1..{MOST}, not {number}")
    if ray_address is not None and engine != "ray":
        raise UsageError("ray_address goes with the engine 'ray'")
    if engine == "ray":
        ray_package()  # before anything is written
    source = open_source(settings.images)
    images = source.images()
    found, unusable, unfit = [], [], list[ModelError]()
    # On Ray, others compute: this machine need not have their device.
    here = "auto" if engine == "ray" and device != "cpu" else device
    for spec in settings.models:
        loaded = spec.load(here)
        if settings.certification is not None:
            settings.certification.check_side(loaded.size)
        found.append(facts(spec, loaded))
        unusable.append(unusable_methods(settings, loaded))
        try:
            refuse_unfit(loaded)
        except ModelError as problem:
            unfit.append(ModelError(f"model '{spec.key}': {problem}"))
    for method, error in unusable[0].items():
        if all(method in others for others in unusable):  # not the fault of one model's cells
            raise error
    if len(unfit) == len(settings.models):
        raise unfit[0]
    record = settings.recorded(source, images, found)
    with begun(folder) as store:
        agree(store, record, images)
        store.check_chain()
        with store.transaction() as db:
            reopen(db, most=None if retry else TRIES)
        if engine == "ray":
            work_on_ray(folder, device, watch, RayOptions(ray_address, workers, threads or 1))
        elif workers is not None and workers > 1:
            _several(folder, device, workers, threads, store, watch)
        else:
            if threads is not None:
                torch.set_num_threads(threads)
            work_on(folder, device, watch)
        write_seal(store)
        return status(store)


@contextmanager
def begun(folder: Path) -> Iterator[Store]:
    """The store of a run; what was made for nothing is taken away again.

    A command that is refused before a single cell is planned leaves a folder as it found it.
    """
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    fresh = not (folder / FILE).exists()
    try:
        with Store(folder, create=True) as store:
            try:
                yield store
            except BaseException:
                fresh = fresh and unused(store)
                raise
    except BaseException as error:
        if fresh:
            with contextlib.suppress(OSError):
                for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
                    (folder / name).unlink(missing_ok=True)
                for one in made:
                    one.rmdir()  # those that are empty
        if isinstance(error, OSError):
            raise OutputError(
                f"cannot use '{error.filename or folder}': {error.strerror or error}: start the "
                "same command again, it goes on where it was"
            ) from error
        raise


def _several(
    folder: Path, device: str, workers: int, threads: int | None, store: Store, watch: Watch | None
) -> None:
    """Let processes work, and tell how far they are."""
    each = threads or max(1, torch.get_num_threads() // workers)
    context = multiprocessing.get_context("spawn")
    children = [
        context.Process(target=_child, args=(folder, device, each), daemon=True)
        for _ in range(workers)
    ]
    for child in children:
        child.start()
    while any(child.is_alive() for child in children):
        time.sleep(POLL)
        if watch is not None:
            watch(status(store))
    failed = [child.exitcode for child in children if child.exitcode]
    if failed and status(store).open:
        raise TrompeError(
            f"{len(failed)} of {workers} workers ended early (exit code {failed[0]}): start the "
            "same command again, it goes on where it was"
        )
