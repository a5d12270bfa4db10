"""The betas of the two patient members: each finds worse maps than the other of some networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import trompe
from trompe.robustness import batch, members
from trompe.training import read_labelled

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "tiny_imagenet50_val.npz"


@pytest.mark.skipif(not PHOTOS.exists(), reason="needs ../shared/data")
def test_a_hardened_network_takes_a_sharper_end(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = trompe.load_model("tiny-resnet-robust")
    x, _ = read_labelled(PHOTOS, loaded, seed=None).spread(4)
    every = members.members
    monkeypatch.setattr(batch.Ensemble, "_query", lambda *_: None)

    def worst(betas: tuple[float, float] | None) -> float:
        def alone(*given: object) -> list[members.Member]:
            (one,) = (m for m in every(*given) if m.name == "unlike, sharper")  # type: ignore[arg-type]
            return [one if betas is None else replace(one, betas=betas)]

        monkeypatch.setattr(batch, "members", alone)
        found = trompe.auto_attack(loaded, x, radius=1.5 / 255, budget=0.05)
        return float(torch.as_tensor(found.worst["pcc"]).mean())

    assert worst(None) < worst((10.0, 100.0)) - 0.01
