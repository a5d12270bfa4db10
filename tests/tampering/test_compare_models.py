"""``trompe.compare``: equal outputs and unlike maps are the signature of tampering."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.errors import UsageError
from trompe.tampering import OffTheData


def network(seed: int = 0, classes: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, classes)
    ).eval()


def images() -> Tensor:
    return torch.rand(30, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_model_is_like_itself_whatever_the_batches() -> None:
    net = network()
    found = trompe.compare(net, copy.deepcopy(net), images(), batch_size=7)
    assert found.same_answer == 1
    assert found.outputs == 0
    assert found.suspicion == pytest.approx(0, abs=1e-5)
    assert found.off_the_data == 0
    assert not found.suspect
    assert found.verdict().startswith("Both models explain themselves alike")


def test_two_honest_models_differ_in_both_and_are_not_suspect() -> None:
    found = trompe.compare(network(1), network(0), images())
    assert found.outputs > 0.5
    assert min(found.median(name) for name in found.maps) < 0.8
    assert not found.suspect
    assert "as two honest ones may" in found.verdict()


def test_the_closed_form_is_found() -> None:
    """Its outputs on the data are equal, and all of the gradients' change lies off the data."""
    net, x = network().double(), images().double()
    fooled = OffTheData(net, x, torch.eye(8).expand(3, 8, 8).double() * 10)
    found = trompe.compare(fooled, net, x)
    assert found.outputs < 1e-9
    assert found.off_the_data == pytest.approx(1.0, abs=1e-9)
    assert found.suspect
    assert found.verdict().startswith("SUSPECT")
    swapped = trompe.compare(net, fooled, x)
    assert swapped.suspect


def test_the_numbers_are_what_they_say() -> None:
    one, other, x = network(1), network(0), images()
    found = trompe.compare(one, other, x, methods=["gradient"])
    with torch.no_grad():
        a, b = one(x), other(x)
    target = b.argmax(1)
    assert found.same_answer == pytest.approx(float((a.argmax(1) == target).double().mean()))
    spread = (b - b.mean(1, keepdim=True)).square().mean()
    apart = (a - b) - (a - b).mean(1, keepdim=True)
    assert found.outputs == pytest.approx(float((apart.square().mean() / spread).sqrt()), rel=1e-5)
    gradient = trompe.explainer("gradient")
    maps = [trompe.heatmap(gradient(n, x, target)) for n in (one, other)]
    torch.testing.assert_close(found.maps["gradient"], trompe.metrics.pcc(*maps))
    assert found.suspicion == pytest.approx(
        (1 - found.median("gradient")) / (found.outputs + 0.05), rel=1e-6
    )


def test_what_is_added_to_all_classes_alike_hides_no_map() -> None:
    """Logits far apart, probabilities the same: a fairwashed model's are like that."""

    class Common(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.model(x) + 100 * x[:, 0, :4, :4].sum((1, 2))[:, None]
            return found

    found = trompe.compare(Common(network()), network(), images(), methods=["gradient"])
    assert found.outputs < 1e-3
    assert found.same_answer == 1
    assert found.suspect


def test_models_of_other_classes_are_refused() -> None:
    with pytest.raises(UsageError, match="3 and 4 classes"):
        trompe.compare(network(), network(classes=4), images())
    with pytest.raises(UsageError, match="at least one method"):
        trompe.compare(network(), network(), images(), methods=[])
