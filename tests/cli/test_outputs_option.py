"""Models of one output, of labels, of probabilities and of values on the command line."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

import trompe
from trompe.audit import Settings, open_run, run_audit
from trompe.cli import main
from trompe.errors import ModelError, UsageError
from trompe.outputs import Outputs
from trompe.report.attack_words import image_in_words
from trompe.zoo.spec import ModelSpec

CODE = """
import torch
from torch import nn
def net(count):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
                         nn.Flatten(), nn.Linear(128, count))
def one():
    return net(1)
def five():
    return net(5)
def shares():
    return nn.Sequential(net(4), nn.Softmax(dim=1))
def chance():
    return nn.Sequential(net(1), nn.Sigmoid(), nn.Flatten(0))
def chances():
    return nn.Sequential(net(5), nn.Sigmoid())
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd_outputs.py").write_text(CODE)
    return tmp_path


def options(name: str, outputs: str | None = None) -> list[str]:
    return ["--model", f"odd_outputs:{name}", "--size", "32"] + (
        [] if outputs is None else ["--outputs", outputs]
    )


@pytest.mark.parametrize(
    ("name", "told", "meaning", "said"),
    [
        ("one", None, "binary", "one output"),
        ("one", "value", "value", ""),
        ("five", None, "classes", ""),
        ("five", "labels", "labels", ""),
        ("shares", None, "classes", "returns probabilities"),
        ("shares", "probabilities", "classes", ""),
        ("shares", "value", "value", ""),
        ("chance", None, "binary", "returns probabilities"),
        ("chances", "probabilities", "labels", ""),
    ],
)
def test_the_meaning_is_found_and_said_or_told(
    name: str, told: str | None, meaning: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "trompe"):
        loaded = trompe.load_model(f"odd_outputs:{name}", size=32, outputs=told)
        # A second time nothing is said.
        trompe.explainer("gradient")(loaded, torch.rand(1, 3, 32, 32), torch.tensor([0]))
    assert loaded.outputs.meaning == meaning
    assert [said in record.message for record in caplog.records] == ([True] if said else [])


def test_the_logarithm_stands_in_for_probabilities() -> None:
    x = torch.rand(2, 3, 32, 32)
    plain, logarithm = (
        trompe.load_model(f"odd_outputs:{name}", size=32, outputs=told).model(x)
        for name, told in (("five", "labels"), ("chances", "probabilities"))
    )
    assert torch.allclose(plain, logarithm, atol=1e-5)
    shares = trompe.load_model("odd_outputs:shares", size=32, outputs="probabilities").model(x)
    assert torch.allclose(shares.exp().sum(dim=1), torch.ones(2))


