"""The report to be signed: what is changed in it is noticed, and an old one is called old."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from trompe.audit import open_run, run_audit
from trompe.cli import main
from trompe.report.for_audit import Statement, write_audit_report
from trompe.report.manifest import AUDIT_REPORT, check_manifest, write_manifest

from .conftest import furnished, small

FILES = ("audit-report.html", "audit-report.json", "audit-report.files.json")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run with its report to be signed, made once."""
    with furnished(tmp_path_factory.mktemp("signed")) as place:
        run_audit("original", small(pairs=3))
        made = open_run("original")
        write_audit_report(made, "original", Statement("A. Person", relied_on_by="clerks"))
        made.store.close()
        yield place / "original"


def verified(run: Path) -> int:
    return main(["verify", str(run), "--arrays-only", "--quiet"])


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_an_untouched_report_is_not_accused_whatever_its_folder_is_called(run: Path) -> None:
    assert verified(run) == 0
    assert main(["verify", str(run), "--trust", "--quiet"]) == 0
    main(["report", str(run), "--quiet"])
    assert verified(run) == 0, "beside the other report"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.999])
def test_no_bit_of_it_falls_over_unnoticed(run: Path, name: str, place: float) -> None:
    data = bytearray((run / name).read_bytes())
    data[int(place * len(data))] ^= 1
    (run / name).write_bytes(data)
    assert verified(run) == 2


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_gone_is_noticed(
    run: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (run / name).unlink()
    assert verified(run) == 2
    (line,) = capfd.readouterr().err.splitlines()
    if name == AUDIT_REPORT.name:  # as in runs of versions that wrote none
        assert "write the report anew ('trompe report RUN --for audit')" in line
        assert main(["report", str(run), "--for", "audit", "--quiet"]) == 0
        assert verified(run) == 0


def test_a_run_without_any_report_is_whole(run: Path) -> None:
    for name in FILES:
        (run / name).unlink()
    assert verified(run) == 0


def _share(run: Path) -> None:
    found = json.loads((run / "audit-report.json").read_text(encoding="utf-8"))
    found["sections"]["worst_case"]["shares"][0]["robust_share"] = 0.987
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    (run / "audit-report.json").write_text(text, encoding="utf-8")


def _hardening(run: Path) -> None:
    found = json.loads((run / "audit-report.json").read_text(encoding="utf-8"))
    found["sections"]["worst_case"]["hardening"] = ["much better"]
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    (run / "audit-report.json").write_text(text, encoding="utf-8")


FORGED = {
    "a share": _share,
    "a hardening that was none": _hardening,
    "a verdict": lambda run: replaced(
        run / "audit-report.html", '<p class="verdict">', '<p class="verdict">Not so: '
    ),
    "a sentence more": lambda run: replaced(
        run / "audit-report.html", "<h2>1. ", "<p>All is certified.</p><h2>1. "
    ),
    "what was not tested": lambda run: replaced(
        run / "audit-report.html", "whether the network itself", "not the network itself"
    ),
    "the command": lambda run: replaced(run / "audit-report.json", "--pairs 3", "--pairs 30"),
    "no JSON": lambda run: (run / "audit-report.json").write_text("[]"),
    "nested": lambda run: (run / "audit-report.json").write_text("[" * 100_000),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_number_is_noticed_though_the_list_is_made_to_fit(
    run: Path, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    FORGED[what](run)
    assert verified(run) == 2
    opened = open_run(run)
    write_manifest(opened, run, AUDIT_REPORT)  # the forger's
    assert check_manifest(opened, AUDIT_REPORT)[0] == []
    opened.store.close()
    capfd.readouterr()
    assert verified(run) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "audit-report." in line
    assert "unexpected" not in line


def test_an_old_one_is_called_old_and_accuses_nobody(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_audit(run, small(pairs=3))  # enters that it ran
    assert main(["verify", str(run), "--arrays-only"]) == 0
    assert "the report to be signed was of an earlier state" in capfd.readouterr().out
    replaced(run / "audit-report.html", "A. Person", "B. Person")
    assert verified(run) == 2
    assert main(["report", str(run), "--for", "audit", "--quiet"]) == 0
    assert verified(run) == 0


def test_tables_without_their_page_are_no_way_around_the_list(run: Path) -> None:
    main(["report", str(run), "--quiet"])
    (run / "report.html").unlink()
    (run / "report.json").unlink()
    assert verified(run) == 2
