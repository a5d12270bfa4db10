"""The ensemble: its worst cases recomputed from its images, and what can go wrong on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.attacks import LInfBall, ReachMap, Unlike
from trompe.errors import ExplanationError, ModelError, UsageError
from trompe.metrics import lens_topk, mass_centre_distance, pcc, spearman, ssim, topk_intersection
from trompe.robustness import batch, doubts
from trompe.robustness.lead import WithAnswer, lead
from trompe.robustness.members import Member
from trompe.robustness.result import RobustnessResult

SPACE = trompe.InputSpace((0.5, 0.4, 0.3), (0.25, 0.5, 0.2))
METRICS = {
    "pcc": pcc,
    "spearman": spearman,
    "ssim": ssim,
    "topk": topk_intersection,
    "lens_topk": lens_topk,
    "centre": mass_centre_distance,
}


def images(count: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(5)
    return SPACE.from_pixels(torch.rand(count, 3, nets.SIZE, nets.SIZE, generator=draw))


@pytest.fixture(autouse=True, scope="module")
def few_queries() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "QUERIES", 200)
        yield


@pytest.fixture(scope="module")
def found(few_queries: None) -> RobustnessResult:
    return trompe.auto_attack(nets.plain(), images(), radius=0.1, input_space=SPACE, budget=0.2)


def test_every_worst_case_is_what_its_image_shows(found: RobustnessResult) -> None:
    net, explain = nets.plain(), trompe.explainer("gradient")
    x, answer = found.x, nets.plain()(found.x).argmax(1)
    original = trompe.heatmap(explain(net, x, answer))
    torch.testing.assert_close(found.maps, original)
    for name, metric in METRICS.items():
        worst = found.images[name]
        assert torch.equal(net(worst).argmax(1), answer)
        pixels = SPACE.to_pixels(worst)
        assert float((pixels - SPACE.to_pixels(x)).abs().max()) <= 0.1 + 1e-6
        assert float(pixels.min()) >= -1e-6
        assert float(pixels.max()) <= 1 + 1e-6
        value = metric(trompe.heatmap(explain(net, worst, answer)), original)
        torch.testing.assert_close(found.worst[name], value, rtol=1e-4, atol=1e-5)
    assert float(found.worst["pcc"].max()) < 0.7  # it does find something


def test_no_member_found_anything_worse_than_the_ensemble(found: RobustnessResult) -> None:
    assert found.failures == {}
    assert len(found.by_member) == 8
    for values in found.by_member.values():
        for name, value in values.items():
            if name == "centre":
                assert bool((value <= found.worst[name]).all())
            else:
                assert bool((value >= found.worst[name]).all())
    for name, who in found.found_by.items():
        for i, member in enumerate(who):
            assert found.by_member[member][name][i] == found.worst[name][i]


def test_the_cost_is_that_of_the_steps(found: RobustnessResult) -> None:
    steps = 23 * 20  # seven members, two of which take nine times as many
    assert found.cost["derivatives"] == steps
    queries = found.cost["queries"]
    assert queries in {8, 40}  # all, or a fifth where they are far behind
    # Every step, each member's end, every query.
    assert found.cost["maps"] == steps + 7 + queries
    assert found.cost["forward_passes"] >= 2 * steps + queries
    # Not one lay outside the ball, though the verdict would have left it out.
    assert (found.judged + found.flipped).tolist() == [steps + 7 + queries] * 3


def test_the_same_again(found: RobustnessResult) -> None:
    again = trompe.auto_attack(nets.plain(), images(), radius=0.1, input_space=SPACE, budget=0.2)
    for name, value in found.worst.items():
        assert torch.equal(again.worst[name], value)


def test_a_larger_radius_is_no_safer(found: RobustnessResult) -> None:
    small = trompe.auto_attack(nets.plain(), images(), radius=0.004, input_space=SPACE, budget=0.2)
    assert float(small.worst["pcc"].mean()) > float(found.worst["pcc"].mean()) + 0.1
    assert int(small.robust(0.8).sum()) >= int(found.robust(0.8).sum())


def linear() -> nn.Module:
    return nets.seeded(nn.Sequential(nn.Flatten(), nn.Linear(3 * nets.SIZE**2, 4)))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_map_of_a_linear_network_cannot_be_moved(norm: Any) -> None:
    found = trompe.auto_attack(
        linear(), images(), radius=0.02, norm=norm, input_space=SPACE, budget=0.1
    )
    share = found.accuracy(0.999)
    assert (share.count, share.n) == (3, 3)
    assert share.low == pytest.approx(0.025 ** (1 / 3))
    assert bool((found.judged > 0).all())
    assert all(doubts.ZERO_GRADIENT in flags for flags in found.flags)


def test_the_l2_ball_is_kept() -> None:
    found = trompe.auto_attack(
        nets.plain(), images(), radius=0.8, norm="l2", input_space=SPACE, budget=0.2
    )
    for worst in found.images.values():
        change = (SPACE.to_pixels(worst) - SPACE.to_pixels(found.x)).flatten(1).norm(dim=1)
        assert float(change.max()) <= 0.8 * (1 + 1e-4)
    assert float(found.worst["pcc"].max()) < 0.9


def crew(*objectives: Any) -> Any:
    from trompe.attacks import Signed

    return lambda *_: [Member(f"m{i}", aim, Signed(0.02)) for i, aim in enumerate(objectives)]


@dataclasses.dataclass(frozen=True)
class Failing(Unlike):
    def __call__(self, now: Any, reference: Any) -> Tensor:
        raise RuntimeError("this member is broken")


def test_a_member_that_fails_takes_nothing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"radius": 0.1, "input_space": SPACE, "budget": 0.1}
    monkeypatch.setattr(batch, "members", crew(Failing(), Unlike()))
    found = trompe.auto_attack(nets.plain(), images(), **options)
    assert found.failures == {"m0": "this member is broken"}
    assert all(doubts.MEMBER_FAILED in flags for flags in found.flags)
    assert float(found.worst["pcc"].max()) < 0.9
    monkeypatch.setattr(batch, "members", crew(Failing()))
    monkeypatch.setattr(batch.Ensemble, "_query", lambda *_: None)
    nothing = trompe.auto_attack(nets.plain(), images(), **options)
    assert nothing.worst["pcc"].tolist() == [1, 1, 1]
    assert not bool(nothing.robust(0.1).any())  # nothing is known, which is not robust
    assert all(doubts.NOTHING_JUDGED in flags for flags in nothing.flags)


def test_an_interruption_keeps_what_was_found() -> None:
    def stop(done: int, total: int, numbers: Any) -> None:
        assert total >= 160
        if done == 30:
            raise KeyboardInterrupt

    found = trompe.auto_attack(
        nets.plain(), images(), radius=0.1, input_space=SPACE, budget=0.2, progress=stop
    )
    assert found.stopped == "interrupted"
    assert list(found.by_member) == ["unlike", "unlike, again"]
    assert float(found.worst["pcc"].max()) < 0.9


class Chancy(nn.Module):
    """Noise on the image, another one each time."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nets.plain()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.3 * torch.randn_like(x))


