"""The report to be signed: what it says follows from the run, and its JSON from its schema."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import beta

from trompe.audit import ModelSpec, Run, Settings, open_run, run_audit
from trompe.audit.command import command_of
from trompe.cli import main
from trompe.report.attack_words import number
from trompe.report.before_after import before_after
from trompe.report.clauses import CLAUSES
from trompe.report.for_audit import Statement, content, write_audit_report
from trompe.report.html import numbers_html
from trompe.report.lead import lead, verdicts
from trompe.report.words import fooled

SCHEMA = Path(__file__).parents[2] / "docs" / "audit-report.schema.json"
MADE = datetime(2026, 11, 25, tzinfo=timezone.utc)
SECTIONS = 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: real attacks, few steps."""
    path = tmp_path_factory.mktemp("audit") / "run"
    smoothings = ("none", "beta=0.8")
    run_audit(path, Settings(smoothings=smoothings, pairs=6, iterations=12, recovery=(1.0,)))
    return path


@pytest.fixture
def run(folder: Path) -> Iterator[Run]:
    opened = open_run(folder)
    yield opened
    opened.store.close()


def test_the_json_is_as_its_published_schema_says(run: Run) -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator(
        json.loads(SCHEMA.read_text(encoding="utf-8"))
    )
    found = content(run, Statement(), MADE)
    validator.validate(json.loads(json.dumps(found, allow_nan=False)))
    assert len(found["sections"]) == SECTIONS
    found["sections"]["worst_case"]["tau"] = "0.5"
    assert not validator.is_valid(found)


def test_every_share_has_the_exact_interval_and_flips_are_counted_apart(run: Run) -> None:
    for one in content(run, Statement(), MADE)["sections"]["functional_equivalence"]:
        rows = [r for r in run.done if (r.method, r.defence) == (one["method"], one["defence"])]
        kept = sum(r.values["class_kept"] == 1 for r in rows)
        label = one["label_kept"]
        assert (label["count"], label["n"], one["flips"]) == (kept, 6, 6 - kept)
        low = beta.ppf(0.025, kept, 7 - kept) if kept else 0
        high = beta.ppf(0.975, kept + 1, 6 - kept) if kept < 6 else 1
        assert label["interval"] == pytest.approx([low, high])


def test_the_worst_is_the_end_that_the_attacker_wants(run: Run) -> None:
    for one in content(run, Statement(), MADE)["sections"]["worst_case"]["extremes"]:
        rows = [r for r in run.done if r.defence == one["defence"] and r.values["class_kept"] == 1]
        for key, worst in one["worst"].items():
            values = sorted(row.values[key] for row in rows)
            away = key in ("map_original_pcc", "map_original_ssim")
            assert worst == (values[0] if away else values[-1])


def test_an_image_counts_once_however_often_it_was_attacked(run: Run) -> None:
    plain = [row for row in run.done if row.smoothing is None]
    broken = {row.image for row in plain if fooled(row)}
    (one,) = verdicts(run)
    assert len(plain) == 6
    assert f"for {len(broken)} of 3 images" in one.sentence


def test_the_picture_is_the_median_success_or_else_the_farthest(run: Run) -> None:
    first, problems = lead(run)
    assert first is not None
    assert not problems
    plain = [row for row in run.done if row.smoothing is None]
    ranked = sorted(plain, key=lambda row: row.values["map_target_pcc"], reverse=True)
    good = [row for row in ranked if fooled(row)]
    assert first.row.id == (good[len(good) // 2] if good else ranked[0]).id
    assert ("this is the median one" in first.caption) == bool(good)
    assert ("No attack succeeded" in first.caption) != bool(good)


def test_what_rounds_to_zero_has_no_sign() -> None:
    assert [number(value) for value in (-0.001, 0.0, -0.01, None)] == [
        "0.00",
        "0.00",
        "-0.01",
        "undefined",
    ]


def test_flags_of_searches_are_counted_as_in_the_other_report(run: Run) -> None:
    plain = [row for row in run.done if row.smoothing is None]
    flag = "still falling"
    run.__dict__["searches"] = [dataclasses.replace(plain[0], flags=(flag,))]
    extremes = content(run, Statement(), MADE)["sections"]["worst_case"]["extremes"]
    found = {f["flag"]: f for one in extremes if one["defence"] == "none" for f in one["flags"]}
    assert (found[flag]["cells"], found[flag]["of"]) == (1, len(plain) + 1)
    assert found[flag]["meaning"]
    for one in extremes:
        for each in one["flags"]:
            assert f"{each['flag']}</span> " in numbers_html(run)


def test_what_was_changed_after_the_run_is_said_in_the_report(run: Run) -> None:
    clean = content(run, Statement(), MADE)["sections"]["reproduction"]["verification"]
    assert clean["problems"] == []
    assert clean["cells"] == len(run.done)
    run.rows[0].values["map_original_pcc"] += 0.1
    changed = content(run, Statement(), MADE)["sections"]["reproduction"]["verification"]
    assert any("cell 1" in text for text in changed["problems"])
    assert "(problems: 1, section 10)" in content(run, Statement(), MADE)["verdict"][0]


def test_a_run_without_its_seal_is_said_before_every_verdict(run: Run, tmp_path: Path) -> None:
    assert content(run, Statement(), MADE)["verdict"][0].startswith("gradient on")
    copied = shutil.copytree(run.folder, tmp_path / "run")
    (copied / "seal.json").unlink()
    bare = open_run(copied)
    found = content(bare, Statement(), MADE)
    bare.store.close()
    assert "not sealed ('seal.json' is missing)" in found["verdict"][0]
    assert found["sections"]["reproduction"]["verification"]["unsealed"] is not None


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(
            models=(ModelSpec("tiny-vgg", mean=(0.1, 0.2, 0.3), std=(1.0, 1.5, 2.0), size=64),),
            methods=("gradient", "grad_cam"),
            smoothings=("none", "beta=0.8"),
            objective="unlike:measure=cosine",
            constraint="linf:8/255",
            pairs=3,
            seed=7,
            keep_wrong=True,
            iterations=9,
            chunk=2,
            worst_case=0.3,
            certify="0.125,sigma=0.25,denoiser=true",
        ),
    ],
)
def test_the_command_makes_the_settings_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def noted(output: Path, settings: Settings, quiet: bool, **how: object) -> None:
        asked.extend((str(output), settings))
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["trompe.cli.audit"], "_run", noted)
    main(shlex.split(command_of(settings, "my run"))[1:])
    assert asked == ["my run", settings]


