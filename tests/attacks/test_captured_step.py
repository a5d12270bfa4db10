"""Captured steps are the steps: chosen by measurement, kept with their model, never stale."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any

import nets
import pytest
import torch
from attacking import manipulate
from torch import Tensor, nn

import trompe
from trompe.attacks import captured_step as capturing
from trompe.errors import CaptureError, UsageError

SPACE = trompe.InputSpace((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
X = SPACE.clamp(0.6 * nets.images(3, dtype=torch.float32))
AIM = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(4)) ** 2


def attack(model: nn.Module, x: Tensor = X, **settings: Any) -> Any:
    settings = {"input_space": SPACE, "preset": "fast", "iterations": 8, **settings}
    return manipulate(model, x, AIM[: len(x)], **settings)


def same(one: Any, other: Any) -> bool:
    equal = all(torch.equal(one.history[key], other.history[key]) for key in other.history)
    return equal and torch.equal(one.x_adv, other.x_adv)


@pytest.fixture
def eager_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every step that ran as it is written."""
    calls: list[int] = []
    look = capturing.Differentiate.__call__

    def counted(self: Any, *args: Any) -> Any:
        calls.append(1)
        return look(self, *args)

    monkeypatch.setattr(capturing.Differentiate, "__call__", counted)
    return calls


@pytest.mark.parametrize("preset", ["fast", "paper"])
@pytest.mark.parametrize("method", ["gradient", "lrp", "guided_backprop", "smoothgrad"])
def test_a_captured_attack_gives_the_same(method: str, preset: str) -> None:
    model = nets.normed() if method == "lrp" else nets.plain()
    found = attack(model, explainer=method, preset=preset, capture="graph")
    expected = attack(model, explainer=method, preset=preset, capture="never")
    assert found.provenance["runner"] == "graph"
    assert expected.provenance["runner"] == "eager"
    # never passes beta as a number, which rounds otherwise
    torch.testing.assert_close(found.history["loss"], expected.history["loss"], rtol=1e-3, atol=0)
    torch.testing.assert_close(found.x_adv, expected.x_adv, rtol=0, atol=1e-2)


@pytest.mark.parametrize("library", ["captum", "zennit"])
@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_explanations_of_other_libraries_are_captured_too(library: str) -> None:
    if library == "captum":
        method = trompe.adapters.captum(pytest.importorskip("captum.attr").GuidedBackprop)
    else:
        composites = pytest.importorskip("zennit.composites")
        method = trompe.adapters.zennit(composites.EpsilonPlus())
    found = attack(nets.plain(), explainer=method, capture="graph")
    expected = attack(nets.plain(), explainer=method, capture="never")
    assert found.provenance["runner"] == "graph"
    torch.testing.assert_close(found.history["loss"], expected.history["loss"], rtol=1e-3, atol=0)


@pytest.mark.parametrize("fastest", ["graph", "eager"])
def test_what_auto_chooses_does_not_change_the_numbers(
    fastest: str, monkeypatch: pytest.MonkeyPatch, eager_steps: list[int]
) -> None:
    monkeypatch.setattr(capturing, "_WORTH", 10)

    def timed(self: Any, way: str, inputs: Any) -> Any:
        self._times.setdefault(way, []).append(0.0 if way == fastest else 1.0)
        return self._run(way, inputs)

    monkeypatch.setattr(capturing.CapturedStep, "_timed", timed)
    model = nets.plain()
    found = attack(model, iterations=30, capture="auto")
    assert found.provenance["runner"] == fastest
    assert found.provenance["capture"] == "auto"
    few = 1 + 2 + capturing._TRIALS  # warming up, recording and comparing, timing
    assert len(eager_steps) == few if fastest == "graph" else len(eager_steps) > 20
    assert same(found, attack(nets.plain(), iterations=30, capture="graph"))


def test_few_steps_are_not_captured(eager_steps: list[int]) -> None:
    result = attack(nets.plain(), iterations=12, capture="auto")
    assert result.provenance["runner"] == "eager"
    assert len(eager_steps) == 12


def test_a_captured_step_is_kept_for_other_images_and_batches(eager_steps: list[int]) -> None:
    model = nets.plain()
    attack(model, X[:1], capture="graph")
    assert len(eager_steps) == 2
    result = attack(model, X, batch_size=1, capture="graph")
    assert len(eager_steps) == 2 + 3  # compared once in each batch
    assert same(result, attack(nets.plain(), X, batch_size=1, capture="graph"))
    attack(model, X, capture="graph")  # of another shape: captured anew
    trainable = nets.plain().requires_grad_(True)  # of which an attack makes a copy each time
    attack(trainable, capture="graph")
    del eager_steps[:]
    attack(trainable, capture="graph")
    assert len(eager_steps) == 1


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("gradient", lambda parameter, new: parameter.copy_(new)),
        ("lrp", lambda parameter, new: parameter.copy_(new)),
        # Unnoticed by PyTorch's count of changes, on which what LRP derives from weights relies.
        ("gradient", lambda parameter, new: parameter.data.copy_(new)),
        ("gradient", lambda parameter, new: setattr(parameter, "data", new.clone())),
    ],
)
def test_changed_weights_are_seen(method: str, change: Callable[[Tensor, Tensor], Any]) -> None:
    model, other = nets.plain(), nets.plain(seed=9)
    attack(model, explainer=method, capture="graph")
    for parameter, new in zip(model.parameters(), other.parameters(), strict=True):
        change(parameter, new.detach())
    found = attack(model, explainer=method, capture="graph")
    assert same(found, attack(other, explainer=method, capture="graph"))


