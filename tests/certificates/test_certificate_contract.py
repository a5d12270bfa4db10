"""What every registered certificate promises, whoever wrote it."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.certificates import NoiseCertificate, ProvedBound, certificates
from trompe.errors import UsageError
from trompe.registry import Registry

NAMES = certificates.names()
PROOFS = [name for name in NAMES if issubclass(certificates[name], ProvedBound)]
FEW: dict[str, dict[str, Any]] = {
    "smoothgrad": {"samples": 50},
    "noise": {"samples": 60, "pool": 1, "explainer": "gradient"},
}
"""Options that keep a certificate fast here."""


def small(seed: int = 0) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 3, 2), nn.Softplus(1.0), nn.Flatten(), nn.Linear(27, 3)]
        return nn.Sequential(*layers).double().eval(), torch.randn(2, 1, 4, 4).double()


def certify(name: str, net: nn.Module, x: Tensor, **options: Any) -> Any:
    return trompe.certify(net, x, method=name, **{"radius": 0.05, **FEW.get(name, {}), **options})


def test_all_are_found_and_helpers_are_not_choices() -> None:
    assert {"best", "frobenius", "global", "interval", "jacobian", "telescope"} <= set(NAMES)
    assert "base" not in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_dataclass_whose_options_have_defaults(name: str) -> None:
    kind: Any = certificates[name]
    assert dataclasses.is_dataclass(kind)
    assert callable(kind())
    with pytest.raises(UsageError, match="no_such"):
        certify(name, *small(), no_such=1)


def losses(found: Any) -> list[Tensor]:
    """What a certificate does not exclude, [B] each: larger is less sure."""
    if isinstance(found, NoiseCertificate):
        loss = [1 - found.pcc, found.heatmap_l1, 1 - found.overlap, (found.votes == 0).sum((2, 3))]
        return [part.double().amax(dim=1) for part in loss]
    lost = 1 - found.topk_overlap(4)
    return [found.gradient_l2, found.normal_l2, found.heatmap_l1, found.curvature, lost]


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_ranges(name: str) -> None:
    found = certify(name, *small())
    for loss in losses(found):
        assert loss.shape == (2,)
        assert (loss >= 0).all()
    assert (found.heatmap_l1 <= 2).all()
    assert found.target.shape == (2,)
    assert 0 < found.confidence <= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_larger_ball_is_never_surer(name: str) -> None:
    net, x = small()
    found = [losses(certify(name, net, x, radius=radius)) for radius in (0.0, 0.01, 0.1, 1.0)]
    for one, other in itertools.pairwise(found):
        for smaller, larger in zip(one, other, strict=True):
            assert (smaller <= larger).all()
    # The ball of the maximum norm holds the l2 ball, and that the ball of the l1 norm.
    inner, outer = (
        losses(certify(name, net, x, radius=0.01, norm=norm)) for norm in ("l1", "linf")
    )
    for smaller, larger in (*zip(inner, found[1], strict=True), *zip(found[1], outer, strict=True)):
        assert (smaller * (1 - 1e-9) <= larger).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_target_is_the_class_asked_for(name: str) -> None:
    net, x = small()
    predicted = net(x).argmax(dim=1)
    assert (certify(name, net, x).target == predicted).all()
    other = (predicted + 1) % 3
    found = certify(name, net, x, target=other)
    assert (found.target == other).all()
    if issubclass(certificates[name], ProvedBound):
        assert (found.gradient_l2 != certify(name, net, x).gradient_l2).all()
    assert (certify(name, net, x, target=other.tolist()).target == other).all()
    assert (certify(name, net, x, target=1).target == 1).all()
    for wrong in (other[:1], torch.tensor([0, 7])):
        with pytest.raises(UsageError, match="target"):
            certify(name, net, x, target=wrong)


@pytest.mark.parametrize("name", PROOFS)
def test_a_proof_for_a_batch_is_that_for_its_images(name: str) -> None:
    net, x = small()
    together, alone = certify(name, net, x), [certify(name, net, one[None]) for one in x]
    for quantity in ("gradient_l2", "normal_l2", "heatmap_l1", "curvature"):
        each = torch.cat([getattr(one, quantity) for one in alone])
        assert torch.allclose(getattr(together, quantity), each)


@pytest.mark.parametrize("name", PROOFS)
def test_pixel_units_are_those_of_the_image(name: str) -> None:
    """One channel: the ball in pixel units is that of radius / std in units of x."""
    net, x = small()
    space = trompe.InputSpace(mean=(0.5,), std=(0.25,))
    pixels = certify(name, net, x, radius=0.01, input_space=space)
    assert pixels.radius == 0.01
    plain = certify(name, net, x, radius=0.04)
    assert torch.allclose(pixels.gradient_l2, plain.gradient_l2, rtol=1e-7)


@pytest.mark.parametrize("name", PROOFS)
def test_a_linear_model_is_certified_wholly(name: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double()
    found = certify(name, net, torch.randn(1, 1, 4, 4).double(), radius=5.0)
    assert float(found.gradient_l2) < 1e-9
    assert float(found.heatmap_l1) < 1e-9
    assert float(found.topk_overlap(4)) == 1


@pytest.mark.parametrize("radius", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", NAMES)
def test_a_radius_out_of_range_is_refused(name: str, radius: float) -> None:
    with pytest.raises(UsageError, match="radius"):
        certify(name, *small(), radius=radius)


def test_one_decorated_object_is_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate from outside the package is reached by ``certify`` and joins ``best``."""
    monkeypatch.setattr(certificates, "_parts", dict(certificates._parts))
    interval: Any = certificates["interval"]

    @certificates.register("half")
    @dataclasses.dataclass(frozen=True)
    class Half(interval):  # type: ignore[misc]
        name = "half"
        share: float = 0.01

        def bound(self, prepared: Any, ball: Any, into: Any) -> None:
            super().bound(prepared, ball.shrunk(self.share), into)

    net, x = small()
    plain = certify("interval", net, x, radius=0.01)
    assert torch.allclose(certify("half", net, x, radius=1.0).gradient_l2, plain.gradient_l2)
    assert certify("best", net, x, radius=1e-3).winners[0]["gradient_l2"] == "half"
    assert isinstance(certificates, Registry)
