"""``trompe.harden``: a copy is trained, seeded, kept, gone on with, and attacked as it is used."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.attacks.presets import preset_for
from trompe.attacks.surrogate import surrogate_of
from trompe.defences.base import defences
from trompe.engine.smoothing import Smoothed
from trompe.errors import UsageError


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(6 * 16, 3),
    ).eval()  # fmt: skip


def data(count: int = 4) -> list[tuple[Tensor, Tensor]]:
    """Classes that a line tells apart: which colour is brightest."""
    draw = torch.Generator().manual_seed(1)
    found = []
    for _ in range(count):
        x = torch.rand(16, 3, 8, 8, generator=draw)
        y = torch.randint(3, (16,), generator=draw)
        x[torch.arange(16), y] += 0.5
        found.append((x.clamp(0, 1), y))
    return found


def weights(model: nn.Module) -> list[Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


SPACE = trompe.InputSpace((0.0,) * 3, (1.0,) * 3)


def harden(net: nn.Module, **options: Any) -> Any:
    settings = {"defence": "lga", "epochs": 3, "rate": 1e-2, "input_space": SPACE} | options
    return trompe.harden(net, settings.pop("batches", data()), **settings)


def test_a_copy_is_trained_and_the_original_is_not_touched() -> None:
    net = network()
    before, mode = weights(net), [m.training for m in net.modules()]
    flags = [p.requires_grad for p in net.parameters()]
    found = harden(net)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(net), strict=True))
    assert [m.training for m in net.modules()] == mode
    assert [p.requires_grad for p in net.parameters()] == flags
    assert not same(net, found.network)
    x, y = data(1)[0]
    loss = [nn.functional.cross_entropy(m(x), y) for m in (net, found.model)]
    assert float(loss[1]) < float(loss[0])
    assert found.history[-1].loss < found.history[0].loss
    assert torch.equal(found.network[1].running_mean, net[1].running_mean)
    assert found.card["options"]["beta"] == 3.0
    assert isinstance(found.model, Smoothed)
    assert not any(p.requires_grad for p in found.network.parameters())


def test_the_same_seed_gives_the_same_weights_and_another_one_others() -> None:
    net = network()
    assert same(harden(net).network, harden(net).network)
    assert not same(harden(net).network, harden(net, seed=1).network)


class Stopped(Exception):
    """What ends a training half way."""


def test_a_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    net, file = network(), tmp_path / "training.safetensors"
    whole = harden(net, held_out=data(1))

    def stop(done: int, total: int, terms: Any) -> None:
        if done == 9:  # in the third epoch
            raise Stopped

    with pytest.raises(Stopped):
        harden(net, held_out=data(1), checkpoint=file, progress=stop)
    seen: list[int] = []
    found = harden(
        net, held_out=data(1), checkpoint=file, progress=lambda done, total, _: seen.append(done)
    )
    assert seen[0] == 9
    assert len(seen) == 4  # the third epoch alone
    assert same(found.network, whole.network)
    assert [one.loss for one in found.history] == [one.loss for one in whole.history]
    again = harden(net, held_out=data(1), checkpoint=file, progress=lambda *_: seen.append(-1))
    assert -1 not in seen
    assert same(again.network, whole.network)
    for options in ({"seed": 1}, {"cosine": 2.0}, {"rate": 1e-3}, {"defence": "noise"}):
        with pytest.raises(UsageError, match="another model or other settings"):
            harden(net, checkpoint=file, **options)
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(UsageError, match="is damaged"):
        harden(net, held_out=data(1), checkpoint=file)
    file.write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="cannot be read"):
        harden(net, held_out=data(1), checkpoint=file)


def test_the_best_epoch_is_that_of_the_least_held_out_loss() -> None:
    net = network()
    found = harden(net, rate=1.0, epochs=4, held_out=data(1), defence="noise", sigma=0.01)
    losses = [one.held_out for one in found.history]
    assert found.card["best_epoch"] == 1 + losses.index(min(losses))
    short = harden(net, rate=1.0, epochs=4, defence="noise", sigma=0.01)
    assert short.card["best_epoch"] == 4
    assert short.card["best_by"] == "the last epoch"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"defence": "magic"}, "magic"),
        ({"sigma": 1.0}, "no option 'sigma'"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"rate": 0.0}, "rate must be positive"),
        ({"batches": []}, "no batch"),
        ({"l2": -1.0}, "l2 must be a finite"),
        ({"l2": "much"}, "l2 must be a finite"),
        ({"rate": 1e30, "epochs": 2}, "not finite"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        harden(network(), **options)


def test_a_shuffling_loader_is_seeded_for_every_epoch() -> None:
    x, y = (torch.cat(parts) for parts in zip(*data(), strict=True))
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, y), batch_size=16, shuffle=True
    )
    net = network()
    state = torch.get_rng_state()
    one, other = harden(net, batches=loader), harden(net, batches=loader)
    assert same(one.network, other.network)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_defence_is_reached_by_name() -> None:
    assert {"hessian", "lga", "ssr", "noise", "r2et"} <= set(defences.names())
    found = harden(network(), defence=defences["noise"](sigma=0.1), epochs=1)  # type: ignore[call-arg]
    assert found.card["defence"] == "noise"


def test_the_surrogate_of_a_smoothed_model_is_never_less_smooth() -> None:
    net, x = network(), data(1)[0][0]
    hardened = trompe.smooth(net, beta=2.0)
    settings = preset_for("fast", "gradient", 8)
    surrogate = surrogate_of(settings, hardened, x)
    assert surrogate is not None
    for beta in (1.0, 8.0, 300.0):
        surrogate.beta = beta
        assert float(surrogate.beta) == min(beta, 2.0)
    unpooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    model = trompe.smooth(unpooled, beta=2.0)
    other = surrogate_of(settings, model, x)
    assert other is not None
    other.beta = 300.0
    torch.testing.assert_close(other(x), model(x))


def test_a_hardened_network_is_attacked_as_it_is_used() -> None:
    """With softplus, not without: the attack's images are judged on the smoothed network."""
    model = trompe.smooth(copy.deepcopy(network()), beta=1.0)
    x = data(1)[0][0][:2]
    found = trompe.auto_attack(model, x, radius=0.1, budget=0.05, input_space=SPACE)
    worst = found.images["pcc"]
    gradient = trompe.explainer("gradient")
    maps = [trompe.heatmap(gradient(model, v, found.target)) for v in (x, worst)]
    torch.testing.assert_close(
        trompe.metrics.pcc(*maps).float(), found.worst["pcc"].float(), atol=1e-5, rtol=1e-5
    )
    assert float(found.worst["pcc"].max()) < 1
