"""Methods that redistribute a logit refuse probabilities; gates and attention inside are none."""

from __future__ import annotations

from collections.abc import Callable

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.errors import ModelError
from trompe.output_meaning import ends_in_probabilities

METHODS = ("lrp", "guided_backprop", "deconvnet", "excitation_backprop")
TARGET = torch.tensor([0, 1])


class Ending(nn.Module):
    """A network with something done to its logits."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.end = nets.plain(), end
        self.gate = nn.Linear(4, 4)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.net(x))


ENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda h: h.softmax(1),
    "written out": lambda h: h.exp() / h.exp().sum(1, keepdim=True),
    "sigmoid": torch.sigmoid,
    "sigmoid written out": lambda h: 1 / (1 + torch.exp(-h)),
    "hard sigmoid": F.hardsigmoid,
    "log_softmax": lambda h: F.log_softmax(h, 1),
    "logsigmoid": F.logsigmoid,
    "two of one": lambda h: torch.stack([1 - h[:, 0].sigmoid(), h[:, 0].sigmoid()], 1),
    "clamped": lambda h: h.softmax(1).clamp(1e-7, 1 - 1e-7),
    "reshaped": lambda h: h[:, :, None, None].softmax(1).flatten(1),
}


@pytest.mark.parametrize("end", ENDS)
def test_probabilities_are_seen(end: str) -> None:
    model = Ending(ENDS[end])
    with torch.enable_grad():
        assert ends_in_probabilities(model(nets.images(2).requires_grad_(True)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("end", ["softmax", "sigmoid", "log_softmax"])
def test_methods_of_logits_refuse_probabilities(method: str, end: str) -> None:
    model, x = Ending(ENDS[end]), nets.images(2)
    with pytest.raises(ModelError, match="returns probabilities, and this method needs logits"):
        trompe.explainer(method)(model, x, TARGET)
    with pytest.raises(ModelError, match="returns probabilities, and this method needs logits"):
        trompe.explainer(method)(trompe.smooth(model, beta=3.0), x, TARGET)
    assert trompe.explainer("gradient")(model, x, TARGET).abs().max() > 0


INSIDE: dict[str, Callable[[Ending, Tensor], Tensor]] = {
    "gate": lambda m, h: h * torch.sigmoid(m.gate(h)),
    "attention": lambda m, h: h.softmax(1) * m.gate(h),
    "layer behind a sigmoid": lambda m, h: m.gate(h.sigmoid()),
    "scaled to stars": lambda m, h: 1 + 4 * h.sigmoid(),
    "scores that are not negative": lambda m, h: h.relu(),
    "shares that are no softmax": lambda m, h: h.relu() / (1 + h.relu().sum(1, keepdim=True)),
}


@pytest.mark.parametrize("name", INSIDE)
def test_a_sigmoid_or_softmax_inside_is_no_end(name: str) -> None:
    model = Ending(lambda h: h)
    model.end = lambda h: INSIDE[name](model, h)
    x = nets.images(2)
    with torch.enable_grad():
        assert not ends_in_probabilities(model(x.clone().requires_grad_(True)))
    if name in ("gate", "attention", "layer behind a sigmoid"):
        assert torch.isfinite(trompe.explainer("lrp")(model, x, TARGET)).all()


def test_squeeze_and_excitation_is_explained() -> None:
    class Squeeze(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.squeeze = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.conv(x))
            return (h * self.squeeze(h.mean((2, 3), keepdim=True)).sigmoid()).mean((2, 3))

    for method in METHODS:
        found = trompe.explainer(method)(Squeeze().double().eval(), nets.images(2), TARGET)
        assert found.abs().max() > 0


@pytest.mark.parametrize("method", ["gradient", *METHODS])
def test_a_model_that_returns_nan_is_refused(method: str) -> None:
    """Such as by a softmax over nothing but masked places; minus infinity masks a class."""
    nothing = torch.tensor(False)
    model = Ending(lambda h: h + torch.where(nothing, h, -torch.inf).softmax(1))
    with pytest.raises(ModelError, match=r"not finite \(NaN\).*softmax over nothing"):
        trompe.explainer(method)(model, nets.images(2), TARGET)
    masked = Ending(lambda h: h.index_fill(1, torch.tensor([3]), -torch.inf))
    assert torch.isfinite(trompe.explainer("gradient")(masked, nets.images(2), TARGET)).all()


def test_a_model_of_nested_tensors_is_refused_in_a_line() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            rows = list(self.fc(x.flatten(2).transpose(1, 2)).unbind(0))
            nested = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
            return nested.relu().to_padded_tensor(0.0).mean(1)

    with pytest.raises(ModelError, match="PyTorch cannot differentiate the model"):
        trompe.explainer("gradient")(Nested().double().eval(), nets.images(2), TARGET)
