"""The list of a report's files, by which one that was changed afterwards is found."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import trompe
from trompe.atomic import atomic_path
from trompe.audit import Run, chain
from trompe.ordinary import read_ordinary

NAME = "report.json"
_FOLDERS = ("figures", "tables")


def _files(folder: Path) -> list[Path]:
    found = [folder / "report.html"]
    for name in _FOLDERS:
        found += sorted(path for path in (folder / name).glob("*") if path.is_file())
    return found


def _text(content: dict[str, object]) -> str:
    return json.dumps({**content, "checksum": chain.checksum(content)}, indent=2) + "\n"


def write_manifest(run: Run, folder: Path) -> None:
    """Write down the run's digest and the checksums of a report's files.

    Args:
        run: that the report is about.
        folder: of the report.

    Raises:
        OutputError: if it cannot be written.
    """
    files = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in _files(folder)
    }
    text = _text({"run": run.digest, "trompe": trompe.__version__, "files": files})
    with atomic_path(folder / NAME) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_manifest(run: Run) -> tuple[list[str], bool]:
    """Compare the report in the run's folder with its list.

    Returns:
        What does not agree, in words; and whether the report is of the run as it is now, so that
        its numbers can be compared.
    """
    path = run.folder / NAME
    if not path.exists():
        stray = (run.folder / "report.html").exists()
        return ([f"'{NAME}' is missing: write the report anew"] if stray else []), False
    try:
        text = read_ordinary(path, 1 << 20).decode()
        content = json.loads(text)
        digest = content["run"]
        whole = text == _text({k: v for k, v in content.items() if k != "checksum"})
        files = dict(content["files"])
        version = content["trompe"]
    except Exception as error:  # it may hold anything
        return [f"'{NAME}' cannot be read ({type(error).__name__})"], False
    if not whole:
        return [f"'{NAME}' is not as it was written"], False
    if digest not in chain.digests(run.store.db):
        return ["the report belongs to no state that this run was in"], False
    problems = []
    there = {path.relative_to(run.folder).as_posix() for path in _files(run.folder)}
    for name in sorted({*files, *there}):
        try:
            if ".." in Path(name).parts or Path(name).is_absolute():
                raise ValueError(name)
            found = hashlib.sha256(read_ordinary(run.folder / name)).hexdigest()
        except Exception:  # missing, or no file
            found = None
        if found != files.get(name):
            problems.append(f"{name} is not as the report wrote it")
    return problems, digest == run.digest and version == trompe.__version__


def check_numbers(run: Run, page: str, tables: dict[str, str]) -> list[str]:
    """Compare what the report says with what follows from the run.

    Args:
        run: that the report is about.
        page: the part of the page that says it in numbers, written anew.
        tables: the files of tables, by name, written anew.
    """
    problems = []
    text = read_ordinary(run.folder / "report.html").decode()
    if page not in text or run.digest not in text:
        problems.append("report.html does not say what follows from the run")
    for name, expected in tables.items():
        if read_ordinary(run.folder / "tables" / name).decode() != expected:
            problems.append(f"tables/{name} does not say what follows from the run")
    return problems
