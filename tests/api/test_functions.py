"""The functions do what the commands of the same names do."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import trompe
from trompe.api.inputs import usual_model
from trompe.audit import Settings, open_run
from trompe.cli import command, main
from trompe.cli.audit import WORST_CASE
from trompe.errors import UsageError
from trompe.types import AttackResult


def test_an_attack_is_that_of_the_command(tmp_path: Path) -> None:
    arguments = ["--target-text", "no", "--iterations", "6", "--method", "grad_times_input"]
    assert main(["attack", "coffee", *arguments, "--output", str(tmp_path), "--quiet"]) == 0
    written = load_file(tmp_path / "x_adv.safetensors")["x_adv"]
    result = trompe.attack(
        "coffee", target_text="no", iterations=6, method="grad_times_input", progress=False
    )
    assert isinstance(result, AttackResult)
    assert torch.equal(result.x_adv, written)
    assert not torch.equal(result.x_adv, result.x)


def test_an_attack_without_a_target_refuses_one() -> None:
    with pytest.raises(UsageError, match="aims at no map"):
        trompe.attack("cat", objective="unlike", target_text="no", iterations=1, progress=False)


def test_an_audit_is_that_of_the_command_and_its_report_is_written(tmp_path: Path) -> None:
    folder, other = tmp_path / "function", tmp_path / "command"
    how = {"pairs": 2, "iterations": 4, "worst_case": 0.01}
    run = trompe.audit(folder, methods="gradient", progress=False, **how)
    options = ["--pairs", "2", "--iterations", "4", "--worst-case", "0.01", "--quiet"]
    assert main(["audit", "--model", "tiny-vgg", "--output", str(other), *options]) == 0
    again = open_run(other)
    timed = {"seconds"}
    for one, two in zip(run.rows, again.rows, strict=True):
        assert {k: v for k, v in one.values.items() if k not in timed} == {
            k: v for k, v in two.values.items() if k not in timed
        }
    assert run.settings == again.settings
    again.store.close()
    page = trompe.report(run, tmp_path / "out", reader="audit", author="A. Person")
    assert json.loads(page.with_suffix(".json").read_text("utf-8"))["author"] == "A. Person"
    assert trompe.report(str(folder), tmp_path / "out", most=1).name == "report.html"
    with pytest.raises(UsageError, match="reader='audit'"):
        trompe.report(run, intended_use="x")
    run.store.close()


def test_a_setting_that_an_audit_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no setting 'pears'"):
        trompe.audit(tmp_path / "run", pears=2)
    assert not (tmp_path / "run").exists()


def test_robustness_is_that_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["robustness", "cat", "--budget", "0.02", "--output", str(tmp_path), "--json"]
    assert main(arguments) in (0, 3, 4)
    written = json.loads(capsys.readouterr().out)
    found = trompe.robustness("cat", budget=0.02, progress=False).report(0.5)
    assert json.loads(json.dumps(found["radii"])) == written["radii"]


@pytest.mark.parametrize("name", ["audit", "report", "robustness"])
def test_a_package_stays_a_package_and_shows_the_functions_signature(name: str) -> None:
    package = importlib.import_module(f"trompe.{name}")
    assert getattr(trompe, name) is package
    function = getattr(importlib.import_module("trompe.api"), name)
    assert inspect.signature(package) == inspect.signature(function)


@pytest.mark.parametrize("first", ["import trompe.audit", "from trompe.audit import Run", ""])
def test_whatever_is_imported_first_the_name_can_be_called(first: str) -> None:
    program = f"{first}\nimport trompe\nassert callable(trompe.audit)\ntrompe.audit.Run"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_functions_settings_are_those_of_an_audit() -> None:
    named = inspect.signature(trompe.audit).parameters
    assert named["worst_case"].default == WORST_CASE
    assert {"models", "methods", "worst_case"} <= named.keys() & set(Settings.__dataclass_fields__)


def test_the_usual_model_is_one_and_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in an audit, whose option may be given several times."""
    for wanted in ("tiny-resnet", "efficientnet-lite0"):
        monkeypatch.setenv("TROMPE_MODEL", wanted)
        if wanted == "efficientnet-lite0":
            monkeypatch.delenv("TROMPE_MODEL")
        context = command.commands["audit"].make_context("audit", [])
        assert context.params["models"] == (wanted,)
        assert usual_model() == wanted
