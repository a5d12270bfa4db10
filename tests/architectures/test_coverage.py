"""The coverage matrix: works, not defined, refused."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.cli.coverage import candidates, check
from trompe.engine.sweep import relevance_of
from trompe.errors import UnsupportedOp
from trompe.rules.composites import COMPOSITES, composite_rules
from trompe.types import InputSpace
from trompe.zoo.tiny import TinyVGG

sys.path.insert(0, str(Path(__file__).parent))
from families import SMALL, WHOLE, Builder, build, images


def test_the_check_says_how_far_it_is() -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    seen: list[tuple[int, int]] = []
    names = ["gradient", "grad_times_input"]
    check(
        net,
        torch.rand(1, 3, 2, 2),
        names,
        derivative=False,
        progress=lambda done, total, _: seen.append((done, total)),
    )
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_the_matrix_of_a_residual_network() -> None:
    net, size = build(SMALL["resnet20"])
    rows = {row.method: row for row in check(net, images(size, 1))}
    assert set(rows) == set(candidates())
    assert rows["gradient"].status == "works"
    assert rows["lrp paper"].status == "works"
    assert rows["pattern_net"].status == "not defined"
    assert rows["attention_rollout"].status == "not defined"
    assert not [row for row in rows.values() if row.status == "refused"]


def sound(name: str, families: Mapping[str, Builder]) -> None:
    """Nothing is wrong; DeepLIFT lacks rules for layer norm and attention.

    Methods defined on ReLU are refused where there are other activations with a kink.
    """
    net, size = build(families[name])
    for row in check(net, images(size, 1)):
        assert row.status != "wrong", row
        if row.status == "refused" and row.method in ("guided_backprop", "deconvnet"):
            assert "is no ReLU" in row.reason
        else:
            assert row.status != "refused" or row.method == "deeplift", row


@pytest.mark.parametrize("name", SMALL)
def test_the_matrix_of_the_small(name: str) -> None:
    sound(name, SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_the_matrix(name: str) -> None:
    sound(name, WHOLE)


def test_the_matrix_of_a_transformer() -> None:
    net, size = build(SMALL["vit"])
    names = ["attention_rollout", "lrp attn", "deeplift", "grad_cam"]
    status = {row.method: row.status for row in check(net, images(size, 1), names)}
    assert status["attention_rollout"] == status["lrp attn"] == "works"
    assert status["deeplift"] == "refused"
    assert status["grad_cam"] == "not defined"


def test_maps_larger_than_the_logit_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default rules return at most the logit; by contribution they would not here."""
    net, size = build(SMALL["mobilenet_v2"])
    x = trompe.InputSpace().clamp(images(size, 1))
    (row,) = check(net, x, ["lrp paper"], derivative=False)
    assert row.status == "works"
    assert row.total is not None
    assert row.magnitude is not None
    assert 0 < row.total <= row.magnitude <= 1 + 1e-6
    monkeypatch.setitem(COMPOSITES, "paper", COMPOSITES["epsilon"])
    (row,) = check(net, x, ["lrp paper"], derivative=False)
    assert row.status == "wrong"
    assert "times the logit" in row.reason
    (row,) = check(net, x, ["gradient"], derivative=False)
    assert row.magnitude is None


def test_the_oracles_of_the_table_agree_and_can_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("zennit")
    sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
    from oracles import agreement

    net = TinyVGG(5).double().eval().requires_grad_(False)
    x, target = trompe.InputSpace().clamp(images(64, 1)), torch.tensor([2])
    found = agreement(net, x, target)
    assert found["gradient"] == ("autograd", 0.0)
    assert {source for source, _ in found.values()} == {"autograd", "zennit"}
    assert all(error < 1e-5 for _, error in found.values()), found
    monkeypatch.setitem(COMPOSITES, "epsilon", COMPOSITES["epsilon_plus"])
    assert agreement(net, x, target)["lrp epsilon"][1] > 0.01


def test_errors_name_only_what_exists() -> None:
    net, size = build(SMALL["resnet20"])
    dense = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).double()
    for name, way, model, x in (
        ("attention_rollout", "composite='attn'", net, images(size, 1)),
        ("grad_cam", "layer=", dense, images(2, 1)),
    ):
        with pytest.raises(UnsupportedOp, match=way) as error:
            trompe.explainer(name)(model, x, torch.tensor([1]))
        assert "RULES" not in str(error.value)


class Strange(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), Fourier())

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flatten(1)[:, :4])


class Fourier(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x).real


@pytest.mark.parametrize("composite", ["paper", "epsilon_plus", "attn"])
def test_what_has_no_rule_is_refused_by_name_and_place(composite: str) -> None:
    net, x = Strange(), torch.randn(1, 3, 2, 2)
    with pytest.raises(UnsupportedOp) as error:
        trompe.explainer("lrp", composite=composite)(net, x, torch.tensor([1]))
    assert "'Tensor.real'" in str(error.value)
    assert "'inner.1' (Fourier)" in str(error.value)
    assert "trompe.rules.lrp.RULES" in str(error.value)
    trompe.explainer("gradient")(net, x, torch.tensor([1]))


def test_weights_that_depend_on_the_input_are_refused() -> None:
    class Dynamic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            flat = x.flatten(1)
            return nn.functional.linear(torch.linspace(-1, 1, 60).view(5, 12), flat).t()

    with pytest.raises(UnsupportedOp, match="depend on the input"):
        relevance_of(
            Dynamic(),
            torch.randn(2, 3, 2, 2, requires_grad=True),
            lambda logits: logits,
            lambda _: composite_rules("epsilon", InputSpace()),
        )


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.exp()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(Own.apply(x.flatten(1)))


@pytest.mark.parametrize("trained", [False, True])
def test_what_cannot_be_recorded_is_refused(trained: bool) -> None:
    net = Custom().requires_grad_(trained)
    with pytest.raises(UnsupportedOp, match=r"'Own'.*'linear' \(Linear\) cannot be recorded"):
        trompe.explainer("lrp")(net, torch.randn(2, 3, 2, 2), torch.tensor([1, 0]))


def test_weights_computed_from_parameters_are_constants() -> None:
    net = nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(12, 5)))
    x, target = torch.rand(2, 3, 2, 2), torch.tensor([1, 0])
    relevance = trompe.explainer("lrp", composite="epsilon")(net, x, target)
    assert relevance.requires_grad
    assert relevance.any()


class _Faint(nn.Module):
    """Logits of 0.1, on which the image weighs as much as a last digit."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(784, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.1 + 1e-13 * self.body(x)


def test_slopes_below_rounding_are_neither_right_nor_wrong() -> None:
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    (row,) = check(_Faint(), x, ["occlusion"])
    assert (row.status, row.derivative_error) == ("works", None)
    assert row.reason == "slopes smaller than rounding"
    (row,) = check(_Faint(), x, ["grad_times_input"])  # made of slopes, which are seen
    assert row.derivative_error is not None
    assert row.derivative_error < 1e-4
