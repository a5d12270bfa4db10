"""The script of faults finds what goes unnoticed, and what it forges is a forgery."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from trompe.audit import completeness, open_run, verify
from trompe.cli import main

SCRIPTS = Path(__file__).parents[2] / "benchmarks"

#: What verify must find by itself, though all checksums fit; each was once unnoticed.
FOUND = {
    "starts.versions",
    "starts.id",
    "meta.key",
    "screens.usable",
    "screens.part",
    "batches.done",
    "cells.tries",
    "half an attempt",
    "settings: code",
    "settings: no certificates",
    "certificate: every copy agrees",
    "attack: an array more",
    "search: an array more",
}
#: What was found, or whether it failed, cannot be told from what was put there without repeating.
BY_REPEATING = {"search: gave the original back", "a certificate said to have failed"}
#: What no result depends on.
BY_DIGEST = {"starts.began"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run with searches and its report in the current directory, made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        folder = tmp_path_factory.mktemp("faults")
        patch.chdir(folder)
        from faults import make_run

        run = make_run(folder)
        shutil.copytree(run, run.with_name("whole"))
        yield folder


def test_what_is_forged_is_found_or_has_another_digest(place: Path) -> None:
    from faults import false_alarms, forged

    chosen = FOUND | BY_REPEATING | BY_DIGEST
    found = forged(place / "run", place / "whole", chosen.__contains__)
    assert found["forgeries"] == found["resealed"] == len(chosen)
    assert found["unnoticed"] == found["not_one_line"] == []
    assert set(found["by_repeating"]) == BY_REPEATING
    assert set(found["by_digest_alone"]) == BY_DIGEST
    assert false_alarms(place / "run") == 0


def test_the_script_tells_what_goes_unnoticed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from faults import forged

    monkeypatch.setattr(verify, "strange", lambda *_: [])
    monkeypatch.setattr(completeness, "bookkeeping_problems", lambda *_: [])
    chosen = {"screens.part", "search: an array more"}
    found = forged(place / "run", place / "whole", chosen.__contains__)
    assert found["by_digest_alone"] == ["screens.part"]
    assert found["by_repeating"] == ["search: an array more"]


def test_many_different_forgeries_are_tried(place: Path) -> None:
    from forgeries import forgeries

    names = [one.name for one in forgeries(place / "run")]
    assert len(names) == len(set(names)) > 300


def test_flips_are_counted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import faults

    assert faults.flipped(place / "run", place / "whole", 5) == {"flips": 5, "unnoticed": []}
    monkeypatch.setattr(faults, "verified", lambda *_: (0, ""))
    assert len(faults.flipped(place / "run", place / "whole", 3)["unnoticed"]) == 3


def test_the_digest_that_was_published(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = place / "run"
    opened = open_run(run)
    digest = opened.digest
    first = opened.store.rows("SELECT digest FROM chain WHERE id = 1")[0][0]
    opened.store.close()
    command = ["verify", str(run), "--arrays-only", "--quiet", "--digest"]
    assert main([*command, digest]) == 0
    assert main([*command, digest.upper()]) == 0
    assert main([*command, "0" * 64]) == 2
    assert "is not the run of the digest 000000000000..." in capsys.readouterr().err
    assert main([*command, first]) == 2
    assert "it says to have once been" in capsys.readouterr().err
    assert main([*command, "astrology"]) == 2
    assert "'astrology' is no digest of a run" in capsys.readouterr().err


@pytest.mark.slow
def test_many_cells_are_measured(place: Path) -> None:
    from many_cells import many_cells

    found = many_cells(place, 40)
    assert found["cells"] == 40
    assert found["failed"] == 0
    assert found["files_growth"] == 0
    assert 0 < found["report_mib"] < 3
