"""The pieces of certificates against dense oracles, closed forms and sampling."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from random_nets import random_case
from torch import Tensor, nn

import trompe
from trompe.certificates.forward import nonnegative_norm
from trompe.certificates.gates import LogSumExp, Maximum, Range, Relu, Softplus
from trompe.certificates.gradient_set import Gradients
from trompe.certificates.layer_norms import layer_bounds
from trompe.certificates.linear_maps import Conv, Dense, Move
from trompe.certificates.trace import trace
from trompe.errors import CertificateError, ModelError, UsageError


def dense(part: object, shape: torch.Size) -> Tensor:
    """The matrix of a linear map."""
    size = math.prod(shape)
    columns = part.apply(torch.eye(size).double().view(size, *shape))  # type: ignore[attr-defined]
    return columns.flatten(1).mT


CONVOLUTIONS = [
    {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1},
    {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 1), "groups": 1},
    {"stride": (1, 1), "padding": (2, 2), "dilation": (2, 2), "groups": 2},
    {"stride": (3, 3), "padding": (1, 0), "dilation": (1, 2), "groups": 4},
]


@pytest.mark.parametrize("settings", CONVOLUTIONS)
def test_norms_of_convolutions_are_upper_bounds(settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(8, 4 // int(settings["groups"]), 3, 3).double()  # type: ignore[call-overload]
    part = Conv(weight, torch.Size((4, 7, 6)), settings)
    matrix = dense(part, part.in_shape)
    exact = float(torch.linalg.matrix_norm(matrix, 2))
    assert exact <= part.norm <= 3 * exact
    assert (matrix.norm(dim=1) <= part.row_norms.flatten()).all()
    assert matrix.norm() <= part.frobenius
    assert torch.allclose(dense(part.magnitude, part.in_shape), matrix.abs())
    y = torch.randn(2, *part.out_shape).double()
    assert torch.allclose(part.transpose(y).flatten(1), y.flatten(1) @ matrix)


def test_the_norm_of_a_convolution_without_stride_is_tight() -> None:
    torch.manual_seed(0)
    part = Conv(torch.randn(5, 4, 3, 3).double(), torch.Size((4, 12, 12)), CONVOLUTIONS[0])
    exact = float(torch.linalg.matrix_norm(dense(part, part.in_shape), 2))
    assert part.norm <= 1.05 * exact


def test_norms_of_other_maps() -> None:
    weight = torch.randn(5, 7).double()
    exact = float(torch.linalg.matrix_norm(weight, 2))
    assert Dense(weight, torch.Size((7,))).norm == pytest.approx(exact)
    pool = Move(lambda x: F.avg_pool2d(x, 3, 2), torch.Size((2, 7, 7)))
    matrix = dense(pool, pool.in_shape)
    assert torch.linalg.matrix_norm(matrix, 2) <= pool.norm
    assert (matrix.norm(dim=1) <= pool.row_norms.flatten()).all()
    positive = torch.rand(6, 9).double()
    exact = float(torch.linalg.matrix_norm(positive, 2))
    assert exact <= nonnegative_norm(positive) <= 1.001 * exact


@pytest.mark.parametrize(
    "gate", [Relu(), Softplus(3.0), LogSumExp(2.0), Maximum()], ids=lambda g: type(g).__name__
)
def test_gates_over_boxes(gate: object) -> None:
    torch.manual_seed(0)
    u = torch.randn(50, 4, 3).double()
    box = Range(u - torch.rand_like(u), u + torch.rand_like(u))
    slopes, bends = gate.slopes(box), gate.bends(box)  # type: ignore[attr-defined]
    for _ in range(200):
        inside = box.low + torch.rand_like(u) * (box.high - box.low)
        slope = gate.slope(inside)  # type: ignore[attr-defined]
        assert (slope >= slopes.low - 1e-12).all()
        assert (slope <= slopes.high + 1e-12).all()
        if isinstance(gate, Softplus):
            second = gate.second(inside)
            assert (second <= bends + 1e-12).all()
            assert (second >= gate.seconds(box).low - 1e-12).all()
        if isinstance(gate, LogSumExp):
            p = slope.movedim(1, -1)
            norm = torch.linalg.matrix_norm(torch.diag_embed(p) - p[..., None] * p[..., None, :], 2)
            assert (gate.beta * norm <= bends + 1e-12).all()


def test_the_heat_map_bounds_hold_for_gradients_in_the_set() -> None:
    torch.manual_seed(0)
    for channels, scale in ((1, 0.1), (3, 0.3), (2, 1.0)):
        centre = torch.randn(channels, 3, 3).double()
        for kind in ("box", "ball"):
            edge = scale * torch.rand_like(centre)
            size = float(edge.norm()) if kind == "box" else scale
            infinite = torch.full_like(centre, math.inf)
            box = Range(-edge, edge) if kind == "box" else Range(-infinite, infinite)
            gradients = Gradients(centre, box, size if kind == "ball" else math.inf)
            step = torch.randn(4000, *centre.shape).double()
            if kind == "box":
                step = edge * step.sign()
            else:
                step = step * size / step.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            before, after = trompe.heatmap(centre[None]), trompe.heatmap(centre + step)
            assert (after - before).abs().sum((1, 2)).max() <= gradients.heatmap
            normals = F.normalize((centre + step).flatten(1), dim=1)
            here = F.normalize(centre.flatten(), dim=0)
            assert (normals - here).norm(dim=1).max() <= gradients.normal
            for k in (1, 3, 5):
                overlap = trompe.metrics.topk_intersection(after, before.expand_as(after), k=k)
                assert gradients.kept(k) <= round(float(overlap.min()) * k)


def test_small_radii_are_nearly_tight_on_a_small_network() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 3))
    smooth = trompe.smooth(net.double(), beta=1.0)
    x = torch.randn(1, 6).double()
    target = smooth(x).argmax(1)
    hessian = torch.autograd.functional.hessian(lambda p: smooth(p[None])[0, target], x[0])
    certificate = trompe.certify(smooth, x, radius=1e-4)
    exact = 1e-4 * float(torch.linalg.matrix_norm(hessian, 2))
    assert exact * 0.999 <= float(certificate.gradient_l2) <= 1.01 * exact
    assert float(certificate.curvature) >= exact / 1e-4


def test_global_bounds_and_their_order() -> None:
    net, x, *_ = random_case(3)
    network = trace(net, x)
    shape = network.values(x)[-1].shape
    spectral = layer_bounds(network, 0, shape, lambda part: part.norm)
    frobenius = layer_bounds(network, 0, shape, lambda part: part.frobenius)
    assert spectral.lipschitz <= frobenius.lipschitz
    for point in torch.randn(20, *x.shape).double():
        assert float(
            trompe.explainer("gradient")(net, point, torch.tensor([0])).detach().norm()
        ) <= (spectral.lipschitz)


def test_a_relu_network_in_one_linear_region_does_not_change() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    with torch.no_grad():
        net[0].bias.fill_(5.0)
    certificate = trompe.certify(net, torch.zeros(1, 3).double(), radius=0.1)
    assert float(certificate.gradient_l2) < 1e-9
    assert float(certificate.topk_overlap(2)) == 1


def test_a_batch_is_its_images() -> None:
    net, x, *_ = random_case(11)
    batch = torch.cat([x, x + 0.1, x - 0.2])
    together = trompe.certify(net, batch, radius=0.01)
    alone = [trompe.certify(net, one[None], radius=0.01) for one in batch]
    assert torch.allclose(together.heatmap_l1, torch.cat([c.heatmap_l1 for c in alone]))


class Odd(nn.Module):
    """What certificates do not cover."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.what == "sigmoid":
            return torch.sigmoid(self.linear(x))
        if self.what == "product":
            return self.linear(x) * self.linear(x)
        if self.what == "softmax":
            return self.linear(x).softmax(1)
        if self.what == "branch":
            return self.linear(x) if x.sum() > 0 else self.linear(-x)
        if self.what == "detached":
            return self.linear(x) * x.detach().sum()
        if self.what == "mixed":
            return self.linear(x - x.mean(0, keepdim=True)) + self.linear(x)
        return self.linear(x.clamp(-1, 1))