@pytest.mark.parametrize(
    ("name", "told", "words"),
    [
        ("one", "classes", "no choice of classes"),
        ("five", "binary", "is of one output, the model has 5"),
        ("five", "probabilities", "no probabilities"),
        ("chances", "labels", "no logits"),
    ],
)
def test_a_meaning_that_cannot_be_is_refused(name: str, told: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        trompe.load_model(f"odd_outputs:{name}", size=32, outputs=told)


@pytest.mark.parametrize(
    ("name", "told", "words"),
    [
        ("one", "binary", "probability of 'yes'"),
        ("one", "value", "value kept, output 0"),
        ("five", "labels", "labels kept, probability of 'label"),
        ("chance", None, "probability of 'yes'"),
    ],
)
def test_an_attack_says_what_was_kept(
    name: str, told: str | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["attack", "cat", *options(name, told), "--iterations", "2", "--output", "o"]) == 0
    assert words in capsys.readouterr().out
    (entry,) = json.loads(Path("o/metrics.json").read_text())["images"]
    assert entry["kept"] is True
    if told == "value":  # no softmax of a value, which would always be 1
        x = trompe.load_model("odd_outputs:one", size=32, outputs="value")
        assert entry["probability_before"] == pytest.approx(_value_of_the_cat(x), abs=1e-5)
        for value in (0.00012345, 98765.4):  # of any unit: digits that say something
            line = image_in_words(entry | {"probability_after": value}, x)[1]
            assert f"{value:.4g} after" in line


def _value_of_the_cat(loaded: trompe.LoadedModel) -> float:
    from trompe.cli.pictures import read_images

    with torch.no_grad():
        return float(loaded.model(read_images(["cat"], loaded, "cat").x))


def test_a_binary_decision_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    Path("names.txt").write_text("healthy\nill\n")
    method = ["--method", "gradient", "--beta", "1", "--json"]
    assert main(["explain", "cat", *options("one"), "--classes", "names.txt", *method]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["images"]
    loaded = trompe.load_model("odd_outputs:one", size=32)
    chance = 1 / (1 + pow(2.718281828459045, -_value_of_the_cat(loaded)))
    assert entry["probability"] == pytest.approx(chance, abs=1e-5)
    assert entry["label_predicted"] == ("ill" if chance > 0.5 else "healthy")
    assert entry["label_explained"] == "ill"
    assert main(["curvature", "cat", *options("one"), "--target-class", "1"]) == 2
    assert "one output" in capsys.readouterr().err


@pytest.mark.parametrize("told", ["binary", "value"])
def test_certificates_from_samples_know_the_decision(
    told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    many = ["--method", "noise", "--explainer", "gradient", "--samples", "200", "--radius", "0.1"]
    assert main(["certify", "cat", *options("one", told), *many, "--sigma", "0.5"]) == 0
    out = capsys.readouterr().out
    assert ("noisy copies are" in out) == (told == "binary")
    assert ("answer" in out) == (told == "binary")


def test_noise_counts_both_answers_of_one_logit() -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 1))
    with torch.no_grad():
        net[1].weight.fill_(1.0)
        net[1].bias.zero_()  # zero in the middle: about half of the copies are on either side
    options = {"explainer": "gradient", "sigma": 0.5, "samples": 400, "pool": 1}
    space = trompe.InputSpace((0.0,) * 3, (1.0,) * 3)
    x = torch.zeros(1, 3, 2, 2)
    found = trompe.certify(net, x, radius=0.01, method="noise", input_space=space, **options)
    assert 0.4 < float(found.label_share) < 0.6
    assert not bool(found.label_kept)


@pytest.mark.parametrize(("name", "told"), [("one", "value"), ("five", "labels")])
def test_an_audit_keeps_the_meaning(name: str, told: str, tmp_path: Path) -> None:
    settings = Settings(
        models=(ModelSpec(f"odd_outputs:{name}", size=32, outputs=told),),
        pairs=2,
        iterations=2,
        worst_case=None,
    )
    run_audit(tmp_path / "run", settings)
    assert main(["verify", "run", "--trust", "--quiet"]) == 0
    assert main(["report", "run", "--quiet"]) == 0
    run = open_run("run")
    assert run.facts(run.done[0].model)["outputs"]["meaning"] == told
    assert all(row.values["class_kept"] == 1 for row in run.done)


def test_smooth_takes_a_class(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--beta", "1", "--steps", "2", "--json"]
    found = []
    for chosen in ([], ["--target-class", "3"]):
        assert main(["smooth", "choose", "cat", *options("five", "labels"), *few, *chosen]) == 0
        found.append(json.loads(capsys.readouterr().out)["rows"])
    assert found[0] != found[1]
    assert main(["smooth", "choose", "cat", *options("five"), "--target-class", "5"]) == 2


def test_training_is_for_classes() -> None:
    loaded = trompe.load_model("odd_outputs:one", size=32, outputs="binary")
    with pytest.raises(UsageError, match="two or more classes"):
        trompe.harden(loaded, [(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]))], defence="noise")


def test_answers_in_words() -> None:
    logits = torch.tensor([2.0, -1.0, 3.0])
    assert Outputs("labels").said(logits, ["a", "b", "c"]) == "c 95.3 %, a 88.1 %"
    assert Outputs("labels").said(-10 - logits) == "no label, at most 0.0 %"
    assert Outputs("value").said(torch.tensor([2.5])) == "output 0: 2.5"
    assert Outputs("binary").said(torch.tensor([2.0]), ["cat"]) == "cat, 88.1 %"
    assert Outputs("binary").said(torch.tensor([-2.0]), ["cat"]) == "not cat, 88.1 %"
    assert Outputs().said(logits[:2], ["a", "b"]) == "a, 95.3 %"


def test_equal_decisions_have_equal_numbers() -> None:
    logits = torch.tensor([[1.0, -1.0], [2.0, -0.1], [1.0, 1.0]])
    for meaning in ("labels", "classes"):
        outputs = Outputs(meaning)  # type: ignore[arg-type]
        numbers = outputs.decision(logits)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            kept = bool(outputs.kept(logits[i : i + 1], logits[j : j + 1]))
            assert bool(numbers[i] == numbers[j]) == kept
    assert len(set(Outputs("value").decision(logits).tolist())) == 3
