"""The lists of a report's files, by which one that was changed afterwards is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import trompe
from trompe.atomic import atomic_path
from trompe.audit import Run, chain
from trompe.ordinary import read_ordinary


class Listed(NamedTuple):
    """A kind of report.

    Args:
        name: of the file that lists the others.
        pages: that are always there.
        folders: of which every file belongs to the report.
        command: that writes it, as it is told.
    """

    name: str
    pages: tuple[str, ...]
    folders: tuple[str, ...]
    command: str

    def files(self, folder: Path) -> list[Path]:
        """The files of such a report in a folder: the pages, there or not, and what is there."""
        found = [folder / page for page in self.pages]
        for name in self.folders:
            found += sorted(
                path
                for path in (folder / name).rglob("*")
                if path.name not in BY_THE_SYSTEM and (path.is_file() or path.is_symlink())
            )
        return found


BY_THE_SYSTEM = (".DS_Store", "Thumbs.db", "desktop.ini")
"""Files that a system leaves in every folder that somebody looks at."""

REPORT = Listed("report.json", ("report.html",), ("figures", "tables"), "trompe report RUN")
"""What ``trompe report`` writes."""

AUDIT_REPORT = Listed(
    "audit-report.files.json",
    ("audit-report.html", "audit-report.json"),
    (),
    "trompe report RUN --for audit",
)
"""What ``trompe report --for audit`` writes."""


def _text(content: dict[str, object]) -> str:
    return json.dumps({**content, "checksum": chain.checksum(content)}, indent=2) + "\n"


def write_manifest(
    run: Run, folder: Path, kind: Listed = REPORT, written: Mapping[str, object] | None = None
) -> None:
    """Write down the run's digest and the checksums of a report's files.

    Args:
        run: that the report is about.
        folder: of the report.
        kind: of report.
        written: what it was written with and does not follow from the run.

    Raises:
        OutputError: if it cannot be written.
    """
    files = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in kind.files(folder)
    }
    content: dict[str, object] = {"run": run.digest, "trompe": trompe.__version__, "files": files}
    text = _text(content if written is None else {**content, "written": dict(written)})
    with atomic_path(folder / kind.name) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_manifest(run: Run, kind: Listed = REPORT) -> tuple[list[str], bool]:
    """Compare a report in the run's folder with its list.

    Args:
        run: that the report is about.
        kind: of report.

    Returns:
        What does not agree, in words; and whether the report is of the run as it is now, so that
        its numbers can be compared.
    """
    path = run.folder / kind.name
    if not path.exists():
        stray = [one for one in kind.files(run.folder) if one.exists()]
        missing = f"'{kind.name}' is missing: write the report anew ('{kind.command}')"
        return ([missing] if stray else []), False
    try:
        text = read_ordinary(path, 1 << 20).decode()
        content = json.loads(text)
        digest = content["run"]
        whole = text == _text({k: v for k, v in content.items() if k != "checksum"})
        files = dict(content["files"])
        version = content["trompe"]
    except Exception as error:  # it may hold anything
        return [f"'{kind.name}' cannot be read ({type(error).__name__})"], False
    if not whole:
        return [f"'{kind.name}' is not as it was written"], False
    if digest not in chain.digests(run.store.db):
        return [f"the report of '{kind.name}' belongs to no state that this run was in"], False
    problems = []
    there = {path.relative_to(run.folder).as_posix() for path in kind.files(run.folder)}
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