@pytest.mark.parametrize(
    "what", ["sigmoid", "product", "softmax", "branch", "detached", "mixed", "clamp"]
)
def test_what_is_not_covered_is_refused(what: str) -> None:
    with pytest.raises((CertificateError, ModelError)):  # two of them are no functions of an image
        trompe.certify(Odd(what).double(), torch.ones(1, 4).double(), radius=0.1)


def test_lrp_and_bad_options_are_refused() -> None:
    net = nn.Linear(4, 2).double()
    x = torch.ones(1, 4).double()
    for options in ({"radius": -1.0}, {"radius": 1, "norm": "l3"}, {"radius": 1, "method": "lrp"}):
        with pytest.raises(UsageError):
            trompe.certify(net, x, **options)
    with pytest.raises(UsageError):
        trompe.certify(net, x, radius=0.1).topk_overlap(9)


@pytest.mark.parametrize("name", ["tiny-vgg", "tiny-resnet"])
def test_the_embedded_networks_are_covered(name: str) -> None:
    loaded = trompe.load_model(name, "random", size=32) if name == "tiny-resnet" else None
    if loaded is None:
        loaded = trompe.load_model(name, "random")
    x = torch.randn(1, 3, loaded.size, loaded.size)
    smooth = trompe.smooth(loaded.model, beta=0.8, pooling=True)
    certificate = trompe.certify(smooth, x, radius=1e-9, method="interval")
    assert torch.isfinite(certificate.gradient_l2).all()
