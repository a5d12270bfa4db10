"""Frames of an attack while it runs, without a page."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
import pytest
import torch
from torch import Tensor

import trompe
from trompe.app import live
from trompe.app.live import Frame, LiveAttack
from trompe.types import LoadedModel
from trompe.zoo.images import default_images
from trompe.zoo.targets import text_map

METHOD = trompe.explainer("gradient")


@pytest.fixture(scope="module")
def net() -> LoadedModel:
    return trompe.load_model("tiny-vgg")


@pytest.fixture(scope="module")
def x(net: LoadedModel) -> Tensor:
    return net.input_space.from_pixels(default_images(how=net.preprocessing)["cat"][None])


AIM = text_map("x", 64, 64)


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "trompe-attack"]


def test_frames_are_those_of_the_original_network(net: LoadedModel, x: Tensor) -> None:
    attack = LiveAttack(net, x, AIM, METHOD, steps=6, every=0.0)
    frames = list(attack)
    assert (frames[0].step, frames[0].psnr) == (0, float("inf"))
    assert frames[-1].step == 6
    steps = [frame.step for frame in frames]
    assert steps == sorted(steps)
    original = net.input_space.to_pixels(x)[0]
    for frame in frames:
        seen = net.input_space.from_pixels(frame.pixels[None])
        logits = net.model(seen)
        expected = trompe.heatmap(METHOD(net, seen, int(net.model(x).argmax())))[0]
        assert np.corrcoef(frame.map.flatten(), expected.flatten())[0, 1] > 0.999
        likeness = np.corrcoef(frame.map.flatten(), AIM.flatten())[0, 1]
        assert frame.pcc == pytest.approx(likeness, abs=1e-5)
        answer = logits.softmax(1)[0, net.model(x).argmax()]
        assert frame.answer == pytest.approx(float(answer), abs=1e-4)
        assert frame.kept
        if frame.step:
            error = float((frame.pixels - original).square().mean())
            expected_psnr = -10 * math.log10(error) if error else math.inf  # nothing was found
            assert frame.psnr == pytest.approx(expected_psnr, abs=1e-3)


def test_what_is_found_is_what_manipulate_finds(net: LoadedModel, x: Tensor) -> None:
    attack = LiveAttack(net, x, AIM, METHOD, steps=5)
    last = list(attack)[-1]
    expected = trompe.manipulate(net, x, AIM, explainer=METHOD, iterations=5)
    assert attack.result is not None
    assert torch.equal(attack.result.x_adv, expected.x_adv)
    assert torch.equal(last.map, expected.map_adv[0])
    assert attack.label == net.label(int(expected.target_class))


def test_stop_ends_it_with_the_best_so_far(net: LoadedModel, x: Tensor) -> None:
    attack = LiveAttack(net, x, AIM, METHOD, steps=5000, every=0.0)
    for frame in attack:
        if frame.step >= 3:
            attack.stop.set()
    assert attack.result is not None
    assert attack.result.stopped == "interrupted"
    assert 3 <= attack.result.iterations < 5000
    assert workers() == []


def test_stopped_before_it_begins(net: LoadedModel, x: Tensor) -> None:
    attack = LiveAttack(net, x, AIM, METHOD, steps=5000)
    attack.stop.set()
    assert [frame.step for frame in attack][-1] == 0
    assert workers() == []


def test_who_looks_away_ends_it(net: LoadedModel, x: Tensor) -> None:
    frames = LiveAttack(net, x, AIM, METHOD, steps=5000).__iter__()
    assert next(frames).step == 0
    frames.close()
    assert workers() == []


def test_an_attack_nobody_looks_at_ends(
    net: LoadedModel, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PATIENCE", 0.2)
    attack = LiveAttack(net, x, AIM, METHOD, steps=100_000, every=0.0)
    frames = attack.__iter__()
    next(frames)
    deadline = time.monotonic() + 60
    while workers() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers() == []
    assert attack.result is not None
    assert attack.result.stopped == "interrupted"
    frames.close()


def test_two_at_once_do_not_disturb_each_other(x: Tensor) -> None:
    alone: list[Frame] = []
    for name in ("gradient", "lrp"):
        net = trompe.load_model("tiny-vgg")
        alone.append(list(LiveAttack(net, x, AIM, trompe.explainer(name), steps=8))[-1])
    together: dict[str, Frame] = {}

    def run(name: str) -> None:
        net = trompe.load_model("tiny-vgg")
        together[name] = list(LiveAttack(net, x, AIM, trompe.explainer(name), steps=8))[-1]

    threads = [threading.Thread(target=run, args=(name,)) for name in ("gradient", "lrp")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for before, name in zip(alone, ("gradient", "lrp"), strict=True):
        assert torch.equal(together[name].pixels, before.pixels)
        assert torch.equal(together[name].map, before.map)


def test_what_goes_wrong_reaches_who_looks(net: LoadedModel, x: Tensor) -> None:
    with pytest.raises(trompe.TrompeError, match="target"):
        list(LiveAttack(net, x, torch.zeros(64, 64), METHOD))
