"""Output kept exactly: tangent steps and Newton's method against closed forms."""

from __future__ import annotations

from dataclasses import dataclass

import nets
import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.attacks import Keep, L2Ball, LInfBall, Observation, ValidImage
from trompe.attacks.level_set import LevelSet, _least
from trompe.errors import UsageError
from trompe.explain.base import Method
from trompe.types import Explanation

SPACE = trompe.InputSpace((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
X = SPACE.clamp(0.6 * nets.images(3))
AIM = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64) ** 2


class Linear(nn.Module):
    """Logits that are linear in the image."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(5)
        self.weight = torch.randn(classes, 3 * 8 * 8, generator=draw, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


@dataclass(frozen=True)
class Squares(Method):
    """A map that is quadratic in the image: its square."""

    name = "squares"

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        return Explanation(x.square(), model(x))


def level(model: nn.Module, keep: Keep, constraint: object = None) -> LevelSet:
    logits = model(X).detach()
    reference = Observation(X, AIM, logits, X)
    return LevelSet(model, keep, reference, constraint or ValidImage(), SPACE)  # type: ignore[arg-type]


def test_a_step_loses_exactly_its_part_across_the_level_set() -> None:
    """For a linear model the projection onto the null space of its weights, by a dense solver."""
    model = Linear()
    move = nets.images(3) * 0.01
    some = level(model, Keep("logits", 1e-6))
    some.look(X)
    found = some.along(move).flatten(1)
    torch.testing.assert_close(some.tangent(move).flatten(1), found)
    weight = model.weight
    null = torch.eye(192, dtype=torch.float64) - torch.linalg.pinv(weight) @ weight
    torch.testing.assert_close(found, move.flatten(1) @ null.T, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found @ weight.T, torch.zeros(3, 4).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("constraint", [ValidImage(), LInfBall(0.2), L2Ball(1.0)])
@pytest.mark.parametrize("what", ["logits", "softmax"])
def test_newtons_method_brings_an_image_back(constraint: object, what: str) -> None:
    net = nets.plain().double()
    keep = Keep(what, 1e-7)  # type: ignore[arg-type]
    some = level(net, keep, constraint)
    draw = torch.Generator().manual_seed(7)
    away = X + 0.05 * torch.randn(X.shape, generator=draw, dtype=torch.float64)
    found = some.restore(away)
    before, after = net(X), net(found)
    if what == "softmax":
        before, after = before.softmax(1), after.softmax(1)
    assert float((after - before).abs().max()) < 1e-7
    assert float((net(some.constraint.project(away, X, SPACE)) - net(X)).abs().max()) > 1e-3
    assert float(some.constraint.violation(found, X, SPACE).max()) <= 1e-9
    moved = (found - away).flatten(1).norm(dim=1)
    assert bool((moved < 0.5 * (away - X).flatten(1).norm(dim=1)).all())


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_least_change_of_dependent_outputs_is_the_pseudoinverses(scale: float) -> None:
    """Two outputs that are the same, and a third: the Gram matrix has no inverse."""
    rows = Linear(2).weight
    jacobian = scale * torch.stack([rows[0], rows[0], rows[1]])
    wanted = scale * torch.tensor([[0.3, 0.3, -0.1]], dtype=torch.float64)
    found = _least(jacobian.unsqueeze(1), wanted)
    expected = wanted @ torch.linalg.pinv(jacobian, rtol=1e-9).T
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)
    nothing = _least(torch.zeros_like(jacobian).unsqueeze(1), wanted)
    assert torch.equal(nothing, torch.zeros_like(nothing))


class OnePixelWeighs(nn.Module):
    """One pixel moves the output ten times as much as all others together."""

    def forward(self, x: Tensor) -> Tensor:
        values = x.flatten(1)
        return 100 * values[:, :1] + values[:, 1:].sum(dim=1, keepdim=True)


def test_pixels_at_the_border_are_left_out_and_the_others_do_it_alone() -> None:
    """The pixel that would do it has no room left, so that the first step is nearly in vain."""
    some = level(OnePixelWeighs(), Keep("logits", 1e-6), LInfBall(0.02))
    away = X.clone()
    away.flatten(1)[:, 0] -= 0.08  # 0.02 in pixel units: at the border
    away.flatten(1)[:, 1:] += 0.05
    assert bool((OnePixelWeighs()(away) - OnePixelWeighs()(X) > 1).all())  # it has to fall further
    found = some.restore(away)
    assert float((OnePixelWeighs()(found) - OnePixelWeighs()(X)).abs().max()) < 1e-6


def test_on_a_linear_model_the_attack_ends_at_the_constrained_optimum() -> None:
    """min |x - goal|^2 with W x fixed has a closed form: the goal, projected."""
    model = Linear()
    goal = 0.5 * X.roll(1, dims=0)

    class Towards(trompe.attacks.Objective):  # type: ignore[name-defined]
        """The squared distance of the image to the goal."""

        def __call__(self, now: Observation, reference: Observation) -> Tensor:
            return (now.x - goal).square().flatten(1).sum(dim=1)

        def measures(self, now: Observation, reference: Observation) -> dict[str, Tensor]:
            return {"distance": self(now, reference)}

    result = trompe.manipulate(
        model,
        X,
        explainer=Squares(),
        objective=dataclass(frozen=True)(Towards)(),
        constraint=ValidImage(),
        step=trompe.attacks.ScaledAdam(0.02),
        keep_output=Keep("logits", tolerance=1e-6),
        input_space=trompe.InputSpace((0.5,) * 3, (0.05,) * 3),  # no pixel comes to its border
        preset=trompe.attacks.Preset(relative=True, prefactors=(1.0, 1.0), beta_start=None),
        iterations=400,
    )
    weight = model.weight
    null = torch.eye(192, dtype=torch.float64) - torch.linalg.pinv(weight) @ weight
    expected = X.flatten(1) + (goal - X).flatten(1) @ null.T
    torch.testing.assert_close(result.x_adv.flatten(1), expected, rtol=0, atol=0.02)
    drift = (result.logits_adv - result.logits_original).abs().max()
    assert float(drift) <= 1e-6


@pytest.mark.parametrize("surrogate", [True, False])
def test_every_result_keeps_the_output_within_the_tolerance(surrogate: bool) -> None:
    net = nets.plain().double()
    model: nn.Module = net if surrogate else trompe.smooth(net, beta=5.0, pooling=1.0)
    for keep in (Keep("logits", 1e-5), Keep("softmax", 1e-6)):
        result = trompe.manipulate(
            model, X, AIM, input_space=SPACE, iterations=40, keep_output=keep
        )
        assert int(result.success.sum()) >= 2
        before, after = result.logits_original, result.logits_adv
        if keep.what == "softmax":
            before, after = before.softmax(1), after.softmax(1)
        assert float((after - before).abs().max()) <= float(keep.tolerance or 0)
        near = trompe.metrics.pcc(result.map_adv, result.aim)
        better = near > trompe.metrics.pcc(result.map_original, result.aim)
        assert torch.equal(better, result.success)


def test_of_many_classes_the_largest_and_the_rest_are_kept() -> None:
    logits = torch.randn(2, 50, generator=torch.Generator().manual_seed(1)).double()
    keep = Keep("logits", 1e-3)
    kept = keep.quantities(logits, logits)
    order = logits.sort(dim=1, descending=True).values
    torch.testing.assert_close(kept[:, :10], order[:, :10])
    torch.testing.assert_close(kept[:, 10], order[:, 10:].logsumexp(dim=1))
    few = Keep("softmax", 1e-3).quantities(logits[:, :4], logits[:, :4])
    torch.testing.assert_close(few.softmax(dim=1), logits[:, :4].softmax(dim=1))


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("inf"), float("nan")])
def test_a_tolerance_that_is_none_is_refused(tolerance: float) -> None:
    with pytest.raises(UsageError, match="tolerance must be positive"):
        Keep("logits", tolerance)
    with pytest.raises(UsageError, match="kept class has no tolerance"):
        Keep("class", 0.1)
