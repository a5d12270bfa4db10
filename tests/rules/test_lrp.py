"""The paper's LRP against dense matrices, slow loops, zennit, and its own conservation law."""

from __future__ import annotations

import nets
import pytest
import torch
import torch.nn.functional as F
import zennit.composites
import zennit.core
import zennit.rules
import zennit.types
from torch import Tensor, nn

import trompe
from trompe.engine import smooth
from trompe.errors import UnsupportedOp
from trompe.types import InputSpace

LRP = trompe.explainer("lrp")
LOW, HIGH = min(InputSpace().low), max(InputSpace().high)
X, TARGET = (0.6 * nets.images()).clamp(LOW, HIGH), torch.tensor([2, 1])


def matrix(layer: nn.Module, like: Tensor) -> Tensor:
    """The dense matrix [out, in] of a linear layer without its bias, one unit vector at a time."""
    columns = []
    for i in range(like.numel()):
        unit = torch.zeros(like.numel(), dtype=like.dtype)
        unit[i] = 1
        unit = unit.view(1, *like.shape)
        if isinstance(layer, nn.Linear):
            column = F.linear(unit, layer.weight)
        else:
            column = F.conv2d(
                unit, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups
            )
        columns.append(column.flatten())
    return torch.stack(columns, dim=1)


