"""A model must be a function of one image; what is not is refused by name, and left as it was."""

from __future__ import annotations

from collections.abc import Callable

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import trompe
from trompe.engine.function_check import try_function
from trompe.errors import ModelError, UsageError

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


class Between(nn.Module):
    """Two linear layers with something between them."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.between, self.last = nn.Linear(192, 16), between, nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x.flatten(1)).relu()))


class DropPath(nn.Module):
    """Stochastic depth: a whole branch is left out, rarely."""

    def forward(self, h: Tensor) -> Tensor:
        return h * (torch.rand(len(h), 1) > 0.02) / 0.98


def model(between: Callable[[Tensor], Tensor]) -> nn.Module:
    return Between(between).double().eval()


RANDOM = {
    "dropout without training=": (lambda h: F.dropout(h, 0.5), "native_dropout|bernoulli"),
    "alpha dropout": (lambda h: F.alpha_dropout(h, 0.5, training=True), "bernoulli"),
    "added noise": (lambda h: h + 1e-9 * torch.randn_like(h), "randn_like|normal"),
    "gumbel": (lambda h: F.gumbel_softmax(h), "exponential"),
    "drop path": (DropPath(), "rand.*DropPath"),
    "rrelu": (lambda h: F.rrelu(h - 1, training=True), "rrelu|uniform"),
    "numpy": (lambda h: h * float(torch.zeros(1).numpy().size + __import__("random").random()), ""),
}


@pytest.mark.parametrize("kind", RANDOM)
def test_chance_is_refused_with_its_place(kind: str) -> None:
    between, named = RANDOM[kind]
    with pytest.raises(ModelError, match=f"chance.*({named})"):
        try_function(model(between), X)


def test_dropout_left_on_is_named_and_eval_is_the_way_out() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    with pytest.raises(
        ModelError, match=r"'2' \(Dropout\)\): it is in training mode, call model.eval\(\) first"
    ):
        trompe.explainer("gradient")(net, X, [0, 1])
    trompe.explainer("gradient")(net.eval(), X, [0, 1])


MIXING = {
    "batch norm without statistics": nn.BatchNorm1d(16, track_running_stats=False),
    "minus the batch's mean": lambda h: h - h.mean(0),
    "softmax over the batch": lambda h: h.softmax(0),
    "attention over the batch": lambda h: (h @ h.T).softmax(1) @ h,
    "divided by the largest": lambda h: h / h.abs().max(),
    "position in the batch": lambda h: h + 0.1 * torch.arange(len(h)).view(-1, 1),
}


@pytest.mark.parametrize("kind", MIXING)
def test_a_mixed_batch_is_refused(kind: str) -> None:
    named = r"'between' \(BatchNorm1d\)" if "statistics" in kind else "Between|the model"
    with pytest.raises(ModelError, match=rf"({named}).* (mixes the images|depends on)"):
        try_function(model(MIXING[kind]), X)


def test_the_mixing_module_is_named() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU(), nn.Flatten()
    )
    with pytest.raises(ModelError, match=r"'1' \(BatchNorm2d\), which keeps no running statistics"):
        try_function(net.double().eval(), X)


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(192, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(192))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen = 0.9 * self.seen + 0.1 * x.detach().flatten(1).mean(0)
        return self.last(x.flatten(1) - self.seen)


@pytest.mark.parametrize(
    ("net", "buffer"),
    [
        (nn.Sequential(nn.Flatten(), spectral_norm(nn.Linear(192, 4))), "_u"),
        (nn.Sequential(nn.Flatten(), nn.utils.spectral_norm(nn.Linear(192, 4))), "weight_u"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()), "running_mean"),
        (Remembers(), "calls"),
    ],
)
def test_a_written_buffer_is_restored_and_named(net: nn.Module, buffer: str) -> None:
    net = net.double().train()
    before = {name: tensor.clone() for name, tensor in net.named_buffers()}
    with pytest.raises(ModelError, match=rf"buffer '{buffer}'.*model.eval\(\)"):
        trompe.explainer("gradient")(net, X, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.named_buffers())


def test_random_numbers_of_a_fixed_seed_are_a_function() -> None:
    def seeded(h: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return h + torch.randn(h.shape[1:], generator=generator, dtype=h.dtype)

    def reseeded(h: Tensor) -> Tensor:
        torch.manual_seed(1)
        return h + torch.randn(h.shape[1:], dtype=h.dtype)

    try_function(model(seeded), X)
    try_function(model(reseeded), X)


def test_spectral_norm_in_evaluation_mode_is_a_function() -> None:
    net = nn.Sequential(nn.Flatten(), spectral_norm(nn.Linear(192, 4))).double()
    net(X)
    trompe.explainer("gradient")(net.eval(), X, 0)


def test_training_mode_is_noticed_later_too() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    net.double().eval()
    gradient = trompe.explainer("gradient")
    gradient(net, X, 0)
    net[2].train()
    with pytest.raises(ModelError, match="Dropout"):
        gradient(net, X, 0)
    net.eval()
    net[2] = nn.Module.train(nn.Dropout(0.9))
    with pytest.raises(ModelError, match="Dropout"):
        gradient(net, X, 0)


def test_the_callers_random_numbers_stay() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Dropout(0.5)).double()
    torch.manual_seed(7)
    with pytest.raises(ModelError):
        try_function(net, X)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "net",
    [
        nets.plain().double(),
        nets.normed().double(),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.Flatten()).double().train(),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten()).double().train(),
        nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Dropout(0.0)).double().train(),
    ],
)
def test_functions_pass(net: nn.Module) -> None:
    tried = try_function(net, X)
    assert tried.plain
    assert tried.logits.shape[0] == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_is_no_fault(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(12) for layer in (nn.Linear(192, 192), nn.ReLU())]
    net = nn.Sequential(nn.Flatten(), *layers).to(dtype).eval()
    try_function(net, X.to(dtype))


def test_half_precision_inside_is_no_fault() -> None:
    torch.manual_seed(0)

    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.ReLU())
            self.body.bfloat16()
            self.head = nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.body(x.bfloat16())
            # As a kernel that rounds otherwise in a batch of another size.
            h = h * (1 + 0.01 * (len(x) - 1))
            return self.head(h.float())

    try_function(Inside().eval(), X.float())


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (lambda x: (x.flatten(1) @ torch.ones(192, 3).double()).detach(), "no_grad"),
        (lambda x: x.flatten(1).argmax(1), "classes it chose"),
        (lambda x: x, r"\[B, K\]"),
        (lambda x: x.flatten(1).sum(), r"\[B, K\]"),
        (lambda x: None, "without a tensor"),
        (lambda x: {"a": x.flatten(1), "b": x.flatten(1)}, r"model\(x\)\['a'\]"),
        (lambda x: x.view(1, -1)[:, :5], r"\[B, K\]"),
    ],
)
def test_what_cannot_be_explained_is_refused(net: Callable[[Tensor], Tensor], why: str) -> None:
    with pytest.raises(ModelError, match=why):
        trompe.explainer("gradient")(net, X, 0)


def test_the_check_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    net, calls = nets.plain().double(), []
    net.register_forward_pre_hook(lambda *_: calls.append(1))
    gradient = trompe.explainer("gradient")
    gradient(net, X, 0)
    first = len(calls)
    gradient(net, X[:1], 0)
    # A pair, two alone, a step along the gradient, one watched, three in double precision, the
    # map; then the map alone.
    assert (first, len(calls)) == (9, 10)
    gradient(net, torch.rand(1, 3, 8, 8).float().double()[:, :, :, :], 0)
    assert len(calls) == 11


class ByName(nn.Linear):
    """Takes its images by their name."""

    def forward(self, *, pixels: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(pixels.flatten(1))


def test_a_model_that_takes_images_by_name_is_told_how_to_be_wrapped() -> None:
    net = ByName(192, 4).double()
    with pytest.raises(ModelError, match=r"by a name .*: .* lambda x: model\(pixels=x\)"):
        trompe.explainer("gradient")(net, X, 0)
    assert trompe.explainer("gradient")(lambda x: net(pixels=x), X, 0).shape == X.shape


def test_weights_and_images_on_other_devices_are_named() -> None:
    net = model(nn.Identity())
    net.last.to("meta")
    with pytest.raises(ModelError, match=r"on cpu, the weights on cpu and meta: .*load them"):
        trompe.explainer("gradient")(net, X, 0)
    with pytest.raises(UsageError, match="x is on the device meta, without numbers"):
        trompe.explainer("gradient")(net, X.to("meta"), 0)


@pytest.mark.parametrize("count", [1, 2])
def test_a_model_exported_for_a_fixed_number_of_images_is_named_so(count: int) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    x = torch.rand(2, 3, 6, 6)
    exported = torch.export.export(net, (x[:count],)).module()
    with pytest.raises(ModelError, match=r"^the model was exported for a fixed number.*Dim"):
        trompe.explainer("gradient")(exported, x[:1], 0)