def test_other_settings_are_seen() -> None:
    model = nets.plain()
    for settings in ({}, {"prefactors": (1.0, 0.0)}, {"pooling": 0.0}, {"keep_output": "logits"}):
        found = attack(model, capture="graph", **settings)
        assert same(found, attack(nets.plain(), capture="graph", **settings))
    model[2].kernel_size = model[2].stride = 1
    model[6] = nets.seeded(nn.Linear(6 * 6 * 6, 7))
    twin = nets.plain()
    twin[2].kernel_size = twin[2].stride = 1
    twin[6] = nets.seeded(nn.Linear(6 * 6 * 6, 7))
    assert same(attack(model, capture="graph"), attack(twin, capture="graph"))


def test_a_model_is_not_kept_alive_by_its_captured_steps() -> None:
    model = nets.plain()
    attack(model, explainer="lrp", capture="graph")
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


class Branching(nn.Module):
    """Decides by a value."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nets.plain()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x if float(x.detach().mean()) < 100 else -x)


class Sly(Branching):
    """Hides a value of the image from PyTorch."""

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.from_numpy(x.detach().numpy()[:, :1, :1, :1].copy())
        return self.net(x * (1 + scale))


@pytest.mark.parametrize(
    ("model", "why"), [(Branching(), "reads the values"), (Sly(), "other numbers")]
)
def test_what_cannot_be_captured_runs_eagerly_or_is_refused(
    model: nn.Module,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(capturing, "_WORTH", 4)
    with pytest.raises(CaptureError, match=rf"cannot be captured: .*{why}.*to never"):
        attack(model, capture="graph")
    with caplog.at_level(logging.INFO, logger="trompe"):
        result = attack(model, capture="auto")
    assert result.provenance["runner"] == "eager"
    assert why in caplog.text


def test_a_way_that_fails_is_refused_though_another_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any) -> Any:
        raise CaptureError("no compiler")

    model = nets.plain()
    attack(model, capture="graph")
    monkeypatch.setitem(capturing.RUNNERS, "compile", fails)
    with pytest.raises(CaptureError, match=r"cannot be captured: no compiler.*to never"):
        attack(model, capture="compile")
    assert attack(model, capture="graph").provenance["runner"] == "graph"


def test_auto_times_a_graph_that_was_asked_for_by_name_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capturing, "_WORTH", 10)

    def timed(self: Any, way: str, inputs: Any) -> Any:
        self._times.setdefault(way, []).append(0.0 if way == "graph" else 1.0)
        return self._run(way, inputs)

    monkeypatch.setattr(capturing.CapturedStep, "_timed", timed)
    model = nets.plain()
    attack(model, capture="graph")
    assert attack(model, iterations=30, capture="auto").provenance["runner"] == "graph"


def test_hooks_run_in_every_step_unless_a_capture_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capturing, "_WORTH", 4)
    model = nets.plain()
    fired: list[int] = []
    model[0].register_forward_hook(lambda *_: fired.append(1))
    assert attack(model, iterations=20, capture="auto").provenance["runner"] == "eager"
    assert len(fired) > 20
    assert attack(model, iterations=20, capture="graph").provenance["runner"] == "graph"


def test_memory_that_does_not_suffice_for_a_capture_leaves_the_eager_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def greedy(*_: Any) -> Any:
        raise MemoryError("out of memory")

    monkeypatch.setattr(capturing, "_WORTH", 4)
    monkeypatch.setitem(capturing.RUNNERS, "graph", greedy)
    with caplog.at_level(logging.INFO, logger="trompe"):
        assert attack(nets.plain(), capture="auto").provenance["runner"] == "eager"
    assert "out of memory" in caplog.text
    with pytest.raises(trompe.errors.MemoryLimitError):
        attack(nets.plain(), capture="graph")


def test_an_attack_on_no_steps_and_unknown_ways() -> None:
    assert attack(nets.plain(), iterations=0, capture="graph").iterations == 0
    with pytest.raises(UsageError, match="unknown capture 'x': choose from auto, never, graph"):
        attack(nets.plain(), capture="x")
    with pytest.raises(CaptureError, match="CUDA device"):
        attack(nets.plain(), capture="cuda-graph")


@pytest.mark.slow
def test_a_compiled_attack_agrees() -> None:
    model = nets.plain()
    found = attack(model, capture="compile")
    expected = attack(model, capture="never")
    assert found.provenance["runner"] == "compile"
    torch.testing.assert_close(found.history["loss"], expected.history["loss"], rtol=1e-2, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("how", ["graph", "cuda-graph"])
def test_a_captured_attack_on_a_gpu_gives_the_same(how: str) -> None:
    model = nets.plain().cuda()
    found = attack(model, X.cuda(), capture=how)
    expected = attack(model, X.cuda(), capture="never")
    assert found.provenance["runner"] == how
    torch.testing.assert_close(found.history["loss"], expected.history["loss"], rtol=1e-3, atol=0)