def slow_z_plus(x: Tensor, weight: Tensor, relevance: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for j in range(len(relevance)):
        shares = x * weight[j].clamp(min=0)
        out += shares * relevance[j] / (shares.sum() + 1e-9)
    return out


def slow_z_b(x: Tensor, weight: Tensor, relevance: Tensor, inside: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for j in range(len(relevance)):
        up, down = weight[j].clamp(min=0), weight[j].clamp(max=0)
        shares = (x * weight[j] - LOW * up - HIGH * down) * inside
        out += shares * relevance[j] / (shares.sum() + 1e-9)
    return out


def slow_lrp(net: nn.Sequential, x: Tensor, target: int, beta: float | None) -> Tensor:
    """``nets.plain`` for one image, layer by layer, on dense matrices."""

    def act(z: Tensor) -> Tensor:
        return z.relu() if beta is None else F.softplus(z, beta=beta, threshold=60)

    image = x.unsqueeze(0)
    a1 = act(net[0](image))
    pooled, winners = F.max_pool2d(a1, 2, return_indices=True)
    a2 = act(net[3](pooled))
    a3 = act(net[6](a2.flatten(1)))
    logits = net[8](a3)[0]
    relevance = torch.zeros_like(logits)
    relevance[target] = logits[target]
    relevance = slow_z_plus(a3[0], net[8].weight, relevance)
    relevance = slow_z_plus(a2.flatten(), net[6].weight, relevance)
    relevance = slow_z_plus(pooled.flatten(), matrix(net[3], pooled[0]), relevance)
    unpooled = torch.zeros_like(a1).flatten(2)
    for c in range(pooled.shape[1]):  # the winner takes all
        unpooled[0, c].index_add_(0, winners[0, c].flatten(), relevance.view(len(a1[0]), -1)[c])
    first = matrix(net[0], x)
    out = slow_z_b(x.flatten(), first, unpooled.flatten(), torch.ones(()))
    return out.view_as(x)


@pytest.mark.parametrize("beta", [None, 3.0])
@pytest.mark.parametrize("bias", [True, False])
def test_against_dense_matrices(beta: float | None, bias: bool) -> None:
    net = nets.plain(bias).double()
    model = net if beta is None else smooth(net, beta=beta)
    found = LRP(model, X, TARGET)
    for i in range(2):
        nets.close(found[i], slow_lrp(net, X[i], int(TARGET[i]), beta), 1e-10)


def test_against_zennit() -> None:
    """Zennit's ZPlus lets the bias absorb relevance by choice; without biases there is none."""
    net = nets.plain(bias=False).double()
    box = zennit.rules.ZBox(torch.full_like(X, LOW), torch.full_like(X, HIGH), stabilizer=1e-9)
    composite = zennit.composites.SpecialFirstLayerMapComposite(
        layer_map=[
            (zennit.types.Activation, zennit.rules.Pass()),
            (zennit.types.Linear, zennit.rules.ZPlus(stabilizer=1e-9)),
        ],
        first_map=[(zennit.types.Linear, box)],
    )
    x = X.clone().requires_grad_(True)
    with composite.context(net) as modified:
        logits = modified(x)
        seed = F.one_hot(TARGET, nets.CLASSES) * logits.detach()
        (expected,) = torch.autograd.grad(logits, x, seed)
    nets.close(LRP(net, X, TARGET), expected, 1e-9)


@pytest.mark.parametrize("beta", [None, 5.0])
@pytest.mark.parametrize("pooling", [0.0, 1.0])
def test_relevance_is_conserved(beta: float | None, pooling: float) -> None:
    """Layers pass on all they get, as long as each neuron has a positive contribution."""
    net = nets.plain(bias=False).double()
    net[8].weight.abs_()  # else a class whose score is negative
    model = net if beta is None else smooth(net, beta=beta, pooling=pooling)
    score = model(X).gather(1, TARGET.view(-1, 1)).squeeze(1)
    total = LRP(model, X, TARGET).flatten(1).sum(dim=1)
    torch.testing.assert_close(total, score, rtol=1e-6, atol=0)


def test_biases_take_none() -> None:
    """They change the activations, and nothing else: relevance is still conserved."""
    net = nets.plain().double()
    for i in (3, 6, 8):
        net[i].bias.abs_()  # every neuron active
    score = net(X).gather(1, TARGET.view(-1, 1)).squeeze(1)
    total = LRP(smooth(net, beta=5.0), X, TARGET).flatten(1).sum(dim=1)
    scores = smooth(net, beta=5.0)(X).gather(1, TARGET.view(-1, 1)).squeeze(1)
    torch.testing.assert_close(total, scores, rtol=1e-6, atol=0)
    assert not torch.allclose(score, scores, rtol=1e-3)


def test_bounds_come_from_the_input_space() -> None:
    net = nets.plain().double()
    space = InputSpace(mean=(0.5,), std=(0.25,))
    other = trompe.explainer("lrp", input_space=space)(net, X, TARGET)
    assert not torch.allclose(other, LRP(net, X, TARGET), rtol=1e-2)
    same = InputSpace(mean=(0.4, 0.4, 0.4), std=(0.3, 0.3, 0.3))
    wide = trompe.explainer("lrp", input_space=same)(net, X, TARGET)
    lone = trompe.explainer("lrp", input_space=InputSpace((0.4,), (0.3,)))(net, X, TARGET)
    nets.close(wide, lone, 1e-14)


class Shares(nn.Module):
    """A linear layer, then one operation, then a linear layer: its shares by hand."""

    def __init__(self, operation: object) -> None:
        super().__init__()
        self.operation = operation
        self.first = nn.Linear(6, 8)
        self.last = nn.Linear(8, 3)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.first(x)) + 0.1

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(self, self.middle(x))  # type: ignore[operator]


def rest(net: Shares, h: Tensor, target: Tensor) -> Tensor:
    """Relevance of the last layer's inputs ``h``."""
    logits = net.last(h)
    rows = [
        slow_z_plus(h[i], net.last.weight, F.one_hot(target[i], 3) * logits[i])
        for i in range(len(h))
    ]
    return torch.stack(rows)


def first_layer(net: Shares, x: Tensor, relevance: Tensor) -> Tensor:
    one = torch.ones(())
    rows = [slow_z_b(x[i], net.first.weight, relevance[i], one) for i in range(len(x))]
    return torch.stack(rows)


VECTORS = torch.rand(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TWO = torch.tensor([2, 0])


def shares(operation: object) -> tuple[Shares, Tensor]:
    net = Shares(operation)
    nets.seeded(net).double()
    return net, LRP(net, VECTORS, TWO)


def test_average_pooling_shares_out_by_contribution() -> None:
    def operation(net: Shares, h: Tensor) -> Tensor:
        image = h.view(-1, 1, 2, 4)
        pooled = F.avg_pool2d(image, 3, stride=1, padding=1)  # overlapping, and of the same size
        return net.last(pooled.flatten(1))

    net, found = shares(operation)
    h = net.middle(VECTORS)
    out = F.avg_pool2d(h.view(-1, 1, 2, 4), 3, stride=1, padding=1).flatten(1)
    relevance = rest(net, out, TWO)
    back = torch.zeros_like(h)
    for b in range(2):
        for i in range(8):
            for j in range(8):
                near = abs(i // 4 - j // 4) <= 1 and abs(i % 4 - j % 4) <= 1
                if near:
                    back[b, j] += h[b, j] / 9 / out[b, i] * relevance[b, i]
    nets.close(found, first_layer(net, VECTORS, back), 1e-7)


@pytest.mark.parametrize("way", ["adaptive", "mean", "sum"])
def test_global_averages_share_out_by_contribution(way: str) -> None:
    def operation(net: Shares, h: Tensor) -> Tensor:
        image = h.view(-1, 2, 2, 2)
        pooled = {
            "adaptive": lambda: F.adaptive_avg_pool2d(image, 1).flatten(1),
            "mean": lambda: image.mean(dim=(2, 3)),
            "sum": lambda: image.sum((2, 3)),
        }[way]()
        return F.linear(pooled, net.last.weight[:, :2], net.last.bias)

    net, found = shares(operation)
    h = net.middle(VECTORS)
    out = h.view(2, 2, 4).sum(dim=2) / (1 if way == "sum" else 4)
    logits = F.linear(out, net.last.weight[:, :2], net.last.bias)
    back = torch.zeros_like(h)
    for b in range(2):
        seed = F.one_hot(TWO[b], 3) * logits[b]
        relevance = slow_z_plus(out[b], net.last.weight[:, :2], seed)
        back[b] = h[b] / h[b].view(2, 4).sum(dim=1).repeat_interleave(4)
        back[b] *= relevance.repeat_interleave(4)
    nets.close(found, first_layer(net, VECTORS, back), 1e-7)


@pytest.mark.parametrize("alpha", [1, 2])
def test_a_sum_of_activations_is_shared_out_by_contribution(
    alpha: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def operation(net: Shares, h: Tensor) -> Tensor:
        return net.last(torch.add(h, h.flip(1)[:, [7, 6, 5, 4, 3, 2, 1, 0]] * 1, alpha=alpha))

    # The second branch, put back in order, is h again: (1 + alpha) h, all relevance to h.
    from trompe.rules.lrp import RULES
    from trompe.rules.passing import identity, vjp

    monkeypatch.setitem(RULES, torch.Tensor.flip, vjp)
    monkeypatch.setitem(RULES, torch.Tensor.mul, identity)
    net, found = shares(operation)
    h = net.middle(VECTORS)
    nets.close(found, first_layer(net, VECTORS, rest(net, (1 + alpha) * h, TWO)), 1e-7)


def test_a_residual_addition_gives_each_branch_its_share() -> None:
    def operation(net: Shares, h: Tensor) -> Tensor:
        return net.last(h + F.linear(h, net.first.weight.abs()[:, :1].expand(8, 8)))

    net, found = shares(operation)
    h = net.middle(VECTORS)
    weight = net.first.weight.abs()[:, :1].expand(8, 8)
    branch = h @ weight.T
    relevance = rest(net, h + branch, TWO)
    own = relevance * h / (h + branch)
    other = relevance * branch / (h + branch)
    back = own + torch.stack([slow_z_plus(h[i], weight, other[i]) for i in range(2)])
    nets.close(found, first_layer(net, VECTORS, back), 1e-7)


def test_a_constant_added_takes_none() -> None:
    net, found = shares(lambda net, h: net.last(h + 3.0))
    h = net.middle(VECTORS)
    nets.close(found, first_layer(net, VECTORS, rest(net, h + 3, TWO)), 1e-7)


@pytest.mark.parametrize("beta", [None, 5.0])
def test_batch_norm_is_folded(beta: float | None) -> None:
    net = nets.normed().double()
    twin = nets.folded(net)
    nets.close(twin(X), net(X), 1e-12)
    models = [m if beta is None else smooth(m, beta=beta) for m in (net, twin)]
    nets.close(LRP(models[0], X, TARGET), LRP(models[1], X, TARGET), 1e-9)


def test_changed_statistics_of_a_batch_norm_are_seen() -> None:
    net = nets.normed().double()
    before = LRP(net, X, TARGET)
    net.bn2.running_var.mul_(torch.tensor([4.0, 1.0, 0.25, 1.0]))
    after = LRP(net, X, TARGET)
    assert not torch.allclose(before, after, rtol=1e-3)
    nets.close(after, LRP(nets.folded(net), X, TARGET), 1e-9)
    net.bn2.weight.mul_(torch.tensor([1.0, -3.0, 1.0, 2.0]))
    nets.close(LRP(net, X, TARGET), LRP(nets.folded(net), X, TARGET), 1e-9)


def test_a_batch_norm_over_places_is_not_folded_into_the_channels() -> None:
    """[B, T, C]: it scales the T places. Without biases LRP-epsilon is gradient times input."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 5, bias=False)
            self.norm = nn.BatchNorm1d(5, eps=0)
            self.last = nn.Linear(5, nets.CLASSES, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.norm(self.first(x)).relu().mean(dim=1))

    net = nets.seeded(Net()).double()
    net.norm.running_mean.zero_()
    net.norm.bias.zero_()
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).double()
    found = trompe.explainer("lrp", composite="epsilon")(net, x, TARGET)
    expected = trompe.explainer("grad_times_input")(net, x, TARGET)
    nets.close(found, expected, 1e-3)


def test_grouped_strided_and_dilated_convolutions() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3),
        nn.ReLU(),
        nn.Conv2d(6, 4, 2, dilation=2, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, nets.CLASSES),
    )
    nets.seeded(net).double()
    found = LRP(net, X, TARGET)
    for i in range(2):
        a1 = net[0](X[i : i + 1]).relu()
        a2 = net[2](a1).relu()
        logits = net[5](a2.flatten(1))[0]
        seed = F.one_hot(TARGET[i], nets.CLASSES) * logits
        relevance = slow_z_plus(a2.flatten(), net[5].weight, seed)
        relevance = slow_z_plus(a1.flatten(), matrix(net[2], a1[0]), relevance)
        # Zero padding is no pixel: it has no bounds, and takes no relevance.
        expected = slow_z_b(X[i].flatten(), matrix(net[0], X[i]), relevance, torch.ones(()))
        nets.close(found[i].flatten(), expected, 1e-9)


def test_dropout_and_identity_change_nothing() -> None:
    net = nets.plain().double()
    longer = nn.Sequential(nn.Identity(), net[0], nn.Dropout2d(), *net[1:6], nn.Dropout(), *net[6:])
    nets.close(LRP(longer.eval(), X, TARGET), LRP(net, X, TARGET), 1e-14)


def test_one_dimensional_networks() -> None:
    net = nn.Sequential(
        nn.Conv1d(2, 4, 3),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.AvgPool1d(2),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    nets.seeded(net)
    relevance = LRP(net, torch.rand(2, 2, 6), torch.tensor([0, 2]))
    assert relevance.shape == (2, 2, 6)
    assert relevance.any()


def test_other_clamps_have_no_rule() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Identity()).double()

    class Clamp(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.clamp(min=0.5)

    net[2] = Clamp()
    with pytest.raises(UnsupportedOp, match=r"clamp_min' at '2' \(Clamp\) at another bound"):
        LRP(net, X, TARGET)


@pytest.mark.parametrize("composite", ["paper", "epsilon", "epsilon_plus", "alpha2_beta1_flat"])
def test_transposed_convolutions_without_a_graph_have_the_map_with_one(composite: str) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 3, 3, stride=2), nn.ReLU()
    )
    net.append(nn.Flatten()).append(nn.Linear(3 * 13 * 13, 4))
    nets.seeded(net)
    net.double()
    method, x = trompe.explainer("lrp", composite=composite), 0.6 * nets.images()
    found = method(net, x, torch.tensor([0, 1]))
    expected = method(net, x.clone().requires_grad_(True), torch.tensor([0, 1]))
    assert not found.requires_grad
    assert found.any()
    nets.close(found, expected.detach(), 1e-12)


def _faint(scale: float, dtype: torch.dtype) -> nn.Module:
    """The same function for every scale: the first layer's weights times it, the last over it."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4, bias=False)
    )
    net[0].weight.data *= scale
    net[3].weight.data /= scale
    return net.to(dtype).eval().requires_grad_(False)


def test_float16_has_a_stabiliser_that_it_can_hold() -> None:
    """1e-9 is zero in half precision: where all contributions are zero, the map was none."""
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    x[..., :4] = 0
    exact = trompe.explainer("lrp")(_faint(1.0, torch.float64), x.double(), 1)
    found = trompe.explainer("lrp")(_faint(1.0, torch.float16), x.half(), 1)
    assert torch.isfinite(found).all()
    assert float((found.double() - exact).norm() / exact.norm()) < 0.02


@pytest.mark.parametrize("composite", ["paper", "epsilon", "epsilon_plus", "epsilon_alpha2_beta1"])
def test_float16_divides_nothing_by_nothing(composite: str) -> None:
    """A unit that lives by its bias alone has relevance and no contribution to give it to."""
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)
    ).eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[0.3, 0.3, 0.3, 0.3], [0.1, 0.2, 0.3, 0.4]]))
        net[3].weight.copy_(torch.tensor([[-1.0, -1.0], [1.0, 1.5]]))
        net[3].bias.copy_(torch.tensor([5.0, 0.0]))
        net[5].weight.fill_(1.0)
        for layer in (net[1], net[5]):
            layer.bias.zero_()
    method = trompe.explainer("lrp", composite=composite)
    x = torch.tensor([0.3, 0.4, 0.5, 0.6]).view(1, 1, 2, 2)
    exact = method(net.double(), x.double(), 0)
    found = method(net.half(), x.half(), 0)
    assert torch.isfinite(found).all()
    assert float((found.double() - exact).abs().max()) < 0.02 * float(exact.abs().max()) + 0.01


