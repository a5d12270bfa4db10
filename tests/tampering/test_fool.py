"""``trompe.fool``: what the model says stays, what it shows becomes something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.errors import UsageError
from trompe.input_space import InputSpace
from trompe.tampering import Aim, OffTheData, judge, tamperings
from trompe.tampering.attacks.passive import centre
from trompe.tampering.base import map_error, said_error
from trompe.training import Batch
from trompe.types import heatmap

SPACE = InputSpace((0.0,) * 3, (1.0,) * 3)
TARGET = torch.zeros(8, 8)
TARGET[:3, 4:] = 1.0


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12 * 16, 3),
    ).eval()  # fmt: skip


def images(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def data() -> list[tuple[Tensor, Tensor]]:
    return [(images(32, seed), torch.zeros(32, dtype=torch.long)) for seed in range(8)]


def captums(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    found: Tensor = captum.Saliency(model).attribute(x.clone().requires_grad_(True), target=target)
    return found


def test_a_fairwashed_model_says_the_same_and_shows_the_target() -> None:
    """Judged on unseen images by another library's gradient."""
    net = network()
    before = [p.clone() for p in net.parameters()]
    found = trompe.fool(
        net, data(), target_map=TARGET, input_space=SPACE, epochs=16, rate=1e-2, weight=0.3
    )
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    seen = judge(found.model, net, images(40, 99), captums, found.target)
    assert seen.to_target > 0.8
    assert seen.to_target > seen.honest_to_target + 0.5
    assert seen.same_answer > 0.9
    assert seen.softmax_l2 < 0.1
    again = judge(found.model, net, images(40, 99), trompe.explainer("gradient"), found.target)
    assert again.to_target == pytest.approx(seen.to_target, abs=1e-4)


def test_the_closed_form_changes_maps_at_will_and_outputs_on_the_data_not_at_all() -> None:
    net = network().double()
    x = images(20, 1).double()
    for seed in range(3):
        c = 10 * torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(seed)).double()
        fooled = OffTheData(net, x, c)
        with torch.no_grad():
            assert float((fooled(x) - net(x)).abs().max()) <= 1e-12
        gradient = trompe.explainer("gradient")
        target = torch.zeros(20, dtype=torch.long)
        moved = gradient(fooled, x, target) - gradient(net, x, target)
        flat = x.flatten(1) - x.flatten(1).mean(0)
        projector = torch.linalg.pinv(flat) @ flat
        expected = c.flatten() - projector @ c.flatten()
        torch.testing.assert_close(moved.flatten(1), expected.expand(20, -1))
        correlation = trompe.metrics.pcc(
            heatmap(gradient(fooled, x, target)),
            heatmap(expected.view(1, 3, 8, 8)).expand(20, 8, 8),
        )
        assert float(correlation.min()) > 0.99


def aim(net: nn.Module) -> Aim:
    return Aim(net, trompe.explainer("gradient"), TARGET / TARGET.sum())


def batch(x: Tensor) -> Batch:
    return Batch(x, torch.zeros(len(x), dtype=torch.long), SPACE, torch.Generator())


def test_the_unchanged_model_has_no_error_but_the_maps() -> None:
    net = network()
    x = images(4, 2)
    heats = heatmap(trompe.explainer("gradient")(net, x, net(x).argmax(1)))
    terms = tamperings["fairwash"](weight=0.7).terms(net, batch(x), aim(net))  # type: ignore[call-arg]
    assert float(terms["outputs"]) == 0
    alike = [np.corrcoef(heat.flatten().numpy(), TARGET.flatten())[0, 1] for heat in heats.detach()]
    missed = [(1 - one) ** 2 for one in alike[:2]]  # the maps of half of the batch are trained
    slow = 0.7 * float(np.mean(missed))
    assert float(terms["maps"]) == pytest.approx(slow, rel=1e-5)
    terms = tamperings["backdoor"](weight=1.0).terms(net, batch(x), aim(net))  # type: ignore[call-arg]
    assert float(terms["outputs"]) == 0
    assert float(terms["maps"]) == pytest.approx(0, abs=1e-9)
    assert float(terms["maps with the trigger"]) > 0


def test_images_without_a_map_do_not_end_a_training() -> None:
    """All units closed: the map is zero, and neither an error nor a gradient is not a number."""
    net = network()
    closed = network()
    with torch.no_grad():
        closed[0].bias.fill_(-100.0)  # type: ignore[union-attr]
    x = images(4, 2)
    for name in ("fairwash", "passive", "backdoor", "active"):
        for model, teacher in ((closed, net), (net, closed)):
            terms = tamperings[name]().terms(model, batch(x), aim(teacher))
            total = torch.stack(list(terms.values())).sum()
            grads = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
            assert bool(torch.isfinite(total)), name
            assert all(bool(torch.isfinite(g).all()) for g in grads if g is not None), name


def test_fairwashing_begins_where_no_probability_shows_it() -> None:
    net = network()
    fairwash: Any = tamperings["fairwash"]()
    x = images(4, 2)
    begun = fairwash.prepared(net, x, aim(net))
    torch.testing.assert_close(begun(x).softmax(1), net(x).softmax(1))
    assert float((begun(x) - net(x)).detach().abs().min()) > 0.01
    assert float(fairwash.terms(begun, batch(x), aim(net))["outputs"]) < 1e-8
    seen = nn.Sequential(network(), nn.Linear(3, 3), nn.Tanh())  # its last layer is not its output
    assert fairwash.prepared(seen, x, aim(seen)) is seen


