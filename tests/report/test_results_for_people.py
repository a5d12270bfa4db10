"""What a result shows of itself: repr, summary, picture, notebook, file."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import trompe
from trompe.errors import OutputError, UsageError
from trompe.progress import Bar, shown
from trompe.report.attack_words import attack_in_words
from trompe.types import AttackResult, InputSpace, LoadedModel


@pytest.fixture
def result(make_case: Callable) -> AttackResult:
    case = make_case(count=2)
    return dataclasses.replace(
        case.result,
        input_space=case.input_space,
        classes=("ant", "bee", "cat", "dog", "<eel>"),
        provenance={"method": "gradient", "preset": "fast", "vanishing_gradient": [False, True]},
    )


def test_repr_is_short(result: AttackResult) -> None:
    lines = repr(result).splitlines()
    assert len(lines) == 3
    assert "2 images 3 x" in lines[0]
    assert "gradient, fast, 4 steps, finished" in lines[0]
    kept = int((result.found & result.class_kept).sum())
    assert f"{kept} of 2" in lines[1]


def test_summary_says_what_the_metrics_say(result: AttackResult) -> None:
    text = result.summary()
    for index in range(2):
        part = text.split(f"image {index}\n")[1]
        pcc = float(trompe.metrics.pcc(result.map_adv, result.aim)[index])
        assert f"correlates {pcc:.2f} with the target" in part.splitlines()[1]
        before = int(result.logits_original[index].argmax())
        assert f"'{result.classes[before]}'" in part.splitlines()[0]
    early = dataclasses.replace(result, stopped="interrupted")
    assert "Ended early (interrupted) after 4 steps" in early.summary()


def test_plot_is_the_overview_of_that_image(result: AttackResult, tmp_path: Path) -> None:
    figures = [result.plot(index) for index in (0, 1, -1)]
    pictures = []
    for number, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{number}.png")
        pictures.append((tmp_path / f"{number}.png").read_bytes())
    assert pictures[0] != pictures[1]
    assert pictures[1] == pictures[2]
    for index in (2, -3):
        with pytest.raises(UsageError, match=f"no image {index}: the result has 2"):
            result.plot(index)


def test_notebooks_show_a_picture_and_escape_labels(result: AttackResult) -> None:
    always_eel = torch.tensor([[0.0, 0, 0, 0, 9]]).expand(2, 5)
    shown = dataclasses.replace(result, logits_original=always_eel)._repr_html_()
    assert "&lt;eel&gt;" in shown
    tags: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append(tag)
            assert all(not (v or "").startswith("http") for _, v in attrs)

    Tags().feed(shown)
    assert tags == ["img", "img", "pre"]
    assert len(re.findall("data:image/png;base64,", shown)) == 2


def test_a_saved_result_is_the_same(result: AttackResult, tmp_path: Path) -> None:
    path = result.save(tmp_path / "r.safetensors")
    again = trompe.load_result(path)
    for field in dataclasses.fields(AttackResult):
        one, other = getattr(result, field.name), getattr(again, field.name)
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, other), field.name
            assert one.dtype == other.dtype
        elif field.name != "history":
            assert one == other, field.name
    assert result.history.keys() == again.history.keys()
    assert all(torch.equal(result.history[key], again.history[key]) for key in result.history)
    aimless = dataclasses.replace(result, map_target=None)
    assert trompe.load_result(aimless.save(tmp_path / "s.safetensors")).map_target is None


def test_files_that_are_no_result(result: AttackResult, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        trompe.load_result(tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x80\x04" * 40)
    with pytest.raises(UsageError, match="cannot be read"):
        trompe.load_result(tmp_path / "broken.safetensors")
    with pytest.raises(UsageError, match="cannot be read"):
        trompe.load_result(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(UsageError, match="is no result of an attack"):
        trompe.load_result(tmp_path / "weights.safetensors")
    about = {"format": "trompe attack result 1", "result": json.dumps({"history": ["loss"]})}
    save_file({"x": torch.zeros(1)}, tmp_path / "part.safetensors", about)
    with pytest.raises(UsageError, match="is incomplete"):
        trompe.load_result(tmp_path / "part.safetensors")
    whole = result.save(tmp_path / "whole.safetensors").read_bytes()
    for place in range(40, len(whole), len(whole) // 50):
        changed = bytearray(whole)
        changed[place] ^= 4
        (tmp_path / "changed.safetensors").write_bytes(changed)
        with pytest.raises(UsageError, match=r"damaged|cannot be read|no result|incomplete"):
            trompe.load_result(tmp_path / "changed.safetensors")
    with safe_open(tmp_path / "whole.safetensors", "pt") as file:
        notes, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    notes["format"] = "trompe attack result 1"  # as earlier versions wrote it
    notes.pop("sha256")
    save_file(tensors, tmp_path / "old.safetensors", notes)
    assert torch.equal(trompe.load_result(tmp_path / "old.safetensors").x_adv, result.x_adv)
    with pytest.raises(OutputError):
        result.save(tmp_path / "nowhere" / "r.safetensors")


def test_manipulate_takes_a_loaded_model_and_draws_a_bar(
    capfd: pytest.CaptureFixture[str],
) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(27, 4), nn.ReLU(), nn.Linear(4, 3))
    space = InputSpace((0.3,) * 3, (0.7,) * 3)
    loaded = LoadedModel(net, space, ("a", "b", "c"))
    x, target = torch.rand(1, 3, 3, 3), torch.rand(3, 3)
    plain = trompe.manipulate(net, x, target, input_space=space, iterations=3)
    assert "attack" not in capfd.readouterr().err
    result = trompe.manipulate(loaded, x, target, iterations=3, progress=True)
    assert "attack: 100%" in capfd.readouterr().err
    assert torch.equal(plain.x_adv, result.x_adv)
    assert result.classes == loaded.classes
    assert result.input_space == plain.input_space == space


def test_what_progress_may_be() -> None:
    def own(done: int, total: int, numbers: object) -> None: ...

    assert shown(own, "x") is own
    assert shown(None, "x") is None
    assert shown(False, "x") is None
    assert isinstance(shown(True, "x"), Bar)


def test_what_an_attack_may_not_have_seen_past_is_named(result: AttackResult) -> None:
    run = {"stopped": "finished", "settings": {"remaining_kinks": ["a in b", "c in d", "e in f"]}}
    text = attack_in_words({"run": run, "images": []}, result, Path("here"))
    assert "not have seen past a in b, c in d and 1 more" in text
    run["settings"] = {"remaining_kinks": []}
    assert "seen past" not in attack_in_words({"run": run, "images": []}, result, Path("here"))
