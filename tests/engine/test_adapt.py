"""Everyday arguments and outputs: where there is one obvious meaning it is taken, else one line."""

from __future__ import annotations

import collections
import dataclasses
import gc
import itertools
import logging
import math
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import nets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.engine import adapted
from trompe.errors import ModelError, TrompeError, UsageError
from trompe.outputs import Outputs

NET = nets.plain()
X = nets.images(2, dtype=torch.float32)
TARGET = torch.tensor([0, 1])
GRADIENT = trompe.explainer("gradient")
EXPECTED = GRADIENT(NET, X, TARGET)


class Wrapped(nn.Module):
    """A network whose output comes in another form."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.wrap = NET, wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.net(x))


@dataclasses.dataclass
class Answer:
    loss: Tensor | None
    logits: Tensor


class Mapped(collections.OrderedDict):  # type: ignore[type-arg]
    """As Hugging Face's: a mapping whose entries are attributes."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


FORMS = {
    "tuple": lambda y: (y, None),
    "tuple with hidden states": lambda y: (y, (y[:, :, None].expand(-1, -1, 2),)),
    "list": lambda y: [y],
    "dict": lambda y: {"out": y},
    "dict with logits": lambda y: {"features": y * 2, "logits": y},
    "mapping": lambda y: Mapped(loss=None, logits=y, past=(y, y)),
    "named tuple": lambda y: collections.namedtuple("Out", "logits aux")(y, y * 2),
    "dataclass": lambda y: Answer(None, y),
    "object": lambda y: SimpleNamespace(logits=y, hidden=y),
    "nested": lambda y: {"output": (y,)},
    "fully convolutional": lambda y: y[:, :, None, None],
    "squeezed": lambda y: y.squeeze(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["gradient", "lrp", "beta_smoothing", "smoothgrad"])
def test_the_logits_are_found(form: str, name: str) -> None:
    model, method = Wrapped(FORMS[form]).eval(), trompe.explainer(name)
    assert torch.equal(method(model, X, TARGET), method(NET, X, TARGET))
    nets.close(method(model, X[:1], 0), method(NET, X[:1], 0), 1e-6)


def test_the_smoothed_model_keeps_its_output_and_its_smoothing() -> None:
    found = GRADIENT(trompe.smooth(Wrapped(FORMS["dict"]).eval(), beta=0.5), X, TARGET)
    assert torch.equal(found, GRADIENT(trompe.smooth(NET, beta=0.5), X, TARGET))
    assert not torch.equal(found, EXPECTED)


MODELS = {
    "function": lambda: lambda x: NET(x),
    "method": lambda: NET.forward,
    "loaded": lambda: trompe.LoadedModel(NET),
    "scripted": lambda: torch.jit.script(NET),
    "traced": lambda: torch.jit.trace(NET, X),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", MODELS)
def test_what_can_be_called_is_a_model(kind: str) -> None:
    nets.close(GRADIENT(MODELS[kind](), X, TARGET), EXPECTED, 1e-6)


def test_a_loaded_models_space_is_the_methods() -> None:
    space = trompe.InputSpace((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    loaded = trompe.LoadedModel(NET, space)
    box = trompe.explainer("lrp")
    expected = trompe.explainer("lrp", input_space=space)(NET, X, TARGET)
    assert torch.equal(box(loaded, X, TARGET), expected)
    assert not torch.equal(box(NET, X, TARGET), expected)
    wrapped = trompe.explainer("beta_smoothing", base=box)
    own = trompe.explainer("beta_smoothing", base=trompe.explainer("lrp", input_space=space))
    assert torch.equal(wrapped(loaded, X, TARGET), own(NET, X, TARGET))


TARGETS = {
    "list": [0, 1],
    "tuple": (0, 1),
    "numpy": np.array([0, 1], dtype=np.int32),
    "uint8": TARGET.byte(),
    "int32": TARGET.int(),
    "numbers of numpy": [np.int64(0), np.int64(1)],
}


@pytest.mark.parametrize("kind", TARGETS)
def test_integers_are_classes(kind: str) -> None:
    assert torch.equal(GRADIENT(NET, X, TARGETS[kind]), EXPECTED)


def test_one_number_is_the_class_of_all() -> None:
    for one in (1, np.int64(1), torch.tensor(1)):
        assert torch.equal(GRADIENT(NET, X, one), GRADIENT(NET, X, torch.tensor([1, 1])))


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ([0.0, 1.0], "integers"),
        (torch.eye(4)[TARGET], "integers"),
        (torch.eye(4)[TARGET].long(), r"target.argmax\(1\)"),
        ([True, False], "integers"),
        ("cat", "target"),
        (["cat", "dog"], "target"),
        ([0, 4], r"target \[0, 4\].*0\.\.3"),
        ([0, -1], "target"),
        ([0], r"target has the shape \(1,\)"),
        ([], "target"),
        ([[0], [1, 2]], "target"),
        (TARGET.byte() + 250, "target"),
    ],
)
def test_other_targets_are_refused(target: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        GRADIENT(NET, X, target)


def test_arrays_are_images() -> None:
    for dtype in (np.float32, np.float64, np.float16):
        tolerance = 1e-2 if dtype is np.float16 else 1e-6
        nets.close(GRADIENT(NET, X.numpy().astype(dtype), TARGET), EXPECTED, tolerance)
    kept = X.numpy().copy()
    GRADIENT(NET, kept, TARGET)
    assert np.array_equal(kept, X.numpy())


def test_one_image_is_a_batch_of_one() -> None:
    nets.close(GRADIENT(NET, X[0], 0), EXPECTED[:1], 1e-5)
    nets.close(GRADIENT(NET, X[0].numpy(), [0]), EXPECTED[:1], 1e-5)
    signal = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)).eval()
    assert GRADIENT(signal, X[..., 0], TARGET).shape == (2, 3, 8)
    assert GRADIENT(signal, X[0, ..., 0], 0).shape == (1, 3, 8)


@pytest.mark.parametrize(
    ("x", "why"),
    [
        ((255 * X).byte(), r"uint8.*from_pixels\(x / 255\)"),
        ((255 * X).byte().numpy(), "uint8"),
        ((X, X), "torch.stack"),
        ([X[0], X[1]], "torch.stack"),
        ({"pixel_values": X}, "pixel_values"),
        ("cat.jpg", "a str"),
        (None, "NoneType"),
        (X[:0], "at least one"),
        (X.permute(0, 2, 3, 1).contiguous(), r"x.permute\(0, 3, 1, 2\)"),
        (X.double(), "torch.float64.*weights torch.float32"),
        (X[..., :7], "check the size"),
        (np.array(["a"]), "numbers"),
    ],
)
def test_other_images_are_refused(x: Any, why: str) -> None:
    with pytest.raises(TrompeError, match=why):
        GRADIENT(NET, x, 0)


class Two(Wrapped):
    def forward(self, x: Tensor, meta: Tensor) -> Tensor:  # type: ignore[override]
        return self.net(x) + meta


def test_a_model_of_two_inputs_is_to_be_wrapped() -> None:
    two = Two(FORMS["tuple"]).eval()
    with pytest.raises(ModelError, match=r"more than images.*lambda x: model\(x, other\)"):
        GRADIENT(two, X, TARGET)
    nets.close(GRADIENT(lambda x: two(x, torch.ones(4)), X, TARGET), EXPECTED, 1e-6)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("tiny-vgg", r"trompe.load_model\('tiny-vgg'\)"),
        (nn.Sequential, r"model\(\)"),
        (None, "NoneType"),
        ({"weight": X}, "a dict"),
    ],
)
def test_what_is_no_model_is_refused(model: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        GRADIENT(model, X, TARGET)


@pytest.mark.filterwarnings("ignore")
def test_integer_models_have_no_gradient_but_a_map_by_occlusion() -> None:
    class Rounded(Wrapped):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return self.net(x)

    model = Rounded(FORMS["tuple"]).eval()
    with pytest.raises(ModelError, match="depend differentiably"):
        GRADIENT(model, X, TARGET)
    occlusion = trompe.explainer("occlusion")
    assert torch.equal(occlusion(model, X, TARGET), occlusion(NET, X, TARGET))
    int8 = torch.ao.quantization.quantize_dynamic(NET, {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(ModelError, match=r"\(Linear\)"):
        GRADIENT(int8, X, TARGET)


MEANINGS: dict[str, tuple[Callable[[Tensor], Tensor], str, bool]] = {
    "logits": (lambda y: y, "classes", False),
    "scores that are not negative": (lambda y: y.relu(), "classes", False),
    "log-softmax": (lambda y: y.log_softmax(1), "classes", False),
    "softmax": (lambda y: y.softmax(1), "classes", True),
    "mean of softmaxes": (lambda y: (y.softmax(1) + (2 * y).softmax(1)) / 2, "classes", True),
    "softmax by hand": (lambda y: y.exp() / y.exp().sum(1, keepdim=True), "classes", True),
    "softmax, clamped": (lambda y: y.softmax(1).clamp(1e-6, 1 - 1e-6), "classes", True),
    "part of a softmax": (lambda y: y.softmax(1)[:, :3], "classes", True),
    "sigmoids": (lambda y: y.sigmoid(), "labels", True),
    "sigmoids by hand": (lambda y: 1 / (1 + (-y).exp()), "labels", True),
    "one logit": (lambda y: y[:, :1], "binary", False),
    "one logit [B]": (lambda y: y[:, 0], "binary", False),
    "one sigmoid": (lambda y: y[:, :1].sigmoid(), "binary", True),
    "one sigmoid [B]": (lambda y: y[:, 0].sigmoid(), "binary", True),
    "one of two probabilities": (lambda y: y[:, :2].softmax(1)[:, 1], "binary", True),
    "sigmoids by the hyperbolic tangent": (lambda y: (1 + (y / 2).tanh()) / 2, "labels", True),
    "sigmoids as a quotient": (lambda y: y.exp() / (1 + y.exp()), "labels", True),
    "sigmoids by their logarithm": (lambda y: F.logsigmoid(y).exp(), "labels", True),
    "sigmoids, the stable way": (
        lambda y: torch.where(y > 0, 1 / (1 + (-y).exp()), y.exp() / (1 + y.exp())),
        "labels",
        True,
    ),
    "normal distribution functions": (torch.special.ndtr, "labels", True),
    "hard sigmoids": (lambda y: F.relu6(y + 3) / 6, "labels", True),
    "products of sigmoids": (lambda y: y.sigmoid() * (y + 1).sigmoid(), "labels", True),
    "a softmax of two for each label": (
        lambda y: torch.stack([torch.zeros_like(y), y], -1).softmax(-1)[..., 1],
        "labels",
        True,
    ),
    "softmax, per cent": (lambda y: 100 * y.softmax(1), "classes", True),
    "sigmoids, per cent": (lambda y: 100 * y.sigmoid(), "labels", True),
    "softmax without the background": (
        lambda y: y.exp() / (1 + y.exp().sum(1, keepdim=True)),
        "classes",
        True,
    ),
    "one sigmoid by the hyperbolic tangent": (
        lambda y: (1 + (y[:, 0] / 2).tanh()) / 2,
        "binary",
        True,
    ),
    "one logarithm of a sigmoid": (lambda y: F.logsigmoid(y[:, :1]), "value", False),
    "one positive number": (lambda y: y[:, :1].exp(), "value", False),
    "one square": (lambda y: y[:, :1].square(), "value", False),
    "one hyperbolic tangent": (lambda y: y[:, :1].tanh(), "binary", False),
    "one gated score": (lambda y: (y * y.sigmoid())[:, :1], "binary", False),
}


@pytest.mark.parametrize("kind", MEANINGS)
def test_the_meaning_is_found(kind: str) -> None:
    wrap, meaning, probabilities = MEANINGS[kind]
    given = adapted(Wrapped(wrap).eval(), X)
    assert (given.outputs.meaning, given.probabilities) == (meaning, probabilities)


@pytest.mark.parametrize("kind", [name for name, (_, _, found) in MEANINGS.items() if found])
def test_probabilities_become_logits_when_asked(kind: str) -> None:
    """The log of probabilities gives them back, by softmax or sigmoid."""
    wrap, meaning, _ = MEANINGS[kind]
    model = Wrapped(wrap).eval()
    given = adapted(model, X, outputs=Outputs("probabilities"))
    p = given.model(X)
    assert given.outputs.meaning == meaning
    back = given.outputs.probabilities(p)
    true = model(X).reshape(back.shape)
    if meaning == "classes":  # shares of one whole, some of which may be left out
        true = true / true.sum(1, keepdim=True)
    elif "per cent" in kind:
        true = true / 100
    nets.close(back, true, 1e-5)


@pytest.mark.parametrize("kind", ["logits", "one logit"])
def test_logits_are_not_taken_for_probabilities_when_asked(kind: str) -> None:
    model = Wrapped(MEANINGS[kind][0]).eval()
    with pytest.raises(ModelError, match="no probabilities"):
        adapted(model, X, outputs=Outputs("probabilities"))


@pytest.mark.parametrize(
    ("head", "classes", "meaning"),
    [
        (nn.ReLU(), 3, "classes"),
        (nn.Softplus(), 3, "classes"),
        (nn.Tanh(), 3, "classes"),
        (nn.Tanh(), 1, "binary"),
        (nn.Softplus(), 1, "value"),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_scores_of_normalised_images_are_no_probabilities(
    head: nn.Module, classes: int, meaning: str, seed: int
) -> None:
    """A network that normalises its images answers the same far away, in small numbers."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.InstanceNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, classes)
    )
    nn.init.constant_(net[4].bias, 0.5)
    net[4].weight.data.mul_(0.1)
    given = adapted(nn.Sequential(net, head).eval(), X)
    assert (given.outputs.meaning, given.probabilities) == (meaning, False)


def test_a_model_that_refuses_far_images_keeps_its_meaning() -> None:
    def narrow(y: Tensor) -> Tensor:
        assert y.abs().max() < 100, "out of range"
        return (1 + (y / 2).tanh()) / 2

    given = adapted(Wrapped(narrow).eval(), X)
    assert (given.outputs.meaning, given.probabilities) == ("classes", False)


def test_a_softmax_of_probabilities_is_not_explained() -> None:
    model = Wrapped(lambda y: y.softmax(1)).eval()
    with pytest.raises(ModelError, match=r"integrated_grad.*score='logit'"):
        trompe.explainer("integrated_grad")(model, X, TARGET)
    with pytest.raises(ModelError, match="integrated_grad"):
        trompe.explainer("smoothgrad", base=trompe.explainer("integrated_grad"))(model, X, TARGET)
    found = trompe.explainer("integrated_grad", score="logit")(model, X, TARGET)
    nets.close(found, trompe.explainer("integrated_grad")(NET, X, TARGET), 1e-5)


def test_integrated_gradients_of_an_only_logit_are_those_of_its_sigmoid() -> None:
    one = Wrapped(lambda y: y[:, :1] - y[:, 1:2]).eval()
    two = Wrapped(lambda y: y[:, :2]).eval()  # whose softmax is that sigmoid
    found = trompe.explainer("integrated_grad")(one, X, 0)
    nets.close(found, trompe.explainer("integrated_grad")(two, X, 0), 1e-5)
    assert float(found.abs().max()) > 0


def test_a_binary_decision_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    model = Wrapped(lambda y: y[:, 0]).eval()
    with caplog.at_level(logging.WARNING, "trompe"):
        for _ in range(2):
            GRADIENT(model, X, 0)
    assert [record.message for record in caplog.records if "binary" in record.message] == [
        "the model has one output: taken as the logit of a yes-or-no decision (outputs='binary'); "
        "a regression is outputs='value'"
    ]


def test_what_is_known_of_a_model_dies_with_it() -> None:
    model = Wrapped(FORMS["dict"]).eval()
    GRADIENT(model, X, TARGET)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_the_original_model_chooses_the_class() -> None:
    smooth = trompe.smooth(NET, beta=0.01)
    images = nets.images(64, dtype=torch.float32)
    assert not torch.equal(smooth(images).argmax(1), NET(images).argmax(1))
    assert torch.equal(adapted(smooth, images).target(None), NET(images).argmax(1))


@pytest.mark.parametrize(
    ("method", "end"),
    [
        *itertools.product(
            ("lrp", "guided_backprop", "deconvnet", "excitation_backprop"),
            (nn.Softmax(1), nn.Sigmoid()),
        ),
        ("deeplift", nn.Softmax(1)),
    ],
)
def test_methods_of_rules_say_that_probabilities_are_no_logits(method: str, end: nn.Module) -> None:
    """The logarithm that is taken of them is trompe's own: no line may send the user there."""
    model = nn.Sequential(nets.plain(), end).double()
    with pytest.raises(ModelError, match="returns probabilities, and this method needs logits"):
        trompe.manipulate(
            model,
            nets.images(1),
            torch.rand(1, 8, 8, dtype=torch.float64),
            explainer=method,
            outputs="probabilities",
            iterations=1,
        )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("method", ["gradient", "lrp", "occlusion"])
def test_an_image_that_is_not_finite_is_refused_wherever_it_is_in_the_batch(
    value: float, method: str
) -> None:
    x = nets.images(3)
    trompe.explainer(method)(nets.plain().double(), x, [0, 1, 2])  # the model is known by now
    x[1, 2, 3, 4] = value
    with pytest.raises(UsageError, match="not finite"):
        trompe.explainer(method)(nets.plain().double(), x, [0, 1, 2])
    with pytest.raises(UsageError, match="not finite"):
        trompe.auto_attack(nets.plain().double(), x, explainer=method, budget=0.01)


def test_large_numbers_are_finite_although_their_sum_is_not() -> None:
    x = torch.full((1, 3, 4, 4), 3e38)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    with torch.no_grad():
        net[1].weight.fill_(1e-39)
    assert trompe.explainer("gradient")(net, x, 0).shape == x.shape


def _first(x: Tensor) -> None:
    x[:, 0] = 0.5


@pytest.mark.parametrize(
    "write", [lambda x: x.mul_(2), lambda x: x.clamp_(0.2, 0.8), _first, lambda x: x[:, 1].mul_(3)]
)
@pytest.mark.parametrize(
    "method", ["gradient", "grad_times_input", "integrated_grad", "smoothgrad", "lrp", "occlusion"]
)
def test_a_model_that_writes_to_its_images_has_the_map_of_one_that_does_not(
    method: str, write: Callable[[Tensor], Any]
) -> None:
    net, x = nets.plain().double(), nets.images(3)

    def writing(x: Tensor) -> Any:
        write(x)
        return net(x)

    explain, target = trompe.explainer(method), torch.tensor([0, 1, 2])
    wanted = explain(lambda x: writing(x.clone()), x, target)
    torch.testing.assert_close(explain(writing, x, target), wanted)
    torch.testing.assert_close(x, nets.images(3), rtol=0, atol=0)
    on_the_way = x.clone().requires_grad_(True) * 1  # as an attack has it, with a graph before it
    torch.testing.assert_close(explain(writing, on_the_way, target).detach(), wanted)
