"""The softplus of the surrogate against PyTorch's and against its formula."""

from __future__ import annotations

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.engine.softplus import gated_softplus, slope_of, softplus, softplus_and_slope

BETAS = [0.8, 10.0, torch.tensor(3.0, dtype=torch.float64)]
Z = torch.linspace(-4, 4, 33, dtype=torch.float64)


def derivatives(z: Tensor, values: Tensor, order: int) -> list[Tensor]:
    """The value and its derivatives up to an order, elementwise."""
    found = [values]
    for _ in range(order):
        (values,) = torch.autograd.grad(values.sum(), z, create_graph=True)
        found.append(values)
    return found


@pytest.mark.parametrize("beta", BETAS)
def test_value_and_three_derivatives(beta: float | Tensor) -> None:
    z = Z.clone().requires_grad_(True)
    expected = derivatives(z, F.softplus(z, beta=float(beta), threshold=50), 3)
    for found, wanted in zip(derivatives(z, softplus(z, beta), 3), expected, strict=True):
        nets.close(found, wanted, 1e-12)
    value, slope = softplus_and_slope(z, beta)
    nets.close(slope, torch.sigmoid(float(beta) * z), 1e-14)
    nets.close(value, expected[0], 1e-14)


@pytest.mark.parametrize("beta", BETAS)
def test_both_outputs_are_differentiable_twice(beta: float | Tensor) -> None:
    z = (0.3 * Z[::4]).clone().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda z: softplus_and_slope(z, beta), z)
    assert torch.autograd.gradgradcheck(lambda z: softplus_and_slope(z, beta), z)


@pytest.mark.parametrize("beta", [0.01, 1.0, 100.0, torch.tensor(10.0)])
def test_float32_is_exact_to_the_stated_error(beta: float | Tensor) -> None:
    scaled = torch.cat([torch.linspace(-40, 40, 4001), torch.tensor([-1e4, 1e4, -88.0, 0.0])])
    z = (scaled / beta).requires_grad_(True)
    value = softplus(z, beta)
    first, second = derivatives(z, value, 2)[1:]
    exact = z.detach().double().requires_grad_(True)
    wanted = derivatives(exact, F.softplus(exact, beta=float(beta), threshold=60), 2)
    # Beside the absolute 2e-7 / beta there is the rounding of the result itself.
    slack = 2e-7 / float(beta) + 1.2e-7 * wanted[0].abs()
    assert bool(((value - wanted[0]).abs() <= slack).all())
    assert float((first - wanted[1]).abs().max()) < 5e-7
    assert float((second - wanted[2]).abs().max()) < 5e-7 * float(beta)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [1.0, 100.0, torch.tensor(1e3)])
def test_no_denormal_and_no_nan_far_out(dtype: torch.dtype, beta: float | Tensor) -> None:
    scaled = torch.cat([torch.logspace(-3, 4, 200), -torch.logspace(-3, 4, 200)])
    z = (scaled / beta).to(dtype).requires_grad_(True)
    for values in derivatives(z, softplus(z, beta), 3):
        assert bool(torch.isfinite(values).all())
        if dtype == torch.float32:  # where the speed of a step depends on it
            small = values.detach().abs()
            assert not bool(((small > 0) & (small < torch.finfo(dtype).tiny)).any())


def test_infinite_and_undefined_inputs() -> None:
    for dtype in (torch.float32, torch.float64):
        z = torch.tensor([torch.inf, -torch.inf, torch.nan], dtype=dtype)
        value = softplus(z, 2.0)
        assert value[0] == torch.inf
        assert value[1] == 0
        assert value[2].isnan()


def test_never_below_relu_and_growing_towards_it() -> None:
    z = Z.float()
    gaps = [softplus(z, beta) - torch.relu(z) for beta in (1.0, 10.0, 1e3)]
    for gap, beta in zip(gaps, (1.0, 10.0, 1e3), strict=True):
        assert float(gap.min()) >= 0
        assert float(gap.max()) <= torch.log(torch.tensor(2.0)) / beta * 1.001


def test_inputs_are_left_as_they_are_whatever_their_layout() -> None:
    z = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    for tensor in (z, z[:, ::2], z[:1, :1, :1, :1].expand(2, 3, 4, 4)):
        before = tensor.clone()
        found = softplus(tensor, 5.0)
        assert torch.equal(tensor, before)
        torch.testing.assert_close(found, F.softplus(before, beta=5.0), rtol=1e-5, atol=1e-6)


def test_beta_as_a_tensor_gives_what_a_number_gives() -> None:
    x = nets.images(dtype=torch.float32).requires_grad_(True)
    results = []
    for beta in (7.0, torch.tensor(7.0)):
        (grad,) = torch.autograd.grad(softplus(x, beta).square().sum(), x, create_graph=True)
        (curve,) = torch.autograd.grad(grad.square().sum(), x)
        results.append((grad.detach(), curve))
    nets.close(results[0][0], results[1][0], 1e-6)
    nets.close(results[0][1], results[1][1], 1e-6)


def test_works_within_modules_without_a_graph() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return softplus(x, 2.0)

    with torch.no_grad():
        assert not Net()(torch.zeros(2)).requires_grad


@pytest.mark.parametrize("beta", [0.7, 5.0, torch.tensor(5.0, dtype=torch.float64)])
def test_the_gated_softplus_is_the_product_to_the_third_derivative(beta: float | Tensor) -> None:
    z = Z.clone().requires_grad_(True)
    r = Z.flip(0).clone().requires_grad_(True)
    results = []
    for fused in (True, False):
        value, slope = softplus_and_slope(z, beta)
        if fused:
            assert torch.equal(slope_of(value), slope)
            out = gated_softplus(r, slope_of(value), beta)
        else:
            out = softplus(r, beta) * torch.sigmoid(beta * z)
        terms = [out]
        for power in (3, 2):
            made = torch.autograd.grad(terms[-1].pow(power).sum(), (r, z), create_graph=True)
            terms += [made[1], made[0]]
        terms += torch.autograd.grad(terms[-1].sum(), (r, z))
        results.append([term.detach() for term in terms])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    assert torch.autograd.gradcheck(
        lambda r, z: gated_softplus(r, torch.sigmoid(beta * z), beta), (r, z)
    )
