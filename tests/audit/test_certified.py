"""Certificates as cells of a run: kept, resumed, verified, and the share that follows from them."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
from pathlib import Path

import pytest
import torch
from scipy.stats import beta

import trompe
from trompe.audit import Settings, chain, open_run, run_audit
from trompe.audit.batches import CERTIFICATE
from trompe.audit.certification import Certification
from trompe.audit.certified import Certifier, KeptCounts, certified_metrics
from trompe.audit.certified_share import (
    ANSWER,
    BELOW,
    CERTIFIED,
    FAILED,
    OUTCOMES,
    VOID,
    certified_share,
    outcome,
)
from trompe.audit.leaderboard import leaderboard
from trompe.audit.repeat import Repeater
from trompe.audit.results import Row
from trompe.audit.seal import write_seal
from trompe.audit.store import Store
from trompe.audit.verify import Verifier
from trompe.cli import main
from trompe.errors import UsageError
from trompe.outputs import Outputs
from trompe.report.certified import certificates_of, certified_sentences, in_words

from .conftest import numbers, small

pytestmark = pytest.mark.usefixtures("place")

ASKED = "0.05,sigma=0.1,samples=120,pool=4"


def certifying(**changes: object) -> Settings:
    values: dict[str, object] = {"certify": ASKED, "pairs": 2, "iterations": 2}
    return small(**(values | changes))


def test_a_cell_is_what_certify_says_of_the_image_and_its_share_has_the_exact_interval() -> None:
    settings = certifying(smoothings=("none", "beta=0.8"), pairs=4, seed=3)
    assert run_audit("run", settings).complete
    run = open_run("run")
    loaded = run.settings.models[0].load()
    images = {row.image for row in run.rows}
    for smoothing in ("none", "beta=0.8"):
        own = [row for row in run.certificates if row.defence == smoothing]
        assert sorted(row.image for row in own) == sorted(images), "each image once"
    for row in [row for row in run.certificates if row.smoothing is None]:
        # Independently: the public function, on the image that was kept.
        x = run.arrays(row)["x"]
        found = trompe.certify(
            loaded.model,
            x,
            radius=[0.05],
            method="noise",
            explainer="gradient",
            sigma=0.1,
            samples=120,
            pool=4,
            input_space=loaded.input_space,
            generator=torch.Generator().manual_seed(3 * 1_009 + row.image_number),
        )
        values = row.values
        assert values["certified_pcc"] == pytest.approx(float(found.pcc), abs=1e-9)
        assert values["certified_l1"] == pytest.approx(float(found.heatmap_l1), abs=1e-9)
        assert values["certified_overlap"] == pytest.approx(float(found.overlap))
        assert values["certified_iou"] == pytest.approx(float(found.iou))
        assert values["certified_label_radius"] == pytest.approx(float(found.label_radius))
        assert values["pcc_to_plain"] == pytest.approx(float(found.pcc_to_plain))
        assert values["copies"] == found.samples[0]
        stays = bool(found.label_kept) and int(found.label) == int(loaded.model(x).argmax())
        assert values["certified_label"] == stays
        assert torch.allclose(run.arrays(row)["smoothed"], found.smoothed)
    for entry in leaderboard(run):
        one, n = entry["certified"], len(images)
        own = [row for row in run.certificates if row.defence == entry["defence"]]
        held = sum(
            r.values["certified_pcc"] >= 0.5 and r.values["certified_label"] == 1 for r in own
        )
        assert (one["count"], one["images"]) == (held, n)
        low = beta.ppf(0.025, held, n - held + 1) if held else 0.0
        high = beta.ppf(0.975, held + 1, n - held) if held < n else 1.0
        assert one["interval"] == pytest.approx([low, high])
        assert sum(one["outcomes"].values()) == n
        assert entry["attacks"] == 4, "certificates are no attacks"
        assert entry["failed"] == 0
    checked = list(Verifier(run, trusted=None).check_all())
    assert [one.problems for one in checked] == [()] * 16
    run.store.close()


def test_a_linear_network_is_certified_and_a_void_bound_is_said_to_be_void(place: Path) -> None:
    """A map that never moves is certified whatever the radius; noise alone is not."""
    (place / "certified_linear.py").write_text(
        "import torch\nfrom torch import nn\n\ndef net():\n    torch.manual_seed(0)\n"
        "    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5)).eval()\n"
        "    net[1].bias.data[2] += 1e4\n    return net\n"
    )
    spec = dataclasses.replace(small().models[0], name="certified_linear:net")
    run_audit("run", certifying(models=(spec,)))
    run = open_run("run")
    (one,) = certificates_of(run)
    assert one["outcomes"][CERTIFIED] == one["images"] == 2
    assert one["median_pcc"] > 0.9, "with 120 copies"
    run.store.close()
    # Far beyond the noise: total variation is 2, and no correlation is excluded.
    run_audit("far", certifying(certify="3,sigma=0.05,samples=120,pool=4"))
    run = open_run("far")
    (one,) = certificates_of(run)
    assert one["outcomes"][VOID] == 2
    (sentence,) = certified_sentences(run)
    assert "for 0 of 2 images" in sentence
    assert "2 VOID: nothing at all is proved" in sentence
    assert "SMOOTHED" in sentence
    run.store.close()


def test_of_values_the_map_alone_is_certified_and_said_to_be(place: Path) -> None:
    (place / "value.py").write_text(
        "import torch\nfrom torch import nn\n\ndef net():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 1)).eval()\n"
    )
    for outputs, said in (("value", False), ("binary", True)):
        spec = dataclasses.replace(small().models[0], name="value:net", outputs=outputs)
        run_audit(outputs, certifying(models=(spec,)))
        run = open_run(outputs)
        (one,) = certificates_of(run)
        assert one["answer_counts"] is said
        assert ("changes the answer" in in_words(one)) is said
        if not said:
            assert one["outcomes"][CERTIFIED] == one["images"] == 2
        run.store.close()


def test_batches_done_again_are_those_of_attacks_and_searches() -> None:
    """The copies of certificates are drawn again for every run; no honest one is accused."""
    run_audit("run", certifying(worst_case=0.002))
    run = open_run("run")
    others = {row.batch for row in run.certificates}
    repeater = Repeater(run, Verifier(run, trusted=None))
    assert others
    assert not others & set(repeater.drawn(1000, 0))
    run.store.close()
    assert main(["verify", "run", "--trust", "--repeat", "100", "--exact", "--quiet"]) == 0


def test_an_ended_run_goes_on_as_if_undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    certified = Certifier._attacked
    calls = []

    def ends(self: Certifier, *args: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return certified(self, *args)  # type: ignore[arg-type]

    settings = certifying(pairs=4)
    with monkeypatch.context() as patched:
        patched.setattr(Certifier, "_attacked", ends)
        with pytest.raises(KeyboardInterrupt):
            run_audit("run", settings)
        run = open_run("run")
        assert len(run.certificates) == 2, "the first batch is kept"
        (entry,) = leaderboard(run)
        assert entry["certified"]["images"] == 2, "the others are not certified yet"
        run.store.close()
        assert run_audit("run", settings).complete
    assert len(calls) == 6, "4 images, of which one of a batch of two was begun twice"
    run_audit("undisturbed", settings)
    assert numbers("run") == numbers("undisturbed")
    assert cells("run") == cells("undisturbed")


def cells(folder: str) -> list[tuple[object, ...]]:
    run = open_run(folder)
    found: list[tuple[object, ...]] = [
        (r.image, r.arrays, {k: v for k, v in r.values.items() if k != "seconds"})
        for r in run.certificates
    ]
    run.store.close()
    return found


def test_an_image_that_fails_fails_alone_and_counts_as_not_certified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certified = Certifier._attacked
    calls = []

    def fails(self: Certifier, *args: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("no memory of that kind")
        return certified(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Certifier, "_attacked", fails)
    assert run_audit("run", certifying()).errors == 1
    run = open_run("run")
    (entry,) = leaderboard(run)
    assert entry["certified"]["outcomes"][FAILED] == 1
    assert entry["certified"]["images"] == 2
    run.store.close()


def cell(message: str | None = None, **values: float) -> Row:
    values = {"certified_pcc": 0.8, "certified_label": 1.0, **values}
    return Row(1, "m", "lrp", None, CERTIFICATE, "i", "i", message, values, (), "x", "x", "a")


def test_each_certificate_comes_to_one_thing() -> None:
    assert outcome(cell(), 0.5) == CERTIFIED
    assert outcome(cell(), 0.81) == BELOW
    assert outcome(cell(certified_pcc=0.5), 0.5) == CERTIFIED
    assert outcome(cell(certified_label=0.0), 0.5) == ANSWER
    assert outcome(cell(certified_pcc=-1.0), 0.5) == VOID
    assert outcome(cell(certified_pcc=-1.0), -1.0) == VOID, "whatever is asked for"
    assert outcome(cell("no memory"), 0.5) == FAILED
    value = cell()
    del value.values["certified_label"]  # type: ignore[attr-defined]
    assert outcome(value, 0.5) == CERTIFIED, "a value is no decision"
    one = certified_share([], Certification(0.1), 0.5)
    assert one["share"] is None
    assert set(one["outcomes"]) == set(OUTCOMES)


def test_another_class_of_the_copies_than_of_the_image_is_no_certified_answer() -> None:
    run_audit("run", certifying(certify="0.001,sigma=0.001,samples=400,pool=4"))
    run = open_run("run")
    row, asked = run.certificates[0], run.settings.certification
    assert asked is not None
    arrays = run.arrays(row)
    size = arrays["x"][0].numel()
    assert certified_metrics(arrays, asked, size, Outputs())["certified_label"] == 1.0
    other = {**arrays, "logits_original": -arrays["logits_original"]}
    assert certified_metrics(other, asked, size, Outputs())["certified_label"] == 0.0
    assert KeptCounts(arrays).samples == 360
    run.store.close()


_OF = f"(SELECT id FROM cells WHERE preset = '{CERTIFICATE}')"
#: What a forger might do to a certificate; the checksums are made to fit.
FORGED = {
    "a better bound": f"UPDATE metrics SET value = 0.99 WHERE name = 'certified_pcc' AND cell IN "
    f"{_OF}",
    "an answer that stays": "UPDATE metrics SET value = 1 - value WHERE name = 'certified_label'",
    "a smaller change": "UPDATE metrics SET value = value / 2 WHERE name = 'certified_l1'",
    "like the plain map": "UPDATE metrics SET value = value - 0.1 WHERE name = 'pcc_to_plain'",
    "more copies": "UPDATE metrics SET value = 9000 WHERE name = 'copies'",
    "a metric left out": "DELETE FROM metrics WHERE name = 'certified_iou'",
    "a metric invented": f"INSERT INTO metrics SELECT id, 'certified', 1 FROM cells WHERE id IN "
    f"{_OF}",
    "a flag invented": f"UPDATE cells SET flags = '[\"all is well\"]' WHERE id IN {_OF}",
    "the counts of others": f"UPDATE cells SET arrays = (SELECT MIN(arrays) FROM cells WHERE id IN "
    f"{_OF}) WHERE id IN {_OF}",
    "another image": f"UPDATE cells SET target = (target + 1) % 12 WHERE id IN {_OF}",
    "fewer images": "DELETE FROM metrics WHERE cell = (SELECT MAX(id) FROM cells);"
    "DELETE FROM cells WHERE id = (SELECT MAX(id) FROM cells)",
    "said to have failed": f"DELETE FROM metrics WHERE cell IN {_OF}; UPDATE cells SET status = "
    f"'error', x = NULL, target_x = NULL, arrays = NULL, flags = NULL WHERE id IN {_OF}",
    "no certificates at all": f"DELETE FROM metrics WHERE cell IN {_OF}; DELETE FROM cells WHERE "
    f"preset = '{CERTIFICATE}'; DELETE FROM batches WHERE preset = '{CERTIFICATE}'",
    "another radius": "UPDATE meta SET value = REPLACE(value, '0.05,samples', '0.5,samples') "
    "WHERE key = 'settings'",
}


def linked(run: Path) -> None:
    """Make the checksums of a run's tables fit."""
    with Store(run) as store, store.transaction() as again:
        again.execute("DELETE FROM chain")
        for subject in dict.fromkeys(chain._expected(again)):
            chain.link(again, subject)
    with Store(run) as store:
        write_seal(store)


