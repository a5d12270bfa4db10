"""What is published says the same everywhere, and installs without the source tree."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import trompe

ROOT = Path(__file__).parents[1]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_one_version_everywhere() -> None:
    in_project = re.search(r'^version = "(.+)"$', read("pyproject.toml"), re.MULTILINE)
    in_citation = re.search(r"^version: (.+)$", read("CITATION.cff"), re.MULTILINE)
    assert in_project is not None
    assert in_citation is not None
    assert in_project[1] == in_citation[1] == trompe.__version__


def test_the_pythons_that_are_promised_are_tested() -> None:
    promised = re.findall(r"Python :: (3\.\d+)", read("pyproject.toml"))
    matrix = re.search(r"python-version: \[(.+)\]", read(".github/workflows/tests.yml"))
    assert matrix is not None
    assert re.findall(r"3\.\d+", matrix[1]) == promised
    least = re.search(r'requires-python = ">=(.+)"', read("pyproject.toml"))
    assert least is not None
    assert promised[0] == least[1]


@pytest.mark.parametrize("name", sorted(p.stem for p in ROOT.glob(".github/workflows/*.yml")))
def test_workflows_are_well_formed_and_ask_for_little(name: str) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    flow = yaml.safe_load(read(f".github/workflows/{name}.yml"))
    assert flow["permissions"] == {"contents": "read"}
    for job in flow["jobs"].values():
        assert job["steps"]
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
        if "id-token" in job.get("permissions", {}):
            assert "environment" in job  # only where a person can put a guard


def test_nothing_says_to_install_what_is_not_published() -> None:
    """Until the first release, the name on the index need not be this project's."""
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.py")]
    assert len(files) > 100
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            assert not re.search(r"pip install ['\"]?trompe", line), f"{file}: {line}"


@pytest.mark.slow
def test_the_wheel_works_without_the_source_tree(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    built = subprocess.run(
        [*build, "--wheel-dir", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "setuptools" in built.stderr and built.returncode:
        pytest.skip("setuptools is too old to build a wheel here")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    command = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import trompe.cli; "
        "assert 'site' in trompe.__file__; "
        "sys.exit(trompe.cli.main(['explain', '--model', 'tiny-vgg', '--method', 'gradient', "
        "'--output', 'out', '--quiet']))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "cat_explanations.png").exists()
