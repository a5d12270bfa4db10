"""Parts of one's own: from a module of one's own, found by library and command line alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = '''
"""A method, a constraint and an objective, as CONTRIBUTING shows them."""

from dataclasses import dataclass

import torch

from trompe.attacks.constraints import Ball, constraints
from trompe.attacks.objectives import Objective, objectives
from trompe.engine import explained
from trompe.explain.base import Method, explainers
from trompe.explain.gradient import score_gradient
from trompe.types import Explanation


@explainers.register("cubed_gradient")
@dataclass(frozen=True)
class CubedGradient(Method):
    name = "cubed_gradient"

    def explain(self, model, x, target):
        def method(x, keep):
            gradient, logits = score_gradient(model, x, target, keep)
            return Explanation(gradient ** 3, logits)

        return explained(method, model, x)


@constraints.register("stripes")
@dataclass(frozen=True)
class Stripes(Ball):
    def project(self, x, origin, space):
        reach = space.scale(self.radius, origin)
        columns = torch.arange(x.shape[-1]) % 2 == 0
        return space.clamp(torch.where(columns, x.clamp(origin - reach, origin + reach), origin))

    def size(self, x, origin, space):
        return ((x - origin) / space.scale(1.0, x)).abs().flatten(1).amax(dim=1)

    def start(self, origin, space, generator=None):
        return origin


@objectives.register("upper_half")
@dataclass(frozen=True)
class UpperHalf(Objective):
    def __call__(self, now, reference):
        return -now.map[:, : now.map.shape[1] // 2].flatten(1).sum(dim=1)

    def measures(self, now, reference):
        return {"upper_share": -self(now, reference)}
'''


def trompe(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process and a folder of its own."""
    return subprocess.run(
        [sys.executable, "-m", "trompe", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_parts_of_a_plugin_are_choices_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    attacked = trompe(
        *("attack", "--plugin", "mine", "--model", "tiny-vgg", "--method", "cubed_gradient"),
        *("--objective", "upper_half", "--constraint", "stripes:0.1", "--iterations", "8"),
        *("--output", "out", "--quiet"),
        folder=tmp_path,
    )
    assert attacked.returncode == 0, attacked.stderr
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    settings = found["run"]["settings"]
    assert settings["method"] == "cubed_gradient"
    assert settings["objective"] == {"name": "UpperHalf"}
    assert settings["constraint"] == {"name": "Stripes", "radius": 0.1}
    assert found["images"][0]["image_change"]["linf"] <= 0.1 + 1e-5
    header = (tmp_path / "out" / "history.csv").read_text().splitlines()[0]
    assert "upper_share" in header


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("attack", "--method", "cubed_gradient"), "unknown method 'cubed_gradient'"),
        (("attack", "--plugin", "nowhere"), "the plugin 'nowhere' cannot be imported"),
        (("attack", "--plugin"), "--plugin needs the name of a module"),
        (("attack", "--plugin", "broken"), "cannot be imported: division by zero"),
    ],
)
def test_a_plugin_that_is_none_is_one_line(
    arguments: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    done = trompe(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "trompe-out").exists()


def test_an_installed_package_names_its_plugins_as_entry_points(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    about = tmp_path / "mine-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[trompe.plugins]\nmine = mine\n")
    program = (
        "import trompe, trompe.explain, trompe.attacks as a;"
        "print('cubed_gradient' in trompe.explain.explainers, 'stripes' in a.constraints)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        },
    )
    assert done.stdout.split() == ["True", "True"]


def test_an_audit_of_parts_of_ones_own_is_worked_on_read_and_verified(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    command = ("audit", "--plugin", "mine", "--model", "tiny-vgg", "--method", "cubed_gradient")
    command += ("--objective", "upper_half", "--constraint", "stripes:0.1", "--pairs", "2")
    command += (
        "--iterations",
        "2",
        "--workers",
        "2",
        "--no-worst-case",
        "--output",
        "run",
        "--quiet",
    )
    audited = trompe(*command, folder=tmp_path)
    assert audited.returncode == 0, audited.stderr
    known = trompe("verify", "run", "--plugin", "mine", folder=tmp_path)
    assert "2 cells checked, 0 problems" in known.stdout + known.stderr
    # Without the plugin a run can be read, but not made again.
    for reading in (("audit", "--status", "--output", "run"), ("report", "run")):
        read = trompe(*reading, folder=tmp_path)
        assert read.returncode == 0, read.stderr
    assert "upper_half" in (tmp_path / "run" / "report.html").read_text()
    unknown = trompe("verify", "run", folder=tmp_path)
    assert unknown.returncode == 2
    words = "(explanation method cubed_gradient, objective upper_half, constraint stripes)"
    assert f"{words}: name the module that registers them with --plugin" in unknown.stderr
    (tmp_path / "mine.py").write_text(PLUGIN.replace("gradient ** 3", "gradient ** 5"))
    other = trompe("verify", "run", "--plugin", "mine", folder=tmp_path)
    assert other.returncode == 2
    assert "the code of mine is another" in other.stderr
    resumed = trompe(*command, folder=tmp_path)
    assert resumed.returncode == 2
    assert "the code of a method, objective or constraint: changed" in resumed.stderr
