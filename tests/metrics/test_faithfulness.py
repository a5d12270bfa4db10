"""Insertion and deletion curves against loops, and on a network whose answer is known."""

from __future__ import annotations

import itertools

import nets
import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe import metrics
from trompe.errors import UsageError

X = 0.6 * nets.images(3)
TARGET = torch.tensor([2, 1, 0])
HEAT = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@pytest.mark.parametrize("score", ["softmax", "logit"])
def test_curves_are_loops_over_pixels(score: str) -> None:
    model = nets.plain().double()
    found = {
        "deletion": metrics.deletion(model, X, HEAT, TARGET, steps=5, baseline=0.3, score=score),
        "insertion": metrics.insertion(model, X, HEAT, TARGET, steps=5, baseline=0.3, score=score),
    }
    for name, curve in found.items():
        assert curve.share.tolist() == pytest.approx([0, 13 / 64, 26 / 64, 38 / 64, 51 / 64, 1])
        for i in range(3):
            ordered = sorted(range(64), key=lambda p: -float(HEAT[i].flatten()[p]))
            expected = []
            for count in (0, 13, 26, 38, 51, 64):
                image = X[i].clone() if name == "deletion" else torch.full_like(X[i], 0.3)
                for p in ordered[:count]:
                    new = 0.3 if name == "deletion" else X[i, :, p // 8, p % 8]
                    image[:, p // 8, p % 8] = new
                logits = model(image.unsqueeze(0))
                value = logits.softmax(1) if score == "softmax" else logits
                expected.append(float(value[0, TARGET[i]]))
            assert curve.scores[i].tolist() == pytest.approx(expected, abs=1e-12)
            heights = [(a + b) / 2 for a, b in itertools.pairwise(expected)]
            widths = curve.share.diff().tolist()
            area = sum(h * w for h, w in zip(heights, widths, strict=True))
            assert float(curve.area[i]) == pytest.approx(area, abs=1e-12)


def test_the_map_of_a_linear_network_beats_a_random_one_and_its_reverse() -> None:
    weight = torch.randn(2, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    linear = nn.Linear(64, 2, bias=False).double()
    linear.weight.data = weight
    model = nn.Sequential(nn.Flatten(), linear)
    x = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    target = torch.tensor([1])
    true = weight[1].view(1, 8, 8)
    areas = [
        (
            float(metrics.deletion(model, x, heat, target, score="logit").area),
            float(metrics.insertion(model, x, heat, target, baseline=0.0, score="logit").area),
        )
        for heat in (true, HEAT[:1], -true)
    ]
    assert areas[0][0] < areas[1][0] < areas[2][0]
    assert areas[0][1] > areas[1][1] > areas[2][1]


def test_insertion_begins_blurred_and_ends_at_the_image() -> None:
    seen: list[Tensor] = []
    net = nets.plain().double()

    def spy(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return net(x)

    metrics.insertion(nets.Plain(spy), X, HEAT, TARGET, steps=2)
    assert torch.equal(seen[-1], X)
    rough = X.diff(dim=-1).abs().mean()
    assert float(seen[-3].diff(dim=-1).abs().mean()) < 0.3 * float(rough)
    torch.testing.assert_close(seen[-3].mean(), X.mean(), atol=0.1, rtol=0)


def test_nothing_is_changed_and_what_does_not_fit_is_refused() -> None:
    model = nets.plain().double()
    x = X.clone().requires_grad_(True)
    curve = metrics.deletion(model, x, HEAT, TARGET, steps=3)
    assert not curve.scores.requires_grad
    assert torch.equal(x, X)
    for settings, message in (
        ({"steps": 0}, "steps"),
        ({"baseline": "grey"}, "unknown baseline 'grey'"),
        ({"score": "odds"}, "unknown score"),
    ):
        with pytest.raises(UsageError, match=message):
            metrics.deletion(model, X, HEAT, TARGET, **settings)
    with pytest.raises(UsageError, match=r"\[B, H, W\]"):
        metrics.deletion(model, X, X, TARGET)
    with pytest.raises(trompe.TrompeError, match="target"):
        metrics.deletion(model, X, HEAT, torch.tensor([0, 1, 9]))