def test_verify_finds_what_was_forged() -> None:
    run = Path("run")
    run_audit("run", certifying())
    assert main(["verify", "run", "--trust", "--quiet"]) == 0
    shutil.copytree(run, "whole")
    unnoticed = []
    for what, statements in FORGED.items():
        shutil.rmtree(run)
        shutil.copytree("whole", run)
        with sqlite3.connect(run / "run.sqlite") as db:
            db.executescript(statements)
        db.close()
        if main(["verify", "run", "--arrays-only", "--quiet"]) != 2:
            unnoticed.append(f"{what}, by its checksum")
        linked(run)
        if main(["verify", "run", "--trust", "--quiet"]) != 2:
            unnoticed.append(what)
    assert unnoticed == []


@pytest.mark.parametrize("what", ["counts", "spread", "smoothed", "logits"])
def test_counts_that_no_noisy_copies_gave_are_noticed(what: str) -> None:
    """Arrays and metrics forged so that they agree: the copies drawn again do not."""
    run_audit("run", certifying())
    run = open_run("run")
    row, asked = run.certificates[0], run.settings.certification
    assert asked is not None
    arrays = {k: v for k, v in run.arrays(row).items() if k not in ("x", "target_x")}
    if what == "counts":
        arrays["along"] = torch.full_like(arrays["along"], int(arrays["samples"]))
    elif what == "spread":
        arrays["spread"] = arrays["spread"] / 4
    elif what == "smoothed":
        arrays["smoothed"] = arrays["smoothed"].flip(-1)
    else:
        arrays["logits_original"] = arrays["logits_original"] + 0.1
    values = certified_metrics(arrays, asked, 3 * 16 * 16, Outputs())
    name = run.store.arrays.put(arrays)
    run.store.close()
    with sqlite3.connect("run/run.sqlite") as db:
        db.execute("UPDATE cells SET arrays = ? WHERE id = ?", (name, row.id))
        for key, value in values.items():
            db.execute(
                "UPDATE metrics SET value = ? WHERE cell = ? AND name = ?", (value, row.id, key)
            )
    db.close()
    linked(Path("run"))
    assert main(["verify", "run", "--arrays-only", "--quiet"]) == 0, "they agree with themselves"
    assert main(["verify", "run", "--trust", "--quiet"]) == 2


