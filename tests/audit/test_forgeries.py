"""Bits that fell over, and forgeries: none goes unnoticed, and nothing untouched is accused."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trompe.audit import chain, open_run, run_audit, seal
from trompe.audit.store import Store
from trompe.cli import main
from trompe.errors import StoreError
from trompe.report.for_audit import Statement, write_audit_report
from trompe.report.html import write_report

from .conftest import furnished, small

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import forgeries


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run with its reports, made once."""
    with furnished(tmp_path_factory.mktemp("forged")) as place:
        run_audit("original", small(pairs=3, smoothings=("none", "beta=0.8")))
        made = open_run("original")
        write_report(made, "original", most=1)
        write_audit_report(made, "original", Statement("A. Person"))
        made.store.close()
        assert not list(Path("original").glob("run.sqlite-*")), "at rest, all is in one file"
        yield place / "original"


def verified(run: Path, *options: str) -> int:
    return main(["verify", str(run), "--quiet", *options])


def test_nothing_untouched_is_accused(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert verified(run, "--trust") == 0
    assert verified(run, "--trust") == 0, "verifying changes nothing"
    run_audit(run, small(pairs=3, smoothings=("none", "beta=0.8")))
    assert verified(run, "--trust") == 0, "a command that finds all done enters that it ran"
    assert capfd.readouterr().err == ""


def no_flip_goes_unnoticed(run: Path, times: int) -> None:
    draw, unnoticed = random.Random(1), []
    whole = run.with_name("whole")
    shutil.copytree(run, whole)
    try:
        for _ in range(times):
            what = forgeries.flip_a_bit(run, draw)
            if verified(run, "--arrays-only") != 2:
                unnoticed.append(what)
            shutil.rmtree(run)
            shutil.copytree(whole, run)
        assert unnoticed == []
        assert verified(run, "--arrays-only") == 0
    finally:
        shutil.rmtree(whole)


def test_no_bit_falls_over_unnoticed(run: Path) -> None:
    no_flip_goes_unnoticed(run, 25)


@pytest.mark.slow
def test_of_a_thousand_bits_none_falls_over_unnoticed(run: Path) -> None:
    no_flip_goes_unnoticed(run, 1000)


#: What a forger might do to the tables.
SQL = {
    "a cell deleted": "DELETE FROM metrics WHERE cell = 1; DELETE FROM cells WHERE id = 1",
    "the last cell deleted": "DELETE FROM metrics WHERE cell = (SELECT MAX(id) FROM cells);"
    "DELETE FROM cells WHERE id = (SELECT MAX(id) FROM cells)",
    "a batch deleted": "DELETE FROM metrics WHERE cell IN (SELECT id FROM cells WHERE batch = 2);"
    "DELETE FROM cells WHERE batch = 2; DELETE FROM batches WHERE id = 2",
    "a cell reopened": "DELETE FROM metrics WHERE cell = 1; UPDATE cells SET status = 'open', "
    "x = NULL, target_x = NULL, arrays = NULL WHERE id = 1",
    "a cell said to have failed": "UPDATE cells SET status = 'error', message = 'no memory' "
    "WHERE id = 1",
    "a metric improved": "UPDATE metrics SET value = 0.99 WHERE cell = 1 AND "
    "name = 'map_original_pcc'",
    "a metric improved slightly": "UPDATE metrics SET value = value + 0.001 WHERE cell = 2 AND "
    "name = 'map_target_pcc'",
    "a metric invented": "INSERT INTO metrics VALUES (1, 'robustness', 1.0)",
    "a metric deleted": "DELETE FROM metrics WHERE cell = 1 AND name = 'map_original_pcc'",
    "a metric undefined": "UPDATE metrics SET value = NULL WHERE cell = 1 AND "
    "name = 'map_original_pcc'",
    "the class kept": "UPDATE metrics SET value = 1 - value WHERE cell = 1 AND name = 'class_kept'",
    "the control": "UPDATE metrics SET value = 0.0123 WHERE cell = 1 AND name = 'noise_target_pcc'",
    "the maps by beta": "UPDATE metrics SET value = 0.0123 WHERE cell = 1 AND "
    "name = 'beta_1_original_pcc'",
    "the iterations": "UPDATE metrics SET value = 1500 WHERE name = 'iterations'",
    "flags rewritten": "UPDATE cells SET flags = CASE flags WHEN '[]' THEN "
    "'[\"class changed\"]' ELSE '[]' END",
    "a flag invented": "UPDATE cells SET flags = '[\"zero gradient\"]' WHERE id = 1",
    "images renamed": "UPDATE images SET name = 'other.png' WHERE id = 0",
    "two images exchanged": "UPDATE images SET name = 'x' WHERE id = 0; UPDATE images SET "
    "name = 'i0000.png' WHERE id = 1; UPDATE images SET name = 'i0001.png' WHERE id = 0",
    "an image's content": "UPDATE images SET content = 'aa' WHERE id = 3",
    "an image's label": "UPDATE images SET label = 3 WHERE id = 3",
    "an image added": "INSERT INTO images VALUES (12, 'new.png', NULL, 'aa')",
    "an image left out": "UPDATE screens SET usable = 0 WHERE image = (SELECT MIN(image) FROM "
    "screens)",
    "an image of another class": "UPDATE screens SET class = class + 1",
    "pairs exchanged": "UPDATE cells SET image = target, target = image WHERE id = 1",
    "another target": "UPDATE cells SET target_x = x WHERE id = 1",
    "results exchanged": "UPDATE cells SET arrays = (SELECT arrays FROM cells WHERE id = 2) "
    "WHERE id = 1",
    "cells under another method": "UPDATE cells SET method = 'lrp'; UPDATE batches SET "
    "method = 'lrp'",
    "a defence renamed": "UPDATE cells SET smoothing = 'beta=9.0' WHERE smoothing = 'beta=0.8';"
    "UPDATE batches SET smoothing = 'beta=9.0' WHERE smoothing = 'beta=0.8'",
    "fewer pairs planned": "UPDATE planned SET pairs = 2",
    "a file of another machine": "UPDATE cells SET arrays = '../../../../etc/passwd' WHERE id = 1",
}

#: What a forger might do to the settings: all that the script does, where there are no searches.
SETTINGS = {
    name: alter
    for name, alter in (forgeries.SETTINGS | forgeries.MALFORMED).items()
    if name not in ("budget of the search", "no search")
}

#: These leave a run as it might have been.
UNPROVABLE_SETTINGS = {"keep wrong"}


def forge(run: Path, statements: str, *, resealed: bool) -> None:
    with sqlite3.connect(run / "run.sqlite") as db:
        db.executescript(statements)
    db.close()
    if resealed:
        forgeries.reseal(run)


@pytest.mark.parametrize("what", SQL)
def test_a_forged_table_is_noticed(run: Path, what: str) -> None:
    forge(run, SQL[what], resealed=False)
    assert verified(run, "--arrays-only") == 2


#: These leave a run as it might have been: only the chain, whose digest was printed, tells.
UNPROVABLE = {"an image's label", "a cell said to have failed"}


@pytest.mark.parametrize("what", sorted(SQL.keys() - UNPROVABLE))
def test_a_forged_table_is_noticed_though_all_checksums_are_made_to_fit(
    run: Path, what: str
) -> None:
    forge(run, SQL[what], resealed=True)
    assert verified(run, "--trust") == 2


#: What no process of trompe ever wrote: with other types, nested without end, or beside the rest.
STRANGE = {
    "a metric in words": "UPDATE metrics SET value = 'abc' WHERE name = 'map_original_pcc'",
    "a time in bytes": "UPDATE metrics SET value = x'00ff' WHERE name = 'seconds'",
    "a time without end": "UPDATE metrics SET value = 9e999 WHERE name = 'seconds'",
    "a time before the beginning": "UPDATE metrics SET value = -5 WHERE name = 'seconds'",
    "no time": "UPDATE metrics SET value = NULL WHERE name = 'seconds'",
    "finished at the end of time": "UPDATE cells SET finished = 9e999 WHERE id = 1",
    "finished before time": "UPDATE cells SET finished = -1 WHERE id = 1",
    "a class in words": "UPDATE screens SET class = 'cat'",
    "flags in a mapping": "UPDATE cells SET flags = '{}' WHERE id = 1",
    "no flags": "UPDATE cells SET flags = NULL WHERE id = 1",
    "flags in bytes": "UPDATE cells SET flags = x'5b5d' WHERE id = 1",
    "flags nested": f"UPDATE cells SET flags = '{'[' * 100_000}' WHERE id = 1",
    "settings nested": f"UPDATE meta SET value = '{'[' * 100_000}' WHERE key = 'settings'",
    "settings twice": "UPDATE meta SET value = replace(value, '{\"batch_size\"', "
    "'{\"seed\": 1, \"batch_size\"') WHERE key = 'settings'",
    "one setting more": "UPDATE meta SET value = replace(value, '{\"batch_size\"', "
    "'{\"aaa\": 1, \"batch_size\"') WHERE key = 'settings'",
    "a key more of a model": "UPDATE meta SET value = replace(value, '\"classes_sha256\"', "
    "'\"classes_note\": 1, \"classes_sha256\"') WHERE key = 'settings'",
    "one fact more of a model": "UPDATE meta SET value = replace(value, '\"code_of\"', "
    "'\"code_by\": 1, \"code_of\"') WHERE key = 'settings'",
    "a usual setting written down": "UPDATE meta SET value = replace(value, '\"images\":', "
    "'\"chunk\": null, \"images\":') WHERE key = 'settings'",
    "a seed with a fraction": "UPDATE meta SET value = replace(value, '\"seed\": 0', "
    "'\"seed\": 0.0') WHERE key = 'settings'",
    "a choice in words": "UPDATE meta SET value = replace(value, '\"keep_wrong\": false', "
    "'\"keep_wrong\": \"no\"') WHERE key = 'settings'",
    "patterns without a checksum": "UPDATE meta SET value = replace(value, '\"patterns\": null', "
    "'\"patterns\": \"p.pt\"') WHERE key = 'settings'",
    "software in a list": "UPDATE starts SET versions = '{\"torch\": [1]}'",
    "software nested": f"UPDATE starts SET versions = '{'[' * 100_000}'",
}


@pytest.mark.parametrize("resealed", [False, True])
@pytest.mark.parametrize("what", STRANGE)
def test_what_trompe_never_wrote_is_one_line(
    run: Path, what: str, resealed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        forge(run, STRANGE[what], resealed=resealed)
    except StoreError:  # what cannot be opened cannot be made to fit either
        assert resealed
    assert verified(run, "--trust") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "unexpected" not in line


def test_an_entry_of_the_leaderboard_that_is_gone_is_noticed(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = sorted((run / "leaderboard").iterdir())[0]
    path.unlink()
    assert verified(run, "--arrays-only") == 2
    assert f"leaderboard/{path.name} is missing" in capfd.readouterr().err


@pytest.mark.parametrize("resealed", [False, True])
@pytest.mark.parametrize("what", SETTINGS)
def test_forged_settings_are_noticed(run: Path, what: str, resealed: bool) -> None:
    digest = open_run(run).digest
    forge_settings(run, what, resealed=resealed)
    told = ["--digest", digest] if resealed and what in UNPROVABLE_SETTINGS else []
    assert verified(run, "--trust", *told) == 2


def forge_settings(run: Path, what: str, *, resealed: bool) -> None:
    settings = json.loads(open_run(run).store.get("settings") or "")
    SETTINGS[what](settings)
    text = json.dumps(settings, sort_keys=True).replace("'", "''")
    forge(run, f"UPDATE meta SET value = '{text}' WHERE key = 'settings'", resealed=resealed)


@pytest.mark.parametrize("command", ["report", "verify"])
@pytest.mark.parametrize("what", forgeries.MALFORMED)
def test_settings_that_are_none_are_one_line_wherever_they_are_read(
    run: Path, what: str, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    forge_settings(run, what, resealed=True)
    more = ["--output", "elsewhere"] if command == "report" else ["--arrays-only"]
    try:
        assert main([command, str(run), *more, "--quiet"]) == 2
    finally:
        shutil.rmtree("elsewhere", ignore_errors=True)
    (line,) = capfd.readouterr().err.splitlines()
    assert "is damaged" in line
    assert "unexpected" not in line


FIELDS = {
    name: value
    for name, value in (forgeries.FIELDS | {"tau": 0.4, "epsilon": 0.5}).items()
    if name not in ("worst_case", "certified")
}


@pytest.mark.parametrize("resealed", [False, True])
@pytest.mark.parametrize("field", FIELDS)
def test_a_forged_field_of_the_leaderboard_is_noticed(
    run: Path, field: str, resealed: bool
) -> None:
    path = sorted((run / "leaderboard").iterdir())[0]
    entry = json.loads(path.read_text())
    entry[field] = FIELDS[field]
    if resealed:
        del entry["checksum"]
        entry["checksum"] = chain.checksum(entry)
    path.write_text(json.dumps(entry, indent=2) + "\n")
    if resealed and field in ("tau", "epsilon"):
        pytest.skip("another radius with numbers that follow from it is true")
    assert verified(run, "--arrays-only") == 2


def test_an_entry_of_an_earlier_state_is_written_anew_and_accuses_nobody(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = open_run(run).digest
    run_audit(run, small(pairs=3, smoothings=("none", "beta=0.8")))
    assert open_run(run).digest != before
    path = sorted((run / "leaderboard").iterdir())[0]
    assert json.loads(path.read_text())["run"] == before
    assert main(["verify", str(run), "--arrays-only"]) == 0
    assert "was of an earlier state" in capfd.readouterr().out
    assert json.loads(path.read_text())["run"] == open_run(run).digest


def test_a_report_that_says_something_else_is_noticed(run: Path) -> None:
    from trompe.report.manifest import check_manifest

    page = run / "report.html"
    page.write_text(page.read_text().replace(" of 3 ", " of 9 "))
    assert verified(run, "--arrays-only") == 2
    resealed(run)
    assert check_manifest(open_run(run))[0] == []
    assert verified(run, "--arrays-only") == 2


def resealed(run: Path) -> None:
    """List the files of the report anew, as a forger could."""
    from trompe.report.manifest import write_manifest

    written = json.loads((run / "report.json").read_text())["written"]
    opened = open_run(run)
    write_manifest(opened, run, written=written)
    opened.store.close()


def _in_page(old: str, new: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        page = run / "report.html"
        text = page.read_text(encoding="utf-8")
        assert old in text
        page.write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def _copied(run: Path, place: str) -> None:
    (run / place).parent.mkdir(parents=True, exist_ok=True)
    (run / place).write_text("a,b\n1,2\n")


IN_REPORT: dict[str, Callable[[Path], None]] = {
    "a banner": _in_page("<main>", "<main><h1>All certified</h1>"),
    "a style that hides": _in_page("</style>", "h2{display:none}</style>"),
    "a script": _in_page("</body>", "<script>document.title='x'</script></body>"),
    "a script in a drawing": _in_page("</svg>", "<script>document.title='x'</script></svg>"),
    "numbers out of sight": _in_page('<h2 id="figures">', '<!-- --><h2 id="figures">'),
    "a hardening that was none": _in_page("<main>", '<main><h2 id="hardening">Good</h2>'),
    "settings": _in_page("&#34;seed&#34;: 0", "&#34;seed&#34;: 1"),
    "a figure less": lambda run: sorted((run / "figures").iterdir())[0].unlink(),
    "a table more": lambda run: _copied(run, "tables/certified.csv"),
    "a table in a folder": lambda run: _copied(run, "tables/more/certified.csv"),
}


@pytest.mark.parametrize("name", IN_REPORT)
def test_a_report_is_compared_as_a_whole_but_for_its_pictures(run: Path, name: str) -> None:
    assert verified(run, "--arrays-only") == 0
    IN_REPORT[name](run)
    assert verified(run, "--arrays-only") == 2
    resealed(run)
    assert verified(run, "--arrays-only") == 2


def test_what_lies_in_the_folders_is_of_the_run_or_of_the_system(run: Path) -> None:
    for name in ("figures", "tables", "leaderboard"):
        (run / name / ".DS_Store").write_bytes(b"x")
    assert verified(run, "--arrays-only") == 0
    for place in ("leaderboard/notes.txt", "leaderboard/more/e.txt", "figures/more/x.png"):
        _copied(run, place)
        assert verified(run, "--arrays-only") == 2
        (run / place).unlink()
        if "more" in place:
            (run / place).parent.rmdir()
    assert verified(run, "--arrays-only") == 0


UNSEALED = {
    "no seal": lambda run: (run / "seal.json").unlink(),
    "the seal of an earlier state": lambda run: _entered(run),
    "a log beside the file": lambda run: (run / "run.sqlite-wal").write_bytes(bytes(100)),
}


def _entered(run: Path) -> None:
    """A start is entered, and ends before it seals."""
    with Store(run) as store:
        store.note_start(1)


@pytest.mark.parametrize("what", UNSEALED)
def test_a_run_without_its_seal_is_told_as_such(
    run: Path, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    UNSEALED[what](run)
    assert verified(run, "--arrays-only") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "not sealed" in line
    assert "--unsealed" in line
    assert verified(run, "--arrays-only", "--unsealed") == 0
    run_audit(run, small(pairs=3, smoothings=("none", "beta=0.8")))
    assert verified(run, "--arrays-only") == 0, "the command that began it seals it"


def test_a_seal_over_claims_is_none_that_trompe_wrote(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Store(run) as store:
        store.db.execute("INSERT INTO claims VALUES ('batch 1', 'x', 'h', 1, 'x', 9e99)")
        store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        text = seal._text(*chain.head(store.db), store.file_checksum())
    (run / seal.NAME).write_text(text)
    assert verified(run, "--arrays-only", "--unsealed") == 2
    assert "none is written while somebody works on it" in capfd.readouterr().err


def test_the_report_prints_the_digest(run: Path) -> None:
    assert open_run(run).digest in (run / "report.html").read_text()


def test_a_damaged_run_is_neither_reported_nor_gone_on_with(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    forge(run, SQL["a metric improved"], resealed=False)
    assert main(["report", str(run), "--output", "elsewhere"]) == 2
    assert "is not as it was entered" in capfd.readouterr().err
    assert not Path("elsewhere").exists()
    with pytest.raises(StoreError, match="is not as it was entered"):
        run_audit(run, small(pairs=3, smoothings=("none", "beta=0.8")))


def test_a_bit_in_the_name_of_a_table_is_damage_not_a_bug(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = run / "run.sqlite"
    content = bytearray(path.read_bytes())
    place = content.index(b"CREATE INDEX open_batches") + 8
    content[place] ^= 1 << 7  # now no UTF-8
    path.write_bytes(content)
    assert verified(run, "--arrays-only") == 2
    assert "is damaged" in capfd.readouterr().err
