"""The metrics against numpy, scipy and scikit-image, one image at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.special
import scipy.stats
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from trompe import metrics
from trompe.errors import UsageError


def maps(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Heat maps [B, H, W] summing to 1, with ties and a heavy tail."""
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) ** 4
    values = (values * 50).round() + 1
    return (values / values.sum(dim=(1, 2), keepdim=True)).to(dtype)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


A, B = maps(3, 12, 9, seed=1), maps(3, 12, 9, seed=2)
P, Q = images(3, 3, 12, 9, seed=3), images(3, 3, 12, 9, seed=4)
ORACLES = {
    "mse": lambda a, b: np.mean((a - b) ** 2),
    "l2": lambda a, b: np.linalg.norm((a - b).ravel()),
    "linf": lambda a, b: np.abs(a - b).max(),
    "pcc": lambda a, b: scipy.stats.pearsonr(a.ravel(), b.ravel()).statistic,
    "spearman": lambda a, b: scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic,
    "psnr": lambda a, b: peak_signal_noise_ratio(a, b, data_range=1),
}


@pytest.mark.parametrize("name", sorted(ORACLES))
@pytest.mark.parametrize("pair", [(A, B), (P, Q), (A.double(), B.double())])
def test_agrees_with_the_oracle_on_every_image(name: str, pair: tuple[Tensor, Tensor]) -> None:
    value = metrics.metrics[name](*pair)
    oracle = [
        ORACLES[name](a.double().numpy(), b.double().numpy()) for a, b in zip(*pair, strict=True)
    ]
    assert value.shape == (3,)
    assert value.dtype == pair[0].dtype
    np.testing.assert_allclose(value.double().numpy(), oracle, rtol=1e-6)


def test_ssim_of_maps_takes_the_range_of_both_maps() -> None:
    for a, b, value in zip(A, B, metrics.ssim(A, B), strict=True):
        one, other = a.double().numpy(), b.double().numpy()
        extent = max(one.max(), other.max()) - min(one.min(), other.min())
        assert float(value) == pytest.approx(structural_similarity(one, other, data_range=extent))
    torch.testing.assert_close(metrics.ssim(A * 1e-6, B * 1e-6), metrics.ssim(A, B))


def test_ssim_of_images_has_the_range_one() -> None:
    for a, b, value in zip(P, Q, metrics.ssim(P, Q), strict=True):
        oracle = structural_similarity(
            a.double().numpy(), b.double().numpy(), data_range=1, channel_axis=0
        )
        assert float(value) == pytest.approx(oracle, rel=1e-6)


@pytest.mark.parametrize(("side", "window"), [(3, 3), (4, 3), (6, 5), (7, 7), (8, 7)])
def test_ssim_shrinks_its_window_for_tiny_images(side: int, window: int) -> None:
    a, b = images(1, 3, side, 20, seed=5), images(1, 3, side, 20, seed=6)
    oracle = structural_similarity(
        a[0].numpy(), b[0].numpy(), data_range=1, channel_axis=0, win_size=window
    )
    assert float(metrics.ssim(a, b)[0]) == pytest.approx(oracle, rel=1e-5)


def test_equal_images() -> None:
    assert metrics.ssim(A, A).tolist() == [1, 1, 1]
    assert metrics.ssim(torch.ones(2, 5, 5), torch.ones(2, 5, 5)).tolist() == [1, 1]
    assert metrics.psnr(P, P).tolist() == [math.inf] * 3
    assert metrics.mse(P, P).tolist() == [0, 0, 0]
    torch.testing.assert_close(metrics.pcc(A, A), torch.ones(3))
    torch.testing.assert_close(metrics.pcc(A, -A), -torch.ones(3))
    assert metrics.topk_intersection(A, A).tolist() == [1, 1, 1]
    assert metrics.mass_centre_distance(A, A).tolist() == [0, 0, 0]


def test_a_constant_image_has_no_correlation() -> None:
    constant = torch.full((3, 12, 9), 0.1)
    assert metrics.pcc(constant, A).isnan().all()
    assert metrics.spearman(A, constant).isnan().all()