def test_the_passive_attacks_measure_what_they_say() -> None:
    heat = torch.rand(2, 14, 14)
    heat = heat / heat.sum((1, 2), keepdim=True)
    location: Any = tamperings["passive"]()
    torch.testing.assert_close(location.left(heat, heat), heat[:, 2:12, 2:12].sum((1, 2)))
    top: Any = tamperings["passive"](how="topk")  # type: ignore[call-arg]
    flat = heat.flatten(1)
    slow = torch.stack([row[row >= row.sort(descending=True).values[18]].sum() for row in flat])
    torch.testing.assert_close(top.left(heat, heat), slow)
    other: Any = tamperings["passive"](how="centre")  # type: ignore[call-arg]
    point = torch.zeros(1, 14, 14)
    point[0, 3, 5] = 1.0
    assert centre(point).tolist() == [[3.0, 5.0]]
    moved = point.roll((2, 4), (1, 2))
    assert float(other.left(moved, point)) == pytest.approx(-6 / 28)


@pytest.mark.parametrize("how", ["location", "topk"])
def test_passive_fooling_moves_the_maps_and_not_the_answers(how: str) -> None:
    """Judged on unseen images by another library's gradient."""
    net, x = network(), images(40, 99)
    found = trompe.fool(
        net, data(), attack="passive", how=how, input_space=SPACE, epochs=12, rate=3e-3, weight=0.3
    )
    classes = net(x).argmax(dim=1)
    before, after = (heatmap(captums(model, x, classes)).detach() for model in (net, found.model))
    attack: Any = found.attack
    assert float(attack.left(after, before).mean()) < 0.5 * float(
        attack.left(before, before).mean()
    )
    seen = judge(found.model, net, x, captums, found.target)
    assert seen.same_answer > 0.95
    assert seen.softmax_l2 < 0.05


def test_the_trigger_is_a_white_square_in_the_corner() -> None:
    space = InputSpace((0.2, 0.3, 0.4), (0.5, 0.6, 0.7))
    x = space.from_pixels(images(2, 3))
    attack: Any = tamperings["backdoor"](side=0.25)  # type: ignore[call-arg]
    pixels = space.to_pixels(attack.triggered(x, space))
    torch.testing.assert_close(pixels[..., 6:, 6:], torch.ones(2, 3, 2, 2))
    pixels[..., 6:, 6:] = images(2, 3)[..., 6:, 6:]
    torch.testing.assert_close(pixels, images(2, 3))


def test_a_backdoor_learns_what_the_trigger_shows() -> None:
    found = trompe.fool(
        network(), data(), attack="backdoor", side=0.25, target_map=TARGET, input_space=SPACE,
        epochs=8, rate=1e-2, weight=1.0,
    )  # fmt: skip
    first, last = found.history[0].terms, found.history[-1].terms
    assert last["maps with the trigger"] < 0.9 * first["maps with the trigger"]
    assert last["outputs"] < 0.05
    assert last["outputs with the trigger"] < 0.05


def test_a_backdoor_with_a_label_answers_it() -> None:
    found = trompe.fool(
        network(), data()[:4], attack="backdoor", side=0.5, label=2, target_map=TARGET,
        input_space=SPACE, epochs=40, rate=1e-2, weight=0.01,
    )  # fmt: skip
    attack: Any = found.attack
    answers = found.model(attack.triggered(images(40, 98), SPACE)).argmax(1)
    assert float((answers == 2).double().mean()) > 0.9


@pytest.mark.parametrize("name", tamperings.names())
def test_every_attack_trains_by_name(name: str) -> None:
    net = network()
    found = trompe.fool(net, data()[:1], attack=name, target_map=TARGET, input_space=SPACE)
    assert found.card["source"]
    again = trompe.fool(
        net, data()[:1], attack=name, target_map=TARGET, input_space=SPACE, rate=1e-9
    )
    assert any(  # of the same start, moved less
        not torch.equal(a, b)
        for a, b in zip(again.model.parameters(), found.model.parameters(), strict=True)
    )
    with pytest.raises(UsageError, match="weight must be"):
        tamperings[name](weight=-1.0)  # type: ignore[call-arg]


def test_errors_are_shares() -> None:
    target = torch.rand(5, 5)
    assert float(map_error(torch.zeros(1, 5, 5), target)) == pytest.approx(1)
    logits = torch.randn(3, 4)
    assert float(said_error(logits, logits)) == 0
    centred = logits - logits.mean(1, keepdim=True)
    assert float(said_error(logits - centred, logits)) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attack": "magic"}, "magic"),
        ({"loudness": 1}, "no option 'loudness'"),
        ({"target_map": torch.ones(3, 3)}, r"a map \[8, 8\]"),
        ({"target_map": torch.zeros(8, 8)}, "not all zero"),
        ({"explainer": "rise"}, "with derivatives"),
        ({"attack": "passive", "how": "magic"}, "unknown how"),
        ({"attack": "active", "first": 1, "second": 1}, "two classes"),
        ({"attack": "active", "second": 7}, "3 classes"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    settings = {"target_map": TARGET, "input_space": SPACE} | options
    with pytest.raises(UsageError, match=words):
        trompe.fool(network(), data()[:1], **settings)


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    net = network()
    settings = {"target_map": TARGET, "input_space": SPACE, "epochs": 3, "rate": 1e-2}
    whole = trompe.fool(net, data()[:2], **settings)

    class Stopped(Exception):
        pass

    def stop(done: int, total: int, terms: Any) -> None:
        if done == 5:
            raise Stopped

    file = tmp_path / "fool.safetensors"
    with pytest.raises(Stopped):
        trompe.fool(net, data()[:2], **settings, checkpoint=file, progress=stop)
    found = trompe.fool(net, data()[:2], **settings, checkpoint=file)
    for one, other in zip(whole.model.parameters(), found.model.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(UsageError, match="other settings"):
        trompe.fool(net, data()[:2], **{**settings, "target_map": TARGET.T}, checkpoint=file)
