"""A run on Ray: this process plans, reads images and writes what Ray's workers find.

A batch travels with its images, and once per kind of batch with the model and the explanation
method, so that the workers need neither the files nor a folder that is shared. What comes back is
written here alone: SQLite is not safe on a network file system.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trompe.audit.batches import Batch, Cell, Pixels
from trompe.audit.cell import Finding, Worker
from trompe.audit.cluster import RayOptions, connected, first_line, own_modules_travel, ray_package
from trompe.audit.provenance import versions
from trompe.audit.store import Store
from trompe.audit.worker import POLL, Process, Watch, work_on
from trompe.errors import TrompeError, UsageError
from trompe.zoo import choose_device, is_function

log = logging.getLogger("trompe")

#: How often Ray starts a batch again whose worker died, before it gives it back.
RETRIES = 2
#: How often this process then hands it out, before it is left alone.
ROUNDS = 2


@dataclass(frozen=True)
class Answer:
    """What a worker gives back: what came of a batch, and who it is."""

    findings: Sequence[Finding]
    host: str
    pid: int
    versions: Mapping[str, str]


#: In a worker: what it had in hand last, under the number of the message that brought it.
_in_hand: dict[str, Worker] = {}


def _attack(
    sent: list[Any], cells: Sequence[Cell], pixels: Pixels, device: str, threads: int
) -> Answer:
    """The body of a task: one batch, in a worker.

    Args:
        sent: holds the reference to the ``Worker``: in a list Ray leaves it unread, so that a
            process which has it already need not unpack the model again.
        cells: of the batch.
        pixels: of their images.
        device: where to compute.
        threads: of the CPU.
    """
    import ray

    torch.set_num_threads(threads)
    key = sent[0].hex()
    if key not in _in_hand:
        _in_hand.clear()
        worker: Worker = ray.get(sent[0])
        worker.move(choose_device(device))
        _in_hand[key] = worker
    findings = _in_hand[key].batch(cells, pixels)
    return Answer(findings, socket.gethostname(), os.getpid(), versions())


class RayProcess(Process):
    """Hands the batches of a run out to Ray, and enters what comes back.

    Args:
        store: of the run.
        device: where the workers compute.
        watch: called now and then with how far the run is.
        options: what of Ray is used.

    Raises:
        UsageError: if the cluster has no room for a single batch.
    """

    def __init__(
        self, store: Store, device: str, watch: Watch | None, *, options: RayOptions
    ) -> None:
        self.ray, self.options, self.workers_device = ray_package(), options, device
        gpu = device != "cpu" and self.ray.cluster_resources().get("GPU", 0) > 0
        if device.startswith("cuda") and not gpu:
            raise UsageError("the Ray cluster has no GPU: give --device cpu")
        self.needs = {"CPU": float(options.threads)} | ({"GPU": 1.0} if gpu else {})
        if not self._places():
            raise UsageError(f"no machine of the Ray cluster has {self.needs}: lower --threads")
        # The machine that hands out the work need not have the device of those that do it.
        super().__init__(store, "cpu" if device == "cpu" else "auto", watch)
        self.sent = functools.lru_cache(maxsize=1)(self._sent)
        self.lost: Counter[int] = Counter()
        self.known: set[tuple[str, int]] = set()
        self.task = self.ray.remote(_attack).options(
            name="trompe-batch",
            max_retries=RETRIES,
            num_cpus=self.needs["CPU"],
            num_gpus=self.needs.get("GPU", 0),
        )

    def _places(self) -> int:
        """How many batches the cluster has room for; it may grow and shrink."""
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return sum(
            min(int(has.get(kind, 0) // much) for kind, much in self.needs.items())
            for has in machines
        )

    def _room(self) -> int:
        """How many batches to hand out: for each place one, and one that is ready when it ends."""
        places = self._places()
        if self.options.address is not None and self.options.workers is not None:
            return min(self.options.workers, 2 * places)
        return 2 * places

    def _sent(self, model: str, kind: tuple[str, str, str]) -> Any:
        """The worker for a kind of batches, as Ray holds it for all machines."""
        worker = self.worker(model, kind)
        worker.move(torch.device("cpu"))  # the others may have no other device
        # A function of the user's made the model, or a module of theirs registered a part.
        own_code = is_function(model) or bool(self.settings.code_of_parts())
        try:
            with own_modules_travel() if own_code else nullcontext():
                return self.ray.put(worker)
        except Exception as error:  # code of the user's: anything can be in it
            raise TrompeError(
                f"model '{model}' and what works on it cannot be sent to Ray's workers "
                f"({first_line(error)}): use "
                "--engine plain"
            ) from error

    def work(self) -> None:
        """Work on batches until all are done, by Ray's workers or another process."""
        out: dict[Any, Batch] = {}
        try:
            while True:
                while len(out) < self._room() and (batch := self.take(without=self._spoilt())):
                    out[self._hand_out(batch)] = batch
                if out:
                    for answer in self.ray.wait(list(out), timeout=POLL)[0]:
                        self._collect(answer, out.pop(answer))
                        self.tell()
                elif self.unfinished(without=self._spoilt()):
                    time.sleep(POLL)
                else:
                    break
        finally:
            for answer in out:
                self.ray.cancel(answer, force=True)
        if spoilt := self._spoilt():
            raise TrompeError(
                f"Ray's workers died over {len(spoilt)} of the batches, {ROUNDS * (RETRIES + 1)} "
                "times each (out of memory?): their cells are left open; start the same command "
                "again, with fewer --workers"
            )

    def _hand_out(self, batch: Batch) -> Any:
        """Start a batch, and return the promise of its answer."""
        return self.task.remote(
            [self.sent(batch.model, batch.kind)],
            batch.cells,
            self.read(batch),
            self.workers_device,
            self.options.threads,
        )

    def _collect(self, promise: Any, batch: Batch) -> None:
        """Enter what came of a batch, or give it back if its worker died once too often."""
        try:
            answer: Answer = self.ray.get(promise)
        except self.ray.exceptions.RayTaskError as error:
            # Cells that fail are findings: this is something else.
            raise TrompeError(
                f"a Ray worker cannot do its work ({first_line(error.cause)}): all machines need "
                "the same trompe"
            ) from error
        except self.ray.exceptions.RayError as error:
            log.warning("batch %d came back from Ray undone (%s)", batch.id, type(error).__name__)
            self.lost[batch.id] += 1
            with self.store.transaction():
                self.claims.drop(batch.claim)
            return
        if (answer.host, answer.pid) not in self.known:
            self.known.add((answer.host, answer.pid))
            self.store.note_start(answer.pid, answer.versions)
        self.finish(batch, answer.findings)

    def _spoilt(self) -> list[int]:
        """The batches that are not handed out any more."""
        return [batch for batch, times in self.lost.items() if times >= ROUNDS]


def work_on_ray(folder: Path, device: str, watch: Watch | None, options: RayOptions) -> None:
    """Do what is missing of a run that was begun, on Ray.

    Raises:
        TrompeError: if Ray, the run, its images or a model cannot be used.
    """
    with connected(options):
        work_on(folder, device, watch, functools.partial(RayProcess, options=options))
