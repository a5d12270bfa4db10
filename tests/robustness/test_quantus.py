"""Quantus' metrics with an attack: its own formula at the images returned, above noise."""

from __future__ import annotations

import copy

import nets
import numpy as np
import pytest
import torch
from torch import nn

import trompe
from trompe.attacks import LInfBall
from trompe.errors import UsageError
from trompe.robustness import quantus as worst

SPACE = trompe.InputSpace((0.5, 0.4, 0.3), (0.25, 0.5, 0.2))
BALL = LInfBall(0.1)


@pytest.mark.parametrize("kind", ["max_sensitivity", "local_lipschitz"])
def test_values_are_those_of_the_images_returned_and_above_those_of_noise(kind: str) -> None:
    pytest.importorskip("quantus", reason="quantus is not installed")
    net = nets.plain()
    x = SPACE.from_pixels(torch.rand(4, 3, nets.SIZE, nets.SIZE, generator=draw()))
    classes = net(x).argmax(dim=1)
    options = {"constraint": BALL, "input_space": SPACE, "nr_samples": 5}
    explain = worst.explain_func("gradient", input_space=SPACE)

    def values(iterations: int) -> tuple[np.ndarray, np.ndarray]:
        metric = getattr(worst, kind)("gradient", iterations=iterations, **options)
        found = metric(
            model=copy.deepcopy(net), x_batch=x.numpy(), y_batch=classes.numpy(),
            explain_func=explain, channel_first=True,
        )  # fmt: skip
        return np.array(found), metric.inputs[0]

    found, images = values(30)
    none, _ = values(0)
    at = torch.as_tensor(images)
    away = (at - x) / SPACE.scale(1.0, x)
    assert away.abs().max() <= 0.1 + 1e-6
    assert net(at).argmax(dim=1).tolist() == classes.tolist()
    method = trompe.explainer("gradient")
    before, after = (method(net, one, classes).detach().flatten(1) for one in (x, at))
    by = before if kind == "max_sensitivity" else (at - x).flatten(1)
    expected = (after - before).norm(dim=1) / by.norm(dim=1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4)
    assert (found >= none - 1e-9).all()
    assert found.mean() > 1.1 * none.mean()


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def test_changed_predictions_are_no_number() -> None:
    """A network of another class everywhere but at the image itself."""
    pytest.importorskip("quantus", reason="quantus is not installed")

    centre = torch.rand(1, 3, 4, 4, generator=draw()) * 0.2 + 0.4

    class Edge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            away = (x - centre).square().flatten(1).sum(dim=1) * self.w
            both = 0.01 * x.flatten(1).sum(dim=1)
            return torch.stack([both + 1e-4 - away, both + away - 1e-4], dim=1)

    plain = trompe.InputSpace((0.0,) * 3, (1.0,) * 3)
    metric = worst.max_sensitivity(
        "gradient_x_input", constraint=BALL, input_space=plain, iterations=2
    )
    found = metric(
        model=Edge().eval(), x_batch=centre.expand(2, 3, 4, 4).numpy(),
        y_batch=np.zeros(2, dtype=np.int64), channel_first=True,
        explain_func=worst.explain_func("gradient_x_input", input_space=plain),
        a_batch=np.arange(96, dtype=np.float32).reshape(2, 3, 4, 4),
    )  # fmt: skip
    assert np.isnan(found).all()


def test_without_quantus_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "quantus", None)
    with pytest.raises(UsageError, match="pip install quantus"):
        worst.max_sensitivity("gradient")


def test_a_method_is_an_explain_func_as_it_is() -> None:
    quantus = pytest.importorskip("quantus", reason="quantus is not installed")
    net = nets.plain()
    x = SPACE.from_pixels(torch.rand(2, 3, nets.SIZE, nets.SIZE, generator=draw()))
    classes = net(x).argmax(dim=1)
    metric = quantus.Sparseness(disable_warnings=True, display_progressbar=False)
    arguments = {
        "model": net,
        "x_batch": x.numpy(),
        "y_batch": classes.numpy(),
        "channel_first": True,
        "device": "cpu",
    }
    method = trompe.explainer("lrp", input_space=SPACE)
    maps = method(net, x, classes).detach().numpy()
    found = metric(a_batch=None, explain_func=method, **arguments)
    np.testing.assert_allclose(found, metric(a_batch=maps, **arguments), rtol=1e-5)


def test_the_arguments_of_quantus_give_the_same_map() -> None:
    net, method = nets.plain(), trompe.explainer("gradient")
    x = torch.rand(2, 3, nets.SIZE, nets.SIZE, generator=draw())
    expected = method(net, x, torch.tensor([1, 0]))
    with torch.no_grad():
        found = method(model=net, inputs=x.double().numpy(), targets=np.array([1, 0]), device="cpu")
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, expected.detach().numpy())
    assert isinstance(method(net, inputs=x, targets=[1, 0]), torch.Tensor)
    for wrong in ({"inputs": x}, {"inputs": x, "targets": [1, 0], "steps": 3}):
        with pytest.raises(UsageError):
            method(net, **wrong)
    for wrong in ([0.5, 1.0], "cat", [float("nan"), 1.0]):
        with pytest.raises(UsageError, match="class numbers"):
            method(net, inputs=x, targets=wrong)
    with pytest.raises(UsageError, match="must be images"):
        method(net, inputs="cat", targets=[1, 0])
    with pytest.raises(UsageError, match="a model, images and classes"):
        method(net, x)
