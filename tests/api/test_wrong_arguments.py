"""Arguments of other kinds get one line of trompe's own, not an error from somewhere below."""

from __future__ import annotations

from typing import Any

import nets
import pytest
import torch

import trompe
from trompe.errors import TrompeError

KINDS: dict[str, Any] = {
    "none": None,
    "list": [1, 2],
    "dict": {},
    "3d": torch.rand(3, 8, 8),
    "nan": torch.full((1, 3, 8, 8), float("nan")),
    "sparse": torch.rand(1, 3, 8, 8).to_sparse(),
    "model": torch.nn.Linear(2, 2),
}


def refused(call: Any, *arguments: Any, **options: Any) -> None:
    with pytest.raises(TrompeError) as caught:
        call(*arguments, **options)
    assert len(str(caught.value).splitlines()) == 1, str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_maps_of_another_kind(kind: str) -> None:
    model, x = nets.plain(seed=0), nets.images(1, seed=1)
    if kind not in ("none", "list"):
        refused(trompe.manipulate, model, x, torch.rand(1, *x.shape[-2:]), objective=KINDS[kind])
    refused(trompe.explainer, KINDS[kind])
    if kind not in ("3d", "sparse"):
        refused(trompe.manipulate, model, x, KINDS[kind], iterations=1)


@pytest.mark.parametrize("kind", ["none", "dict", "sparse", "model"])
def test_images_of_another_kind(kind: str) -> None:
    model = nets.plain(seed=0)
    refused(trompe.auto_attack, model, KINDS[kind], budget=0.01)
    refused(trompe.certify, model, KINDS[kind], radius=0.01)
    refused(trompe.manipulate, model, KINDS[kind], torch.rand(1, 8, 8), iterations=1)
    refused(trompe.explainer("gradient"), model, KINDS[kind], 0)
