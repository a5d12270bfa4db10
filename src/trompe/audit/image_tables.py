"""CSV files that name images: their classes, or pairs of them."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from trompe.audit.source import Source
from trompe.errors import ImageError, UsageError
from trompe.ordinary import read_ordinary


def _table(path: Path) -> list[dict[str, str]]:
    try:
        text = read_ordinary(path).decode("utf-8-sig")
        if "\0" in text:  # which no name of a file holds
            raise csv.Error("it holds a null character")
        return [
            {k: v or "" for k, v in row.items() if isinstance(k, str)}
            for row in csv.DictReader(io.StringIO(text, newline=""))
        ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ImageError(f"table '{path}' cannot be read as a CSV file: {error}") from error


def _class(text: str, path: Path) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text):
        raise ImageError(f"table '{path}' has the class '{text[:40]}': give numbers from 0")
    return int(text)


def read_labels(path: Path) -> dict[str, int | None]:
    """File names and classes of a CSV with the columns ``file`` and, if known, ``class``.

    Raises:
        ImageError: if it cannot be read or has no such column.
    """
    rows = _table(path)
    if not rows or "file" not in rows[0]:
        raise ImageError(f"table '{path}' names no image: give the columns file and class")
    return {row["file"]: _class(row.get("class", ""), path) for row in rows if row["file"]}


def read_pairs(path: str, source: Source) -> list[tuple[int, int]]:
    """The pairs of a CSV with the columns ``image`` and ``target``: names in ``source``.

    Raises:
        ImageError: if it cannot be read.
        UsageError: if a name is unknown.
    """
    numbers = {source.name(index): index for index in range(len(source))}
    pairs = []
    for row in _table(Path(path)):
        for column in ("image", "target"):
            if row.get(column) not in numbers:
                raise UsageError(f"'{path}' names the {column} '{row.get(column)}': not there")
        pairs.append((numbers[row["image"]], numbers[row["target"]]))
    return list(dict.fromkeys(pairs))