def test_a_model_of_chance_needs_the_version_for_it() -> None:
    model = Chancy().eval()
    with pytest.raises(ModelError, match="chance"):
        trompe.auto_attack(model, images(), input_space=SPACE)
    torch.manual_seed(0)
    found = trompe.auto_attack(
        model, images(2), radius=0.1, input_space=SPACE, version="rand", budget=0.03
    )
    assert found.failures == {}
    assert not any(doubts.RANDOM in flags for flags in found.flags)
    # 20 draws of the map in the gradient and in the verdict of each of 8 x 3 steps.
    assert found.cost["forward_passes"] >= 20 * 2 * 24
    assert float(found.worst["pcc"].min()) < 0.9


def test_a_method_of_chance_is_flagged() -> None:
    plain = trompe.explainer("gradient")

    def shaky(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return plain(model, x + 0.1 * torch.randn_like(x), target)

    found = trompe.auto_attack(
        nets.plain(), images(2), explainer=shaky, radius=0.05, input_space=SPACE, budget=0.01
    )
    assert all(doubts.RANDOM in flags for flags in found.flags)


def test_a_seeded_method_is_judged_on_other_draws_in_the_version_for_it() -> None:
    seeds: list[int] = []
    smooth = trompe.explainer("smoothgrad", samples=2)
    kind = type(smooth)

    class Noting(kind):  # type: ignore[misc,valid-type]
        def redrawn(self, seed: int) -> Any:
            seeds.append(seed)
            return super().redrawn(seed)

    method = Noting(**{f.name: getattr(smooth, f.name) for f in dataclasses.fields(smooth)})
    trompe.auto_attack(
        nets.plain(),
        images(1),
        explainer=method,
        version="rand",
        radius=0.05,
        input_space=SPACE,
        budget=0.01,
    )
    assert len(set(seeds)) == len(seeds) >= 20


def test_the_answers_lead_by_hand() -> None:
    logits = torch.tensor([[1.0, 4.0, 2.5], [1.0, 0.0, 3.0]])
    reference = torch.tensor([[0.0, 2.0, 1.0], [5.0, 1.0, 0.0]])
    outputs = trompe.outputs.Outputs
    assert lead(logits, reference, outputs()).tolist() == [1.5, -2.0]
    one = torch.tensor([[0.2], [-0.4]])
    assert lead(one, torch.tensor([[1.0], [1.0]]), outputs("binary")).tolist() == pytest.approx(
        [0.2, -0.4]
    )
    value = lead(one, torch.tensor([[0.0], [0.0]]), outputs("value", tolerance=0.3))
    assert value.tolist() == pytest.approx([0.1, -0.1])


def test_the_price_of_the_answer_does_not_see_the_scale_of_the_logits() -> None:
    from trompe.attacks import Observation

    draw = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 2, 4, 4, generator=draw)
    x, logits = torch.zeros(2, 3, 4, 4), torch.randn(2, 2, 3, generator=draw)

    def loss(scale: float) -> Tensor:
        reference, now = (Observation(x, maps[i], scale * logits[i], maps) for i in range(2))
        return WithAnswer(ReachMap(maps[1]), trompe.outputs.Outputs())(now, reference)

    torch.testing.assert_close(loss(1.0), loss(1e4))
    assert float(loss(1.0).max()) > 0  # the second's map is reached: the price alone is left


