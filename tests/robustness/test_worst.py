"""What counts towards the worst case: the ball, the answer, the map; and shares of images."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

import trompe
from trompe.attacks import LInfBall, Observation
from trompe.errors import UsageError
from trompe.outputs import Outputs
from trompe.robustness import MEASURES, chance, doubts, share
from trompe.robustness.targets import inverted, moved_away
from trompe.robustness.worst import Worst

SPACE = trompe.InputSpace((0.0,), (1.0,))
SIDE = 8
X = torch.full((2, 1, SIDE, SIDE), 0.5)


def observation(x: Tensor, maps: Tensor, logits: Tensor) -> Observation:
    return Observation(x, maps, logits, maps.unsqueeze(1))


def maps(seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return trompe.heatmap(torch.rand(2, SIDE, SIDE, generator=draw))


LOGITS = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
FLIPPED = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
INSIDE = X + 0.05


def tried(x: Tensor, heat: Tensor, logits: Tensor) -> Worst:
    worst = Worst(observation(X, maps(0), LOGITS), Outputs(), LInfBall(0.1), SPACE)
    worst.offer(observation(x, heat, logits), "it")
    return worst


def test_within_the_radius_with_the_answer_kept_it_counts() -> None:
    worst = tried(INSIDE, maps(1), LOGITS)
    for name, measure in MEASURES.items():
        torch.testing.assert_close(worst.values[name], measure.compare(maps(1), maps(0)))
        assert torch.equal(worst.images[name], INSIDE)
        assert worst.found_by[name] == ["it", "it"]
    assert worst.judged.tolist() == [1, 1]


def test_outside_the_radius_it_never_counts() -> None:
    worst = tried(X + 0.11, maps(1), LOGITS)
    assert worst.values["pcc"].tolist() == [1, 1]
    assert worst.outside.tolist() == [1, 1]
    assert worst.judged.tolist() == [0, 0]


def test_a_flipped_answer_is_no_broken_explanation() -> None:
    worst = tried(INSIDE, maps(1), FLIPPED)
    assert worst.values["pcc"][0] == 1
    assert float(worst.values["pcc"][1]) < 0.9
    assert worst.flipped.tolist() == [1, 0]
    assert worst.judged.tolist() == [0, 1]


def test_the_original_image_is_no_attempt() -> None:
    assert tried(X, maps(0), LOGITS).judged.tolist() == [0, 0]


@pytest.mark.parametrize("gone", ["no number", "flat"])
def test_a_map_that_is_gone_is_below_every_threshold(gone: str) -> None:
    heat = maps(0).clone()
    heat[0] = float("nan") if gone == "no number" else 1 / SIDE**2
    worst = tried(INSIDE, heat, LOGITS)
    assert worst.values["pcc"][0] == -torch.inf
    assert worst.values["pcc"][1] == 1
    assert worst.lost.tolist() == ([1, 0] if gone == "no number" else [0, 0])


def test_a_better_iterate_changes_nothing() -> None:
    worst = tried(INSIDE, maps(1), LOGITS)
    before = {name: value.clone() for name, value in worst.values.items()}
    worst.offer(observation(X - 0.05, maps(0), LOGITS), "other")
    for name, value in worst.values.items():
        assert torch.equal(value, before[name])
        assert worst.found_by[name] == ["it", "it"]
    assert worst.by_member["other"]["pcc"].tolist() == [1, 1]


@pytest.mark.parametrize(("count", "n"), [(0, 10), (3, 10), (10, 10), (1, 200), (200, 200)])
def test_the_interval_is_where_the_binomial_tails_end(count: int, n: int) -> None:
    found = share(count, n)
    if count:
        assert binom.sf(count - 1, n, found.low) == pytest.approx(0.025)
    else:
        assert found.low == 0
    if count < n:
        assert binom.cdf(count, n, found.high) == pytest.approx(0.025)
    else:
        assert found.high == 1
    assert found.value == count / n


def test_a_share_in_words() -> None:
    assert str(share(0, 100)) == "0 of 100 (0%; 95 % interval 0% to 4%)"
    with pytest.raises(UsageError, match="no share"):
        share(3, 2)


def test_chance_of_the_top_k() -> None:
    assert chance("topk", 32, 32) == 102 / 1024
    assert chance("ssim", 32, 32) is None


def test_targets() -> None:
    heat = torch.zeros(1, 8, 8)
    heat[0, 1, 2] = 1.0
    assert moved_away(heat)[0, 7, 7] == 1
    turned = inverted(maps(0))
    torch.testing.assert_close(turned.sum(dim=(1, 2)), torch.ones(2))
    torch.testing.assert_close(MEASURES["pcc"].compare(turned, maps(0)), -torch.ones(2))
    flat = torch.full((1, 8, 8), 1 / 64)
    torch.testing.assert_close(inverted(flat), flat)


def member(values: list[float]) -> dict[str, Tensor]:
    return {"pcc": torch.tensor(values)}


def test_doubts_are_raised_and_not_raised() -> None:
    worst = tried(INSIDE, maps(1), LOGITS)
    worst.by_member = {"a": member([0.5, 0.5]), "b": member([0.6, 0.4]), "q": member([0.4, 0.38])}
    assert doubts.black_box_wins(worst, "q").tolist() == [True, False]
    assert doubts.black_box_wins(worst, "absent").tolist() == [False, False]
    surrogate = torch.tensor([0.3, 0.4])
    assert doubts.surrogate_further(worst, "a", surrogate).tolist() == [True, False]
    worst.trace = {"a": [torch.tensor([0.9 - 0.1 * i, 0.9 if i < 8 else 0.86]) for i in range(10)]}
    assert doubts.falling(worst, "a").tolist() == [True, False]
    assert doubts.differs(maps(0), maps(0) * (1 + 1e-6)).tolist() == [False, False]
    assert doubts.differs(maps(0), maps(0) * 1.01).tolist() == [True, True]


def test_queries_end_only_where_they_are_far_behind_of_every_image() -> None:
    worst = tried(INSIDE, maps(1), LOGITS)
    assert not doubts.out_of_reach(worst, "queries"), "nobody has asked yet"
    mine, theirs = torch.tensor([0.9, 0.2]), torch.tensor([0.3, -0.4])
    worst.by_member = {"queries": {"pcc": mine}, "it": {"pcc": theirs}}
    assert doubts.out_of_reach(worst, "queries")
    worst.by_member["other"] = {"pcc": torch.tensor([0.3, 0.0])}
    assert doubts.out_of_reach(worst, "queries"), "the best of the others counts"
    worst.by_member["queries"]["pcc"] = torch.tensor([0.9, 0.0])
    assert not doubts.out_of_reach(worst, "queries"), "one image may still be found"
    assert not doubts.out_of_reach(tried(INSIDE, maps(1), LOGITS), "it"), "there are no others"
