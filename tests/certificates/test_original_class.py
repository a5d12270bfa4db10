"""Certificates, curvatures and the choice of beta are about the ORIGINAL model's class."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.certificates import sandwich
from trompe.certificates.prepared import Prepared
from trompe.certificates.randomised import certify_smoothgrad
from trompe.certificates.worst_case import strongest_change
from trompe.defences import choose_beta
from trompe.geometry import principal_curvatures

BETA = 0.05


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 5))
    return nn.Sequential(*layers).double().eval().requires_grad_(False)


NET = network()
SMOOTH = trompe.smooth(NET, beta=BETA, pooling=True)


def disputed() -> Tensor:
    """Inputs to which the smoothed network gives another class than the network itself."""
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = x[NET(x).argmax(1) != SMOOTH(x).argmax(1)][:3]
    assert len(found) == 3
    return found


X = disputed()
OWN = NET(X).argmax(1)


@pytest.mark.parametrize("method", ["best", "frobenius", "interval", "smoothgrad"])
def test_a_certificate_is_of_the_class_of_the_model_itself(method: str) -> None:
    options: dict[str, Any] = {"samples": 20} if method == "smoothgrad" else {}
    found = trompe.certify(SMOOTH, X, radius=0.01, method=method, **options)
    named = trompe.certify(SMOOTH, X, radius=0.01, method=method, target=OWN, **options)
    assert torch.equal(found.target, OWN)
    assert torch.equal(found.gradient_l2, named.gradient_l2)
    other = trompe.certify(SMOOTH, X, radius=0.01, method=method, target=4, **options)
    assert other.target.tolist() == [4, 4, 4]


def test_the_parts_of_a_certificate_agree() -> None:
    assert [Prepared(SMOOTH, X[i : i + 1]).target for i in range(3)] == OWN.tolist()
    assert torch.equal(certify_smoothgrad(SMOOTH, X, radius=0.01, samples=20).target, OWN)
    options: dict[str, Any] = {"radius": 0.1, "quantity": "gradient_l2", "steps": 2, "samples": 4}
    found = strongest_change(SMOOTH, X, **options)
    named = strongest_change(SMOOTH, X, target=OWN, **options)
    assert torch.equal(found.change, named.change)


def test_the_sandwich_is_of_the_class_of_the_model_itself() -> None:
    for model in (NET, SMOOTH):
        found = sandwich(
            model, X, radii=[0.01], betas=[BETA], restarts=1, steps=1, samples=2, norm="l2"
        )
        assert found.target == tuple(OWN.tolist())
    named = sandwich(
        NET, X, radii=[0.01], betas=[BETA], restarts=1, steps=1, samples=2, target=[4] * 3
    )
    assert named.target == (4, 4, 4)


def test_curvatures_are_of_the_class_of_the_model_itself() -> None:
    expected = principal_curvatures(NET, X, OWN, k=1, beta=BETA)
    for found in (
        principal_curvatures(NET, X, k=1, beta=BETA),
        principal_curvatures(SMOOTH, X, k=1),
        principal_curvatures(SMOOTH, X.numpy(), OWN.tolist(), k=1),
    ):
        assert torch.allclose(found.values, expected.values)
    other = principal_curvatures(SMOOTH, X, SMOOTH(X).argmax(1), k=1)
    assert not torch.allclose(other.values, expected.values)


def test_the_choice_of_beta_is_for_the_class_of_the_model_itself() -> None:
    expected = choose_beta(NET, X, OWN, betas=(1.0, 0.1), steps=3)
    assert choose_beta(SMOOTH, X, betas=(1.0, 0.1), steps=3) == expected
    assert choose_beta(NET, X, OWN.tolist(), betas=(1.0, 0.1), steps=3) == expected
