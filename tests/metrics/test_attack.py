"""The numbers of an attack against NumPy and scikit-image, written out one by one."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from trompe.metrics.attack import (
    IMAGE_METRICS,
    MAP_METRICS,
    Outcome,
    attack_metrics,
    compared,
    curve,
    similarity,
)
from trompe.types import InputSpace

SPACE = InputSpace((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def outcome(count: int = 3, classes: tuple[int, ...] = (0, 4, 2)) -> Outcome:
    draw = torch.Generator().manual_seed(3)

    def some(*shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, generator=draw, dtype=torch.float64)

    def heat() -> torch.Tensor:
        found = some(9, 9)
        return found / found.sum(dim=(1, 2), keepdim=True)

    pixels = some(3, 9, 9)
    moved = 4 * some(5)
    logits = 4 * some(5)
    moved[0] = 2 * logits[0]  # the first one keeps its class
    return Outcome(
        x=SPACE.from_pixels(pixels),
        x_adv=SPACE.from_pixels((pixels + 0.1 * (some(3, 9, 9) - 0.5)).clamp(0, 1)),
        target_class=torch.tensor(classes),
        map_original=heat(),
        map_target=heat(),
        map_adv=heat(),
        logits_original=logits,
        logits_adv=moved,
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return powers / powers.sum()


def by_hand(one: Outcome, i: int) -> dict[str, float]:
    mean, std = (np.array(v).reshape(3, 1, 1) for v in (SPACE.mean, SPACE.std))
    before, after = (np.asarray(x[i]) * std + mean for x in (one.x, one.x_adv))
    original, target, found = (
        np.asarray(m[i]) for m in (one.map_original, one.map_target, one.map_adv)
    )
    logits, moved = np.asarray(one.logits_original[i]), np.asarray(one.logits_adv[i])
    k = int(logits.argmax())

    def ssim(a: np.ndarray, b: np.ndarray, span: float) -> float:
        return float(structural_similarity(a, b, data_range=span))

    def span(a: np.ndarray, b: np.ndarray) -> float:
        return float(max(a.max(), b.max()) - min(a.min(), b.min()))

    def pcc(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    error = float(((after - before) ** 2).mean())
    return {
        "map_target_mse": float(((found - target) ** 2).mean()),
        "map_target_ssim": ssim(found, target, span(found, target)),
        "map_target_pcc": pcc(found, target),
        "map_original_mse": float(((found - original) ** 2).mean()),
        "map_original_ssim": ssim(found, original, span(found, original)),
        "map_original_pcc": pcc(found, original),
        "map_start_pcc": pcc(original, target),
        "image_mse": error,
        "image_ssim": float(np.mean([ssim(after[c], before[c], 1.0) for c in range(3)])),
        "image_pcc": pcc(after, before),
        "image_linf": float(np.abs(after - before).max()),
        "image_l2": float(np.sqrt(((after - before) ** 2).sum())),
        "image_psnr": 10 * math.log10(1 / error),
        "softmax_l2": float(np.linalg.norm(softmax(moved) - softmax(logits))),
        "logit_l2": float(np.linalg.norm(moved - logits)),
        "logit_change": float(moved[k] - logits[k]),
        "probability_before": float(softmax(logits)[k]),
        "probability_after": float(softmax(moved)[k]),
        "probability_change": float(softmax(moved)[k] - softmax(logits)[k]),
        "class_explained": float(one.target_class[i]),
        "class_before": float(k),
        "class_after": float(moved.argmax()),
        "class_kept": float(moved.argmax() == k),
    }


def test_every_number_is_what_its_name_says() -> None:
    one = outcome()
    found = attack_metrics(one, SPACE)
    for i, values in enumerate(found):
        assert values == pytest.approx(by_hand(one, i), rel=1e-9, abs=1e-12)
    assert {values["class_kept"] for values in found} == {0.0, 1.0}, "both happen here"


def test_without_an_aim_the_distances_to_it_are_undefined() -> None:
    one = outcome()
    found = attack_metrics(dataclasses.replace(one, map_target=None), SPACE)
    for i, values in enumerate(found):
        for name, expected in by_hand(one, i).items():
            if name.startswith("map_target") or name == "map_start_pcc":
                assert math.isnan(values[name])
            else:
                assert values[name] == pytest.approx(expected)


def test_comparing_is_done_pair_by_pair() -> None:
    one = outcome()
    found = compared(MAP_METRICS, one.map_adv, one.map_target)
    assert found[1]["pcc"] == pytest.approx(by_hand(one, 1)["map_target_pcc"])
    assert set(IMAGE_METRICS) == {"mse", "ssim", "pcc", "linf", "l2", "psnr"}


def test_similarity_of_several_series_is_that_of_each() -> None:
    one = outcome()
    maps = torch.stack([one.map_adv, one.map_original])
    others = one.map_target.expand_as(maps)
    found = similarity(maps, others, leading=2)
    assert found.pcc.shape == (2, 3)
    for j in range(2):
        alone = similarity(maps[j], one.map_target)
        for name in ("mse", "ssim", "pcc"):
            assert torch.equal(getattr(found, name)[j], getattr(alone, name))
    assert float(found.pcc[1, 2]) == pytest.approx(by_hand(one, 2)["map_start_pcc"])
    tiny = torch.rand(1, 2, 2)
    assert similarity(tiny, tiny).ssim.isnan().all()


def test_a_curve_keeps_both_ends() -> None:
    assert torch.equal(curve(torch.arange(7)), torch.arange(7))
    thinned = curve(torch.arange(1001))
    assert (thinned.shape[0], int(thinned[0]), int(thinned[-1])) == (100, 0, 1000)
