"""The verdict: radii, failed images, flips, and how many images a share speaks of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import nets
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import trompe
from trompe.errors import UsageError
from trompe.robustness import MEASURES, Evaluation, RobustnessResult, ball_of, evaluate, floor
from trompe.robustness.controls import as_jpeg
from trompe.robustness.doubts import KINKS_REMAIN
from trompe.types import LoadedModel

SPACE = trompe.InputSpace((0.5, 0.4, 0.3), (0.25, 0.5, 0.2))


def attempt(pcc: list[float], radius: float, judged: list[int] | None = None) -> RobustnessResult:
    count = len(pcc)
    worst = {name: torch.full((count,), m.alike) for name, m in MEASURES.items()}
    worst["pcc"] = torch.tensor(pcc)
    worst["centre"] = torch.tensor([4.0 * (1 - value) for value in pcc])
    blank = torch.zeros(count, 3, 4, 4)
    return RobustnessResult(
        x=blank,
        target=torch.zeros(count, dtype=torch.int64),
        maps=torch.full((count, 4, 4), 1 / 16),
        worst=worst,
        images={name: blank for name in MEASURES},
        found_by={name: ["unlike"] * count for name in MEASURES},
        by_member={"unlike": worst},
        judged=torch.tensor(judged or [5] * count),
        flipped=torch.tensor([1] + [0] * (count - 1)),
        flags=[[] for _ in pcc],
        failures={},
        radius=radius,
        norm="linf",
        cost={"forward_passes": 10.0, "derivatives": 1.0, "maps": 2.0, "queries": 0.0},
        stopped="finished",
        provenance={},
    )


def evaluation(
    attempts: Mapping[float, RobustnessResult], failed: Mapping[str, str] | None = None
) -> Evaluation:
    count = len(next(iter(attempts.values())).x)
    names = [f"i{i}" for i in range(count)]
    return Evaluation([*names, *(failed or {})], failed or {}, attempts, {})


def test_an_attack_outside_the_radius_counts_for_nothing() -> None:
    found = evaluation({0.01: attempt([0.9, 0.8, 0.7], 0.01), 0.1: attempt([0.1] * 3, 0.1)})
    assert found.accuracy(0.01).count == 3
    assert found.accuracy(0.1).count == 0
    with pytest.raises(UsageError, match="nothing was attacked within"):
        found.accuracy(0.001)


def test_what_is_found_within_a_smaller_radius_counts_within_a_larger_one() -> None:
    found = evaluation({0.01: attempt([0.2, 0.9], 0.01), 0.1: attempt([0.6, 0.3], 0.1)})
    assert found.status(0.1, 0.5) == ["success", "success"]
    assert found.status(0.01, 0.5) == ["success", "nothing found"]
    assert found.worst(0.1, "centre").tolist() == pytest.approx([3.2, 2.8])


def test_where_kinks_remain_only_a_success_is_known() -> None:
    one = dataclasses.replace(attempt([0.9, 0.2], 0.1), flags=[[KINKS_REMAIN]] * 2)
    assert evaluation({0.1: one}).status(0.1, 0.5) == ["unknown", "success"]
    assert evaluation({0.1: one}).accuracy(0.1).count == 0


def test_failed_and_unknown_images_are_drawn_and_never_robust() -> None:
    found = evaluation({0.1: attempt([0.9, 1.0, 0.2], 0.1, [5, 0, 5])}, {"broken.png": "no image"})
    assert found.status(0.1, 0.5) == ["nothing found", "unknown", "success", "failed"]
    share = found.accuracy(0.1)
    assert (share.count, share.n) == (1, 4)
    report = found.report(0.5)
    entry = report["radii"][0]
    assert entry["status"] == {"success": 1, "nothing found": 1, "unknown": 1, "failed": 1}
    assert entry["robust_explanation_accuracy"]["n"] == 4
    assert entry["per_image"][3] == {"image": "broken.png", "status": "failed", "why": "no image"}
    assert entry["answers_flipped"]["count"] == 1
    assert attempt([0.9, 1.0], 0.1, [5, 0]).robust(0.5).tolist() == [True, False]


def test_three_images_say_little_and_that_is_said() -> None:
    share = evaluation({0.1: attempt([0.9, 0.9, 0.9], 0.1)}).accuracy(0.1)
    assert share.value == 1
    assert share.low == pytest.approx(0.025 ** (1 / 3))  # all three: 29 % and more


def test_a_distance_breaks_where_it_is_larger() -> None:
    found = evaluation({0.1: attempt([0.9, 0.2], 0.1)})
    assert found.status(0.1, 1.0, "centre") == ["nothing found", "success"]


def test_the_curve_falls_with_tau() -> None:
    found = evaluation({0.1: attempt([0.12, 0.52, 0.93], 0.1)}, {"gone": "no map"})
    curve = found.report()["radii"][0]["measures"]["pcc"]["curve"]
    assert [point["count"] for point in curve[:3]] == [3, 3, 2]
    shares = [point["share"] for point in curve]
    assert shares == sorted(shares, reverse=True)
    assert all(point["n"] == 4 for point in curve)


def test_a_lost_map_and_an_undefined_number_go_into_json() -> None:
    import json

    result = attempt([-float("inf"), 0.5], 0.1)
    worst = {**result.worst, "ssim": torch.full((2,), torch.nan)}
    found = evaluation({0.1: dataclasses.replace(result, worst=worst)})
    text = json.dumps(found.report(), allow_nan=False)
    entry = json.loads(text)["radii"][0]
    assert entry["measures"]["pcc"]["worst_mean"] == pytest.approx(-0.25)
    assert entry["measures"]["ssim"]["worst_mean"] is None
    assert found.status(0.1, 0.5, "ssim") == ["unknown", "unknown"]
    assert found.status(0.1, 0.5)[0] == "success"


def loaded() -> LoadedModel:
    return LoadedModel(nets.plain(), SPACE, name="plain", size=nets.SIZE, resize=nets.SIZE)


def pixels(count: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {f"i{i}": torch.rand(3, nets.SIZE, nets.SIZE, generator=draw) for i in range(count)}


def test_images_without_a_map_fail_and_the_others_go_on() -> None:
    class Blind(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nets.plain()

        def forward(self, x: Tensor) -> Tensor:
            dark = (x.flatten(1).amin(dim=1) > 50).view(-1, 1).to(x)
            return self.net(x.clamp(max=40)) * (1 - dark)

    given = pixels(2)
    given["i1"] = torch.full((3, nets.SIZE, nets.SIZE), 100.0)
    found = evaluate(
        dataclasses.replace(loaded(), model=Blind().eval()),
        ["i0", "i1", "lost"],
        given,
        {"lost": "cannot be read"},
        explainer=trompe.explainer("gradient"),
        radii=[0.01, 0.1],
        budget=0.01,
        batch_size=2,
    )
    assert list(found.failed) == ["lost", "i1"]
    assert "all zero" in found.failed["i1"]
    assert found.accuracy(0.1).n == 3
    assert len(found.attempts[0.1].x) == 1


def test_an_interruption_keeps_the_images_that_are_done() -> None:
    def stop(done: int, total: int, numbers: Mapping[str, float]) -> None:
        if done > total * 0.55:
            raise KeyboardInterrupt

    found = evaluate(
        loaded(),
        list(pixels(3)),
        pixels(3),
        explainer=trompe.explainer("gradient"),
        radii=[0.05, 0.1],
        budget=0.01,
        batch_size=1,
        progress=stop,
    )
    assert found.stopped == "interrupted"
    assert list(found.names) == ["i0"]
    assert found.accuracy(0.1).n == 1


def test_the_floor_is_what_harmless_changes_do() -> None:
    model, explain = nets.plain(), trompe.explainer("smoothgrad", samples=3)
    x = SPACE.from_pixels(torch.stack(list(pixels(2).values())))
    target = model(x).argmax(1)
    found = floor(
        model, x, target, explainer=explain, ball=ball_of("linf", 0.05), input_space=SPACE
    )
    assert list(found) == ["noise", "8 bits", "JPEG 75", "another draw"]
    original = trompe.heatmap(explain(model, x, target))
    rounded = SPACE.from_pixels((SPACE.to_pixels(x) * 255).round() / 255)
    now = trompe.heatmap(explain(model, rounded, target))
    torch.testing.assert_close(
        found["8 bits"].likeness["pcc"], trompe.metrics.pcc(now, original), atol=1e-5, rtol=1e-5
    )
    other = trompe.metrics.pcc(trompe.heatmap(explain.redrawn(77)(model, x, target)), original)
    assert float(found["another draw"].likeness["pcc"].max()) < 0.9999
    assert float((found["another draw"].likeness["pcc"] - other).abs().max()) < 0.5
    assert bool(found["8 bits"].kept.all())
    plain = floor(
        model,
        x,
        target,
        explainer="gradient",
        ball=ball_of("linf", 0.05),
        input_space=SPACE,
    )
    assert list(plain) == ["noise", "8 bits", "JPEG 75"]


def test_the_jpeg_is_pillows() -> None:
    draw = torch.Generator().manual_seed(1)
    given = torch.rand(1, 3, 16, 16, generator=draw)
    import io

    file = io.BytesIO()
    array = (given[0].permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(array).save(file, "JPEG", quality=75)
    expected = np.asarray(Image.open(io.BytesIO(file.getvalue())))
    found = (as_jpeg(given)[0].permute(1, 2, 0) * 255).round().byte().numpy()
    assert np.array_equal(found, expected)
    assert as_jpeg(given[:, :1]).shape == (1, 1, 16, 16)


def test_a_model_of_chance_is_evaluated_in_the_version_for_it() -> None:
    class Chancy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nets.plain()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x + 0.1 * torch.randn_like(x))

    model = dataclasses.replace(loaded(), model=Chancy().eval())
    options = {"explainer": trompe.explainer("gradient"), "budget": 0.01, "radii": [0.1]}
    found = evaluate(model, ["i0"], pixels(1), version="rand", **options)  # type: ignore[arg-type]
    assert found.failed == {}
    assert found.attempts[0.1].failures == {}
    with pytest.raises(UsageError, match="chance"):
        evaluate(model, ["i0"], pixels(1), **options)  # type: ignore[arg-type]