def test_the_scale_of_the_logits_hides_nothing() -> None:
    class Loud(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nets.plain()

        def forward(self, x: Tensor) -> Tensor:
            return 1e4 * self.net(x)

    options: dict[str, Any] = {"radius": 0.1, "input_space": SPACE, "budget": 0.1}
    quiet = trompe.auto_attack(nets.plain(), images(), **options)
    loud = trompe.auto_attack(Loud().eval(), images(), **options)
    assert float((loud.worst["pcc"] - quiet.worst["pcc"]).abs().max()) < 0.15


def test_a_ball_of_another_radius_is_not_the_one_asked_for() -> None:
    with pytest.raises(UsageError, match="choose from linf, l2"):
        trompe.auto_attack(nets.plain(), images(), norm="l1")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="choose from standard, rand"):
        trompe.auto_attack(nets.plain(), images(), version="plus")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="budget"):
        trompe.auto_attack(nets.plain(), images(), budget=0)
    with pytest.raises(UsageError, match="radius"):
        trompe.auto_attack(nets.plain(), images(), radius=-1)
    with pytest.raises(UsageError, match="8 levels of 255 are 8/255"):
        trompe.auto_attack(nets.plain(), images(), radius=8)
    assert LInfBall(0.1).radius == 0.1


def test_an_image_without_a_map_is_an_error() -> None:
    dead = nets.seeded(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))
    dead[1].weight.zero_()
    with pytest.raises(ExplanationError, match="all zero"):
        trompe.auto_attack(dead, images(2))


def test_queries_end_early_where_derivatives_are_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    for behind, asked in ((-3.0, 8), (3.0, 40)):
        monkeypatch.setattr(batch.doubts, "_BEHIND", behind)
        found = trompe.auto_attack(
            nets.plain(), images(1), radius=0.1, input_space=SPACE, budget=0.2
        )
        assert found.cost["queries"] == asked
        assert found.failures == {}
        assert found.stopped == "finished"