def test_pcc_of_tiny_values_does_not_underflow() -> None:
    torch.testing.assert_close(metrics.pcc(A * 1e-25, B), metrics.pcc(A, B))


def test_not_a_number_stays_visible_and_in_its_image() -> None:
    broken = A.clone()
    broken[1, 0, 0] = math.nan
    for name in ("mse", "pcc", "spearman", "ssim", "linf"):
        assert metrics.metrics[name](broken, B).isnan().tolist() == [False, True, False], name


def test_topk_intersection() -> None:
    a = torch.tensor([[[9.0, 8, 7, 6, 0, 0, 0, 0, 0, 0]]])
    b = torch.tensor([[[9.0, 0, 7, 0, 5, 4, 0, 0, 0, 0]]])
    assert metrics.topk_intersection(a, b, k=4).tolist() == [0.5]
    assert metrics.topk_intersection(a, b).tolist() == [1]
    assert metrics.topk_intersection(a, b, k=10).tolist() == [1]
    ties = torch.ones(1, 4, 4)
    assert metrics.topk_intersection(ties, ties, k=5).tolist() == [1]


@pytest.mark.parametrize("k", [0, -1, 109])
def test_topk_intersection_refuses_an_impossible_k(k: int) -> None:
    with pytest.raises(UsageError, match=f"1..108 entries, not {k}"):
        metrics.topk_intersection(A, B, k=k)


def test_mass_centre_distance() -> None:
    centres = [
        [scipy.ndimage.center_of_mass(m.double().numpy()) for m in batch] for batch in (A, B)
    ]
    oracle = np.linalg.norm(np.subtract(*centres), axis=1)
    np.testing.assert_allclose(metrics.mass_centre_distance(A, B).numpy(), oracle, rtol=1e-5)
    assert metrics.mass_centre_distance(A * 0, B).isnan().all()
    with pytest.raises(UsageError, match="negative"):
        metrics.mass_centre_distance(-A, B)


def test_distances_of_outputs() -> None:
    a, b = images(4, 10, seed=1) * 9, images(4, 10, seed=2) * 9
    one, other = a.double().numpy(), b.double().numpy()
    np.testing.assert_allclose(metrics.logit_l2(a, b), np.linalg.norm(one - other, axis=1), 1e-6)
    change = scipy.special.softmax(one, axis=1) - scipy.special.softmax(other, axis=1)
    np.testing.assert_allclose(metrics.softmax_l2(a, b), np.linalg.norm(change, axis=1), 1e-6)


@pytest.mark.parametrize("name", ["mse", "l2", "pcc", "psnr", "softmax_l2", "logit_l2"])
def test_is_differentiable(name: str) -> None:
    a = images(2, 6, seed=1).double().requires_grad_()
    b = images(2, 6, seed=2).double()
    assert torch.autograd.gradcheck(lambda t: metrics.metrics[name](t, b), a)


@pytest.mark.parametrize("name", metrics.metrics.names())
def test_refuses_what_cannot_be_compared(name: str) -> None:
    function = metrics.metrics[name]
    with pytest.raises(UsageError, match=r"\(3, 12, 9\) and \(2, 12, 9\)"):
        function(A, A[:2])
    with pytest.raises(UsageError, match="batch"):
        function(torch.ones(3), torch.ones(3))
    with pytest.raises(UsageError, match=r"torch\.Tensor"):
        function(A.numpy(), A)


@pytest.mark.parametrize("name", metrics.metrics.names())
def test_leaves_its_arguments_alone_and_takes_integers(name: str) -> None:
    shape = (2, 20) if name in ("softmax_l2", "logit_l2") else (2, 5, 4)
    a = torch.arange(40).view(shape)
    b = a.flip(0, 1).contiguous()
    value = metrics.metrics[name](a, b)
    assert value.dtype == torch.float32
    assert torch.equal(a, torch.arange(40).view(shape))


def test_an_unknown_metric_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown metric 'psmr'.*ssim"):
        metrics.metrics["psmr"]
    with pytest.raises(UsageError, match="2 x 9"):
        metrics.ssim(P[..., :2, :], Q[..., :2, :])
