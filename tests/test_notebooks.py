"""Every notebook runs from its first cell to its last, as a reader would run it."""

from __future__ import annotations

import ast
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))

#: What a reader may take time for, and a test may not.
QUICK = {"STEPS": 6, "BUDGET": 0.01}
SIZES = re.compile(rf"^({'|'.join(QUICK)}) = [\d.]+$", re.MULTILINE)


def source_of(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def cells(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return found


def timed(path: Path) -> Any:
    """The audit writes two reports, which takes many seconds."""
    return pytest.param(path, marks=pytest.mark.slow if "audit" in path.stem else (), id=path.stem)


@pytest.mark.parametrize("path", map(timed, NOTEBOOKS))
def test_a_notebook_runs_with_few_steps(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "captum" in path.stem:
        pytest.importorskip("captum", reason="captum is not installed")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    shortened = 0
    for number, cell in enumerate(c for c in cells(path) if c["cell_type"] == "code"):
        source, found = SIZES.subn(lambda match: f"{match[1]} = {QUICK[match[1]]}", source_of(cell))
        shortened += found
        exec(compile(source, f"{path.stem}, code cell {number}", "exec"), names)
    assert shortened, "the notebook names its size: STEPS = ..."


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_imports_is_there(path: Path) -> None:
    """Also of those that run in the slow tests alone."""
    found = 0
    for cell in (c for c in cells(path) if c["cell_type"] == "code"):
        for node in ast.walk(ast.parse(source_of(cell))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trompe"):
                module = importlib.import_module(node.module or "")
                for name in node.names:
                    assert hasattr(module, name.name), f"{node.module} has no {name.name}"
                    found += 1
    assert found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_output(path: Path) -> None:
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert code
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)


def test_there_are_the_notebooks_that_the_page_names() -> None:
    page = (NOTEBOOKS[0].parent / "index.md").read_text(encoding="utf-8")
    assert re.findall(r"\(([\w-]+\.ipynb)\)", page) == [path.name for path in NOTEBOOKS]
