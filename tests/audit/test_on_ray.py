"""Ray's workers find what one process finds, whether they live or die."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trompe.audit import ModelSpec, open_run, run_audit
from trompe.audit.cluster import ray_package
from trompe.audit.status import Status
from trompe.errors import TrompeError, UsageError

from .conftest import NETWORK, numbers, small

#: Kills the process it is in with SIGKILL in the midst of an attack, unless that is the one it was
#: made in; the first time only, or whenever it can.
MORTAL = """
import os, signal
from pathlib import Path

class Mortal(nn.Module):
    def __init__(self, again):
        super().__init__()
        self.net, self.home, self.calls, self.again = immortal(), os.getpid(), [], again
        self.mark = Path("killed").absolute()

    def forward(self, x):
        self.calls.append(x.shape)
        if os.getpid() != self.home and len(self.calls) == 15:
            if self.again or not self.mark.exists():
                self.mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return self.net(x)

def once():
    return Mortal(False).eval()

def always():
    return Mortal(True).eval()
"""


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster of two workers, in a folder that is not the run's."""
    try:
        ray = ray_package()
    except UsageError as error:
        pytest.skip(str(error))
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    try:
        ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=100 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    finally:
        os.chdir(before)
    yield ray
    ray.shutdown()


@pytest.fixture
def mortal(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network above as ``mortal:once`` and ``mortal:always``."""
    (place / "mortal.py").write_text(NETWORK.replace("def net", "def immortal") + MORTAL)
    monkeypatch.delitem(sys.modules, "mortal", raising=False)


@pytest.mark.slow
@pytest.mark.usefixtures("place", "two_workers")
def test_ray_gives_what_one_process_gives() -> None:
    settings = {"pairs": 6, "methods": ("gradient", "lrp", "attention_rollout")}
    seen: list[Status] = []
    status = run_audit("run", small(**settings), engine="ray", watch=seen.append)
    assert (status.cells, status.done, status.errors, status.claimed) == (18, 12, 6, 0)
    assert {now.done + now.errors for now in seen} >= set(range(2, 19, 2))
    run_audit("plain", small(**settings))
    assert numbers("run") == numbers("plain")
    starts = open_run("run").store.rows("SELECT DISTINCT pid FROM starts")
    assert len(starts) == 3, "this process and two workers"


@pytest.mark.slow
@pytest.mark.usefixtures("mortal", "two_workers")
@pytest.mark.parametrize("retries", [0, 2])
def test_a_worker_killed_in_the_middle(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, retries: int
) -> None:
    monkeypatch.setattr("trompe.audit.on_ray.RETRIES", retries)
    settings = small(models=(ModelSpec("mortal:once", size=16),), pairs=12)
    status = run_audit("run", settings, engine="ray")
    assert Path("killed").exists()
    assert ("came back from Ray undone" in caplog.text) == (retries == 0), "else Ray sees to it"
    assert (status.done, status.errors, status.claimed) == (12, 0, 0)
    run_audit("plain", settings)
    assert numbers("run") == numbers("plain")


@pytest.mark.slow
@pytest.mark.usefixtures("mortal", "two_workers")
def test_a_batch_that_kills_every_worker_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trompe.audit.on_ray.RETRIES", 0)
    settings = small(models=(ModelSpec("mortal:always", size=16),), pairs=2)
    with pytest.raises(TrompeError, match="died over 1 of the batches, 2 times"):
        run_audit("run", settings, engine="ray")
    assert (open_run("run").status.open, open_run("run").status.claimed) == (2, 0)
    assert run_audit("run", settings).done == 2, "the other engine goes on"


@pytest.mark.slow
@pytest.mark.usefixtures("place", "two_workers")
def test_ended_by_ctrl_c_and_gone_on_by_the_other_engine() -> None:
    def interrupt(now: Status) -> None:
        if now.done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_audit("run", small(pairs=12), engine="ray", watch=interrupt)
    assert open_run("run").status.claimed == 0
    assert 4 <= open_run("run").status.done < 12
    assert run_audit("run", small(pairs=12)).complete
    run_audit("plain", small(pairs=12))
    assert numbers("run") == numbers("plain")


@pytest.mark.slow
@pytest.mark.usefixtures("place", "two_workers")
@pytest.mark.parametrize(
    ("options", "message"),
    [({"device": "cuda"}, "no GPU"), ({"threads": 64}, "no machine of the Ray cluster")],
)
def test_what_the_cluster_has_no_room_for(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_audit("run", small(), engine="ray", **options)


PLUGIN = """
from dataclasses import dataclass
from trompe.attacks.constraints import LInfBall, constraints
from trompe.engine import explained
from trompe.explain.base import Method, explainers
from trompe.explain.gradient import score_gradient
from trompe.types import Explanation

@constraints.register("own_ball")
@dataclass(frozen=True)
class OwnBall(LInfBall):
    pass

@explainers.register("twice_gradient")
@dataclass(frozen=True)
class TwiceGradient(Method):
    name = "twice_gradient"

    def explain(self, model, x, target):
        def method(x, keep):
            gradient, logits = score_gradient(model, x, target, keep)
            return Explanation(2 * gradient, logits)

        return explained(method, model, x)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_parts_of_a_plugin_work_on_ray(place: Path) -> None:
    try:
        ray_package()
    except UsageError as error:
        pytest.skip(str(error))
    (place / "own_parts.py").write_text(PLUGIN)
    text = (
        "audit --plugin own_parts --images images --model tiny-vgg=random --pairs 2 "
        "--iterations 2 --constraint own_ball:0.1 --method twice_gradient --worst-case 0.001 "
        "--workers 1 --quiet"
    )
    command = text.split()
    source = Path(__file__).parents[2] / "src"
    path = os.pathsep.join([str(source), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "TROMPE_PLUGINS": ""}
    for engine in ("ray", "plain"):
        done = subprocess.run(
            [sys.executable, "-m", "trompe", *command, "--engine", engine, "--output", engine],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert numbers("ray") == numbers("plain")


@pytest.mark.usefixtures("place")
def test_without_ray_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'ray>=2.10'"):
        run_audit("run", small(), engine="ray")
    assert not Path("run").exists()


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "dask"}, "unknown engine"),
        ({"ray_address": "auto"}, "goes with the engine 'ray'"),
        ({"workers": 0}, "must be within 1"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_audit("run", small(), **options)
    assert not Path("run").exists()