@pytest.mark.parametrize(("pool", "why"), [(16, "one square"), (1, "256 squares")])
def test_maps_of_too_few_or_too_many_squares_are_refused_before_the_work(
    place: Path, monkeypatch: pytest.MonkeyPatch, pool: int, why: str
) -> None:
    monkeypatch.setattr("trompe.certificates.noisy_image.SQUARES", 200)
    with pytest.raises(UsageError, match=why):
        run_audit("run", certifying(certify=f"0.1,pool={pool}"))
    assert not Path("run").exists()


def test_the_option_is_written_down_once_and_wrong_ones_are_refused() -> None:
    assert Certification.parse("8/255").radius == pytest.approx(8 / 255)
    asked = Certification.parse("0.125,sigma=0.25,denoiser=true,samples=1000")
    assert asked == Certification(0.125, sigma=0.25, denoiser=True)
    assert asked.words == "0.125,sigma=0.25,denoiser=true"
    assert Certification.parse(asked.words) == asked
    assert small(certify="radius=0.125,samples=1000").certify == "0.125"
    assert small().certify is None
    for text, why in {
        "": "needs radius",
        "0": "must be positive",
        "0.1,sigma=0": "sigma must be positive",
        "0.1,samples=10": "must exceed the pilot",
        "0.1,samples=10000001": "at most 10000000 samples",
        "0.1,confidence=1": "confidence",
        "0.1,pool=0": "at least 1",
        "0.1,sgima=1": "no option 'sgima'",
        "0.1,denoiser=true,sigma=0.5": "0.25",
        "nan": "finite",
    }.items():
        with pytest.raises(UsageError, match=why):
            small(certify=text)