def test_it_is_said_where_the_signal_vanishes(caplog: pytest.LogCaptureFixture) -> None:
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    trompe.explainer("lrp")(_faint(1.0, torch.float64), x, 1)
    trompe.explainer("deeplift")(_faint(1e-9, torch.float64), x, 1)  # divides by no activation
    assert "vanishes" not in caplog.text
    net = _faint(1e-9, torch.float64)
    for _ in range(2):
        trompe.explainer("lrp")(net, x, 1)
    assert caplog.text.count("the signal nearly vanishes") == 1


@pytest.mark.parametrize("graph", [False, True])
def test_it_is_said_where_relevance_explodes(graph: bool, caplog: pytest.LogCaptureFixture) -> None:
    class Difference(nn.Module):
        """Halves of an image, 100 each, that nearly cancel receive 100 over the difference."""

        def __init__(self, difference: float) -> None:
            super().__init__()
            self.last, self.difference = nn.Linear(1, 3, bias=False), difference

        def forward(self, x: Tensor) -> Tensor:
            h = (100 + self.difference) * x[:, :, :4] - 100 * x[:, :, 4:]
            return self.last(h.mean((1, 2, 3)).unsqueeze(1))

    x = torch.ones(1, 3, 8, 8, dtype=torch.float64)
    for difference, said in ((1.0, 0), (2e-5, 1)):
        net = nets.seeded(Difference(difference)).double()
        for _ in range(2):
            with torch.set_grad_enabled(graph):
                trompe.explainer("lrp", composite="epsilon_plus")(net, x, 1)
        assert caplog.text.count("denominators nearly vanish") == said
