"""What was reported done stays; what failed is tried again; what was refused leaves nothing."""

from __future__ import annotations

import builtins
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trompe.audit import ModelSpec, open_run, run_audit
from trompe.audit.cell import Worker
from trompe.audit.run import TRIES
from trompe.audit.worker import Process
from trompe.cli import main
from trompe.errors import OutputError, StoreError, TrompeError, UsageError

from .conftest import NETWORK, begun, numbers, small

pytestmark = pytest.mark.usefixtures("place")

OPTIONS = "--images images --model smallnet:net --size 16 --iterations 10 --pairs 4 --batch-size 2"
COMMAND = ["audit", "--output", "run", *OPTIONS.split(), "--no-worst-case", "--quiet"]


def test_an_image_that_was_changed_is_refused_by_name() -> None:
    run_audit("run", small())
    path = Path("images/i0007.png")
    path.write_bytes(Path("images/i0008.png").read_bytes())
    with pytest.raises(UsageError, match=r"image 'i0007\.png' is no longer the one"):
        run_audit("run", small())


def test_an_image_that_changes_while_the_run_is_at_work_fails_its_own_cell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = Process.work
    before = Path("images/i0003.png").read_bytes()

    def changing(self: Process) -> None:
        Path("images/i0003.png").write_bytes(Path("images/i0004.png").read_bytes())
        work(self)

    with monkeypatch.context() as patch:
        patch.setattr(Process, "work", changing)
        status = run_audit("run", small(pairs=6))
    assert (status.done, status.errors, status.complete) == (5, 1, False)
    (failed,) = (row for row in open_run("run").rows if row.message)
    assert "has changed since the run was begun" in (failed.message or "")
    Path("images/i0003.png").write_bytes(before)
    assert run_audit("run", small(pairs=6)).complete


def test_code_and_weights_of_a_function_that_changed_are_refused_by_name() -> None:
    Path("changing.py").write_text("from helping import net\n")
    Path("helping.py").write_text(NETWORK)
    settings = small(models=(ModelSpec("changing:net", size=16),), pairs=2)
    run_audit("run", settings)
    Path("helping.py").write_text(NETWORK + "\n# another comment\n")
    with pytest.raises(UsageError, match=r"code_of\.helping"):
        run_audit("run", settings)
    Path("helping.py").write_text(NETWORK)
    assert run_audit("run", settings).complete
    import helping

    helping.torch.manual_seed, seeded = lambda _: seeded(1), helping.torch.manual_seed
    try:
        with pytest.raises(UsageError, match=r"weights_of\.changing:net"):
            run_audit("run", settings)
    finally:
        helping.torch.manual_seed = seeded


def failing(times: int) -> Callable[..., object]:
    """The worker's attack, which fails at first."""
    attacked, left = Worker._attacked, [times]

    def attack(self: Worker, cells: object, pixels: object) -> object:
        if left[0] > 0:
            left[0] -= 1
            raise OSError("a passing fault")
        return attacked(self, cells, pixels)  # type: ignore[arg-type]

    return attack


def test_a_passing_fault_is_tried_again_by_the_same_command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Worker, "_attacked", failing(3))
        assert main(COMMAND) == 3, "not all is done"
    assert "2 of 4 cells failed" in capfd.readouterr().err
    messages = [row.message for row in open_run("run").rows if row.message]
    assert messages == ["OSError: a passing fault"] * 2
    assert main(COMMAND) == 0
    assert main(["undisturbed" if part == "run" else part for part in COMMAND]) == 0
    assert numbers("run") == numbers("undisturbed")
    assert main(["verify", "run", "--trust", "--quiet"]) == 0


def test_a_lasting_fault_is_tried_a_bounded_number_of_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Worker, "_attacked", failing(10_000))
    for _ in range(TRIES + 2):
        assert main(COMMAND) == 3
    rows = open_run("run").store.rows("SELECT DISTINCT tries FROM cells")
    assert [row[0] for row in rows] == [TRIES]
    assert main([*COMMAND, "--retry"]) == 3
    rows = open_run("run").store.rows("SELECT DISTINCT tries FROM cells")
    assert [row[0] for row in rows] == [TRIES + 1]


