"""What a run advises: only what follows from it, method by method, image by image."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from trompe.audit.batches import WORST_CASE
from trompe.audit.results import Row
from trompe.geometry.smoothed_method import Smoothing
from trompe.report.advice import advice, comparisons
from trompe.report.lead import verdicts
from trompe.report.words import attacks_verdict, fooled, outcome, summary

BETA = Smoothing(beta=0.8)


def cell(
    image: int,
    smoothing: Smoothing | None = None,
    method: str = "gradient",
    message: str | None = None,
    **values: float,
) -> Row:
    full = {
        "class_kept": 1.0,
        "map_original_pcc": 0.1,
        "map_target_pcc": 0.9,
        "map_start_pcc": 0.1,
        "image_linf": 0.02,
        **values,
    }
    return Row(
        id=image,
        model="net",
        method=method,
        smoothing=smoothing,
        preset="fast",
        image=f"i{image}",
        target=f"t{image}",
        message=message,
        values={} if message else full,
        flags=(),
        x=None,
        target_x=None,
        arrays=None,
    )


KEPT = {"map_original_pcc": 0.9, "map_target_pcc": 0.2}


def advised(rows: list[Row], agreement: float | None = 0.8) -> list[str]:
    return [text for text in advice(rows, lambda *_: agreement) if text.startswith("Explain ")]


def test_success_nothing_found_and_failed_are_three_words() -> None:
    rows = [
        cell(0),
        cell(1, **KEPT),
        cell(2, class_kept=0.0),
        cell(3, message="no map"),
        cell(4, image_linf=0.0, map_original_pcc=1.0, map_target_pcc=0.1),
    ]
    words = ["success", "nothing found", "answer changed", "failed", "nothing found"]
    assert [outcome(row) for row in rows] == words
    (sentence,) = summary(rows)["net"]
    assert "In 1 of 4 cases" in sentence
    assert "; nothing found in 2, answer changed in 1, failed in 1" in sentence
    assert attacks_verdict([cell(3, message="no map"), cell(2, class_kept=0.0)]).startswith(
        "unknown"
    )


@pytest.mark.parametrize(
    "values",
    [
        {"map_target_pcc": 0.96, "map_original_pcc": 0.95, "map_start_pcc": 0.95},
        {"map_target_pcc": 0.97, "map_original_pcc": 0.7, "map_start_pcc": 0.9},
        {"map_target_pcc": 0.93, "map_original_pcc": 0.9, "map_start_pcc": 0.7},
        {"map_target_pcc": 0.3, "map_original_pcc": 0.4},
        {"image_linf": 0.0},
        {"class_kept": 0.0},
    ],
)
def test_a_map_that_did_not_move_over_is_not_manipulated(values: dict[str, float]) -> None:
    assert fooled(cell(0))
    assert not fooled(cell(0, **values))


def test_a_defence_that_holds_on_many_images_is_advised() -> None:
    rows = [cell(i) for i in range(10)] + [cell(i, BETA, **KEPT) for i in range(10)]
    (text,) = advised(rows)
    assert "gradient on net with beta=0.8" in text
    assert "10 of 10" in text
    assert "0 of 10" in text
    assert "0.80" in text


def test_three_images_are_too_few() -> None:
    rows = [cell(i) for i in range(3)] + [cell(i, BETA, **KEPT) for i in range(3)]
    assert advised(rows) == []


def test_failed_cells_advise_nothing() -> None:
    rows = [cell(i) for i in range(18)]
    rows += [cell(i, BETA, message="no map") for i in range(14)]
    rows += [cell(i, BETA) for i in range(14, 18)]  # manipulated, every one that did not fail
    assert advised(rows) == []
    (one,) = comparisons(rows, lambda *_: 0.8)
    assert (one.plain.n, one.defended.n, one.defended.count) == (4, 4, 0)


def test_methods_are_not_pooled() -> None:
    rows = [cell(i) for i in range(10)] + [cell(i, BETA, **KEPT) for i in range(10)]
    rows += [cell(i, method="grad_cam") for i in range(10)]
    rows += [cell(i, BETA, method="grad_cam") for i in range(10)]
    (text,) = advised(rows)
    assert "gradient" in text
    assert "grad cam" not in text


def test_other_images_are_no_comparison() -> None:
    rows = [cell(i) for i in range(10)] + [cell(i, BETA, **KEPT) for i in range(10, 20)]
    assert advised(rows) == []


def test_attacks_outside_the_radius_advise_nothing() -> None:
    rows = [cell(i) for i in range(10)] + [cell(i, BETA, image_linf=0.2, **KEPT) for i in range(10)]
    assert advised(rows) == []
    outside = [cell(i, image_linf=0.2) for i in range(10)]
    assert any("nothing is known within 8/255 of 10 of 10" in text for text in advice(outside))


@pytest.mark.parametrize("agreement", [0.2, None])
def test_a_defence_that_shows_another_map_is_not_advised(agreement: float | None) -> None:
    rows = [cell(i) for i in range(10)] + [cell(i, BETA, **KEPT) for i in range(10)]
    assert advised(rows, agreement) == []
    assert any("is not advised" in text for text in advice(rows, lambda *_: agreement))


def curves(inserted: float, deleted: float, **more: float) -> dict[str, float]:
    return {"insertion_area": inserted, "deletion_area": deleted, **more}


def test_a_defence_whose_maps_are_not_about_the_network_is_not_advised() -> None:
    rows = [cell(i, **curves(0.6, 0.2)) for i in range(10)]
    good = [cell(i, BETA, **KEPT, **curves(0.59, 0.21, smoothed_class_kept=1)) for i in range(10)]
    (text,) = advised(rows + good)
    assert "insertion less deletion area differs by -0.02" in text
    assert "answer in 10 of 10" in text
    blurred = [cell(i, BETA, **KEPT, **curves(0.5, 0.3, smoothed_class_kept=1)) for i in range(10)]
    assert advised(rows + blurred) == []
    text = " ".join(advice(rows + blurred, lambda *_: 0.8))
    assert "is not advised: its maps point less to what the network needs" in text
    assert "-0.20" in text
    other = [cell(i, BETA, **KEPT, **curves(0.6, 0.2, smoothed_class_kept=0)) for i in range(10)]
    assert advised(rows + other) == []
    text = " ".join(advice(rows + other, lambda *_: 0.8))
    assert "the answer of the real one in only 0 of 10" in text


def test_finding_nothing_proves_nothing() -> None:
    rows = [cell(i, **KEPT) for i in range(5)]
    assert any("proves nothing (5 of 5 cases)" in text for text in advice(rows))
    assert advice([]) == []


def test_what_the_search_alone_breaks_is_in_the_verdict() -> None:
    attacks = [cell(number, **KEPT) for number in range(4)]
    broken = {"map_original_pcc": 0.1, "image_linf": 8 / 255, "judged": 1.0}
    withstood = {**broken, "map_original_pcc": 0.7}
    searches = [
        dataclasses.replace(
            cell(number, **(broken if number < 3 else withstood)), preset=WORST_CASE
        )
        for number in range(4)
    ]
    (alone,) = verdicts(SimpleNamespace(rows=attacks, searches=[]))
    (one,) = verdicts(SimpleNamespace(rows=attacks, searches=searches))
    assert alone.words == "gradient on net: not manipulated by these attacks"
    assert one.words == "gradient on net: often manipulated"
    assert "for 3 of 4 images" in one.sentence
    flipped = [cell(number, class_kept=0.0) for number in range(4)]
    (unknown,) = verdicts(SimpleNamespace(rows=flipped, searches=[]))
    assert unknown.words == "gradient on net: unknown, no attack was judged"
