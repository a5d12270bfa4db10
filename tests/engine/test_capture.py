"""A captured function is the function, and what cannot be captured is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from trompe.engine import smooth
from trompe.engine.capture import agree, capture
from trompe.engine.fingerprint import fingerprint
from trompe.engine.runners import RUNNERS, launched
from trompe.errors import CaptureError
from trompe.explain.lrp import LRP

X = nets.images(2, dtype=torch.float32)


def second_order(model: nn.Module) -> Callable[..., tuple[Tensor, ...]]:
    def function(x: Tensor, beta: Tensor) -> tuple[Tensor, ...]:
        x = x.detach().requires_grad_(True)
        relevance = LRP()(smooth(model, beta=1.0, pooling=1.0), x, torch.tensor([1, 2]))
        (grad,) = torch.autograd.grad((relevance.square() * beta).sum(), x)
        return relevance.detach(), grad

    return function


def test_the_graph_of_make_fx_gives_the_same() -> None:
    function = second_order(nets.plain())
    inputs = (X, torch.tensor(2.0))
    function(*inputs)
    ours, theirs = capture(function, inputs)(*inputs), make_fx(function)(*inputs)(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_captured_function_runs_no_python_of_its_own() -> None:
    calls = []

    def function(x: Tensor) -> tuple[Tensor, ...]:
        calls.append(1)
        return (x.sin() + x.detach(),)

    graph = capture(function, (X,))
    graph(X)
    assert len(calls) == 1
    assert all("detach" not in str(node.target) for node in graph.graph.nodes)


def test_weights_changed_in_place_are_seen() -> None:
    model = nets.plain()
    graph = capture(lambda x: (model(x),), (X,))
    model.load_state_dict(nets.plain(seed=8).state_dict())
    assert torch.equal(graph(X)[0], model(X))


def test_what_is_overwritten_while_it_runs_is_made_anew_every_time() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        out = torch.zeros(2, 3)
        out[0] += x.mean()
        out.mul_(2)
        parts = x.flatten(1).split(96, 1)
        return out, parts[0] - parts[1], torch.full_like(x, 2.0)

    graph = capture(function, (X,))
    for x in (X, 2 * X, 3 * X):
        for found, expected in zip(graph(x), function(x), strict=True):
            assert torch.equal(found, expected)


def test_an_input_and_a_constant_may_be_returned() -> None:
    kept = torch.ones(3)
    graph = capture(lambda x, y: (x, kept, y + 1), (X, torch.tensor(1.0)))
    found = graph(2 * X, torch.tensor(2.0))
    assert torch.equal(found[0], 2 * X)
    assert torch.equal(found[1], kept)
    assert float(found[2]) == 3


def test_noise_of_a_seed_is_a_constant() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(3)
        return (x + torch.randn(x.shape, generator=generator),)

    graph = capture(function, (X,))
    assert torch.equal(graph(2 * X)[0], function(2 * X)[0])


KEPT = torch.ones(())


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: (x if x.mean() > 0 else -x,), "reads the values"),
        (lambda x: (x * float(x.max()),), "reads the values"),
        (lambda x: (x[x > 0],), "reads the values"),
        (lambda x: (x.nonzero(),), "reads the values"),
        (lambda x: (x + torch.rand(x.shape),), "random"),
        (lambda x: (nn.functional.dropout(x),), "random"),
        (lambda x: (x.view(-1).add_(1),), "writes to its inputs"),
        (lambda x: (KEPT.add_(x.mean()),), "writes to its inputs"),
    ],
)
def test_what_depends_on_more_is_refused(
    function: Callable[[Tensor], tuple[Tensor, ...]], why: str
) -> None:
    with pytest.raises(CaptureError, match=why):
        capture(function, (X.clone(),))


def test_values_of_weights_may_be_read() -> None:
    weight = torch.tensor(3.0)
    graph = capture(lambda x: (x * float(weight),), (X,))
    assert torch.equal(graph(X)[0], 3 * X)


def test_agreement_is_to_rounding_and_of_what_is_finite() -> None:
    a = torch.tensor([1.0, torch.nan, 0.0])
    assert agree([a], [a * (1 + 1e-6)])
    assert not agree([a], [a * 1.01])
    assert not agree([a], [torch.tensor([1.0, 0.0, 0.0])])
    assert not agree([a[:2]], [a])
    assert agree([a[1:2]], [a[1:2]])


def test_a_fingerprint_tells_what_matters() -> None:
    model = nets.plain()
    first = fingerprint(model, LRP())
    assert first is not None
    assert fingerprint(model, LRP()) == first
    assert fingerprint(model, LRP(composite="epsilon")) != first
    assert fingerprint(nets.plain(), LRP()) != first
    model[0].weight.mul_(2)
    changed = fingerprint(model, LRP())
    assert changed != first
    model[2].kernel_size = 3
    assert fingerprint(model, LRP()) != changed
    model[0].register_forward_hook(lambda *_: None)
    assert fingerprint(model) != first


def test_what_cannot_be_compared_has_no_fingerprint() -> None:
    @dataclasses.dataclass
    class Holder:
        value: object

    def closure() -> object:
        return X

    assert fingerprint(Holder(object())) is None
    assert fingerprint(Holder(lambda: closure)) is None
    assert fingerprint(Holder({"a": [1, (2.0, "b")]})) is not None
    assert fingerprint(torch.relu, nn.functional.relu) is not None
    model = nn.Sequential(nn.Linear(1, 1))
    model.myself = [model]  # a module may be reached from itself
    assert fingerprint(model) == fingerprint(model)


def test_a_cuda_graph_needs_cuda() -> None:
    graph = capture(lambda x: (x + 1,), (X,))
    with pytest.raises(CaptureError, match="CUDA device"):
        launched(graph, (X,))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_runner_agrees_on_a_gpu() -> None:
    function = second_order(nets.plain().cuda())
    inputs = (X.cuda(), torch.tensor(2.0, device="cuda"))
    function(*inputs)
    graph = capture(function, inputs)
    for name in RUNNERS:
        run = RUNNERS[name](graph, inputs)
        for x, beta in ((inputs[0], inputs[1]), (2 * inputs[0], 3 * inputs[1])):
            first = run(x, beta)
            run(x + 1, beta)  # leaves earlier results alone
            assert agree(first, function(x, beta))


def test_an_operation_on_types_is_no_part_of_the_graph() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        wide = torch.promote_types(x.dtype, torch.float64)
        return (x.to(wide) * 2,)

    graph = capture(function, (torch.ones(3),))
    (found,) = graph(torch.arange(3.0))
    assert torch.equal(found, 2 * torch.arange(3.0).double())
    assert "promote" not in graph.code