def test_the_page_escapes_what_its_author_says_and_has_all_sections(
    run: Run, tmp_path: Path
) -> None:
    said = Statement(author="<script>alert(1)</script>", intended_use="x < y")
    text = write_audit_report(run, tmp_path / "out", said, made=MADE).read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "x &lt; y" in text
    assert text.count("<h2>") == SECTIONS
    assert all(f"<h2>{number}. " in text for number in range(1, SECTIONS + 1))
    assert all(clause in text for _, clause, _, _ in CLAUSES)
    assert "no legal advice" in text


def test_the_command_line_writes_both_and_refuses_what_does_not_go_together(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    arguments = ["report", str(folder), "--output", out, "--for", "audit", "--author", "A. Person"]
    assert main([*arguments, "--relied-on-by", "clerks"]) == 0
    found = json.loads((tmp_path / "out" / "audit-report.json").read_text(encoding="utf-8"))
    assert found["author"] == "A. Person"
    assert found["sections"]["system"]["relied_on_by"] == "clerks"
    assert found["sections"]["system"]["intended_use"] == "not stated"
    capsys.readouterr()
    assert main(["report", str(folder), "--output", out, "--intended-use", "x"]) == 2
    assert "--intended-use: give --for audit with it" in capsys.readouterr().err


@pytest.mark.slow
def test_before_and_after_hardening_are_in_the_report_to_be_signed(
    folder: Path, run: Run, tmp_path: Path
) -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator(
        json.loads(SCHEMA.read_text(encoding="utf-8"))
    )
    settings = Settings(
        models=(ModelSpec("tiny-vgg-robust"),), smoothings=("none", "beta=0.8"), pairs=6,
        iterations=12, recovery=(1.0,), keep_wrong=run.settings.keep_wrong,
    )  # fmt: skip
    hardened = tmp_path / "hardened"
    run_audit(hardened, settings)
    with open_run(hardened).store as store:
        after = Run(store)
        told = before_after(run, after)
        found = content(after, Statement(), MADE, run)["sections"]["worst_case"]["hardening"]
        plain = content(after, Statement(), MADE)
    assert "hardening" not in plain["sections"]["worst_case"]
    assert [one["sentence"] for one in found["changes"]] == told.gains
    first, same = told.changes[0], found["changes"][0]
    assert same["withstood_before"]["count"] == first.before.count
    assert same["withstood_after"]["interval"] == [first.after.low, first.after.high]
    assert (found["original"], found["hardened"]) == ("tiny-vgg", "tiny-vgg-robust")
    assert found["run_before"] == run.digest
    asked = ["report", str(hardened), "--for", "audit", "--output", str(tmp_path / "out")]
    assert main([*asked, "--before", str(folder)]) == 0
    written = json.loads((tmp_path / "out" / "audit-report.json").read_text(encoding="utf-8"))
    validator.validate(written)
    assert written["sections"]["worst_case"]["hardening"] == found
    page = (tmp_path / "out" / "audit-report.html").read_text(encoding="utf-8")
    assert page.count("<h2>") == SECTIONS
    assert all(sentence in page for sentence in (*told.costs, run.digest))


def test_a_run_that_is_no_like_audit_leaves_no_report(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "none"
    asked = ["report", str(folder), "--for", "audit", "--output", str(out)]
    assert main([*asked, "--before", str(folder)]) == 2
    assert "same network" in capsys.readouterr().err
    assert not out.exists()
