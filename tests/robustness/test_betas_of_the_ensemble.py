"""The betas between which the ensemble's surrogate moves, against those that it had before."""

from __future__ import annotations

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
    patient = members.members

    def alone(*given: object) -> list[members.Member]:
        return [one for one in patient(*given) if one.name == "unlike, again"]  # type: ignore[arg-type]

    monkeypatch.setattr(batch, "members", alone)
    monkeypatch.setattr(batch.Ensemble, "_query", lambda *_: None)

    def worst() -> float:
        found = trompe.auto_attack(loaded, x, radius=1.5 / 255, budget=0.05)
        return float(torch.as_tensor(found.worst["pcc"]).mean())

    present = worst()
    monkeypatch.setattr(batch, "_BETA_END", 300.0)
    assert present < worst() - 0.01