def test_a_model_that_ends_the_program_fails_its_cells_only() -> None:
    Path("quitting.py").write_text(
        NETWORK + "class Quits(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.net, self.calls = net_(), 0\n"
        "    def forward(self, x):\n"
        "        self.calls += 1\n"
        "        print('hello')\n"
        "        if self.calls > 40:\n"
        "            raise SystemExit(0)\n"
        "        return self.net(x)\n"
        "net_ = net\n"
        "def quits():\n"
        "    return Quits()\n"
    )
    command = [part if part != "smallnet:net" else "quitting:quits" for part in COMMAND]
    assert main(command) == 3


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_a_run_whose_folder_is_gone_stops(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    batch = Worker.batch
    calls: list[int] = []

    def going(self: Worker, *arguments: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            if how == "moved":
                Path("run").rename("elsewhere")
            else:
                shutil.rmtree("run")
        return batch(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "batch", going)
        with pytest.raises((StoreError, OutputError)):
            run_audit("run", small())
    assert not Path("run").exists(), "nothing is made anew in its place"
    assert len(calls) == 1
    if how == "moved":
        Path("elsewhere").rename("run")
        assert run_audit("run", small()).complete


def test_a_refused_command_leaves_nothing_that_refuses_the_right_one() -> None:
    lines = [f"images/i{i:04d}.png,4" for i in range(12)]
    Path("wrong.csv").write_text("\n".join(["file,class", *lines]))
    for folder in ("run", "a/b/run"):
        with pytest.raises(UsageError, match="no pair"):
            run_audit(folder, small(images="wrong.csv"))
        assert not Path(folder).exists()
    assert not Path("a").exists()
    begun(seed=5)  # settings entered, then killed before anything was planned
    assert run_audit("run", small(seed=6)).complete
    with pytest.raises(UsageError, match="seed: 6 -> 7"):
        run_audit("run", small(seed=7))


PARENT = """
import sys
from trompe.audit import run_audit
sys.path.insert(0, "")
from tests_small import settings
if __name__ == "__main__":
    run_audit("run", settings(), workers=2, threads=1)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="asks the system for processes")
def test_workers_end_with_their_parent_however_it_ended() -> None:
    Path("tests_small.py").write_text(
        "from trompe.audit import ModelSpec, Settings\n"
        "def settings():\n"
        "    model = ModelSpec('smallnet:net', size=16)\n"
        "    return Settings(models=(model,), images='images', pairs=100, iterations=500)\n"
    )
    Path("parent.py").write_text(PARENT)
    parent = subprocess.Popen([sys.executable, "parent.py"])

    def children() -> list[int]:
        listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        return [int(pid) for pid in listed]

    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        claims = 0
        if Path("run/run.sqlite").exists():
            try:
                claims = open_run("run").status.claimed
            except TrompeError:
                claims = 0
        if claims >= 2:
            break
        time.sleep(0.2)
    workers = children()
    assert len(workers) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in workers):
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


class Fault:
    """Fails one call of some functions of the system, the n-th that has to do with a run."""

    def __init__(self, number: int) -> None:
        self.left, self.hit = number, ""

    def __call__(self, name: str, subject: object) -> None:
        if isinstance(subject, int):
            try:
                subject = os.readlink(f"/proc/self/fd/{subject}")
            except OSError:
                return
        if "run" not in Path(str(subject)).parts and "images" not in Path(str(subject)).parts:
            return
        self.left -= 1
        if self.left == 0:
            self.hit = f"{name} {subject}"
            raise OSError(errno.EIO, "Input/output error", str(subject))


def injected(patch: pytest.MonkeyPatch, fault: Fault) -> None:
    for module, name in (
        (os, "open"),
        (os, "fsync"),
        (os, "replace"),
        (os, "mkdir"),
        (builtins, "open"),
        (os, "stat"),
    ):
        real = getattr(module, name)

        def faulty(
            first: object, *rest: object, _real: Callable = real, _name: str = name, **more: object
        ) -> object:
            fault(_name, first)
            return _real(first, *rest, **more)

        patch.setattr(module, name, faulty)


def every_fault(step: int, capfd: pytest.CaptureFixture[str]) -> None:
    number, met = 1, []
    while True:
        shutil.rmtree("run", ignore_errors=True)
        fault = Fault(number)
        with pytest.MonkeyPatch.context() as patch:
            injected(patch, fault)
            code = main(COMMAND)
        error = capfd.readouterr().err
        if not fault.hit:
            assert code == 0, error
            break
        met.append(fault.hit)
        if code:
            assert code in (2, 3), (fault.hit, error)
            assert "Traceback" not in error, (fault.hit, error)
            assert "unexpected" not in error, (fault.hit, error)
            assert len(error.splitlines()) == 1, (fault.hit, error)
        assert main(COMMAND) == 0, (fault.hit, capfd.readouterr().err)
        assert main(["verify", "run", "--arrays-only", "--quiet"]) == 0, fault.hit
        number += step
    assert len(met) > 5


def test_some_faults_of_the_disk_end_in_one_line_and_the_same_command_completes(
    capfd: pytest.CaptureFixture[str],
) -> None:
    every_fault(23, capfd)


@pytest.mark.slow
def test_every_fault_of_the_disk_ends_in_one_line_and_the_same_command_completes(
    capfd: pytest.CaptureFixture[str],
) -> None:
    every_fault(1, capfd)


def test_a_row_refers_to_an_array_only_once_file_and_names_are_on_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noting(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    from trompe.audit import findings

    written = findings.write_down

    def checking(db: object, batch: int, entries: list) -> None:
        for entry in entries:
            for name in (entry.x, entry.target_x, entry.arrays):
                folder = str(Path("run/arrays").absolute() / name[:2])
                assert folder in synced
                assert str(Path("run/arrays").absolute()) in synced
                assert any(Path(path).parent == Path(folder) for path in synced)
        written(db, batch, entries)  # type: ignore[arg-type]

    if not Path("/proc/self/fd").exists():
        pytest.skip("asks the system for the names of open files")
    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr("trompe.audit.worker.write_down", checking)
    assert run_audit("run", small()).complete