def test_command_report_and_page_say_what_is_certified(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["audit", "--images", "images", "--model", "smallnet:net", "--size", "16"]
    command += ["--pairs", "2", "--iterations", "2", "--no-worst-case", "--output", "a"]
    assert main([*command, "--certify", ASKED]) == 0
    said = capsys.readouterr()
    assert "smoothed maps, radius 0.05,samples=120,pool=4" in said.out + said.err
    assert "moves the SMOOTHED map" in said.out + said.err
    assert main([*command, "--certify", "0.1"]) == 2, "another setting"
    assert "certify" in capsys.readouterr().err
    assert main(["report", "a", "--quiet"]) == 0
    page = Path("a/report.html").read_text()
    assert "moves the SMOOTHED map" in page
    assert "certified, %" in page
    (file,) = Path("a/leaderboard").glob("*.json")
    assert json.loads(file.read_text())["format"] == "trompe-leaderboard-5"
    assert main(["verify", "a", "--trust", "--quiet"]) == 0
    assert main(["report", "a", "--for", "audit", "--quiet"]) == 0
    report = json.loads(Path("a/audit-report.json").read_text())
    section = report["sections"]["certified"]
    assert section["status"] == "tested"
    assert in_words(section["shares"][0]) in Path("a/audit-report.html").read_text()
    assert "--certify 0.05,samples=120,pool=4" in report["sections"]["reproduction"]["command"]
    schema = Path(__file__).parents[2] / "docs" / "audit-report.schema.json"
    pytest.importorskip("jsonschema").validate(report, json.loads(schema.read_text()))


def test_every_number_of_a_certificate_changed_alone_is_noticed() -> None:
    run_audit("run", certifying())
    run = open_run("run")
    verifier, (row, *_) = Verifier(run, trusted=None), run.certificates
    assert verifier.check(row).problems == ()
    for name in row.values.keys() - {"seconds"}:
        changed = dataclasses.replace(row, values={**row.values, name: row.values[name] + 0.0123})
        assert any(name in text for text in verifier.check(changed).problems), name
    run.store.close()
