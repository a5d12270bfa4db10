"""An attack past which something stays unseen shows of no explanation that it withstands."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from trompe.audit import ModelSpec, open_run, run_audit
from trompe.audit.flags import KINKS_REMAIN
from trompe.audit.leaderboard import leaderboard
from trompe.audit.verify import Verifier
from trompe.report.lead import verdicts
from trompe.report.words import UNSEEN, attacks_verdict
from trompe.robustness import batch

from .conftest import small

NETWORK = """
import torch
from torch import nn

class Sorted(nn.Module):
    def forward(self, h):
        return torch.sort(h, dim=1).values

class Wrong(nn.Module):
    def forward(self, h):
        return h * 1.5 - 0.5 * h.detach()

def net(step=Sorted):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), step(), nn.ReLU(), nn.Flatten(), nn.Linear(294, 5)
    ).eval()

def wrong():
    return net(Wrong)

def plain():
    return net(nn.Identity)
"""


@pytest.fixture(autouse=True)
def _network(place: Path) -> None:
    (place / "kinkednet.py").write_text(NETWORK)


@pytest.mark.parametrize("budget", [None, 0.002])
@pytest.mark.parametrize("name", ["net", "wrong", "plain"])
def test_the_verdict_and_the_leaderboard_count_it_as_unknown(
    name: str, budget: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "QUERIES", 100)
    models = (ModelSpec(f"kinkednet:{name}", size=16),)
    chosen = {"pairs": 2, "iterations": 2, "methods": ("gradient",), "smoothings": ("none",)}
    assert run_audit("run", small(models=models, worst_case=budget, **chosen)).complete
    run = open_run("run")
    rows = [*run.done, *run.searches]
    (entry,), (verdict,) = leaderboard(run, tau=-1.0), verdicts(run)
    kinked = name != "plain"
    assert [KINKS_REMAIN in row.flags for row in rows] == [kinked] * len(rows)
    assert not any(one.problems for one in Verifier(run, models=False).check_all())
    known = entry["status"]["nothing found"]
    assert (known == 0) if kinked else (known > 0)
    assert verdict.unseen == (verdict.broken.n - verdict.broken.count) * kinked
    if verdict.unseen and verdict.broken.value < 0.3:
        assert UNSEEN in verdict.words
    assert ("the network has kinks" in verdict.sentence) == bool(verdict.unseen)
    kept = [dataclasses.replace(row, values={"class_kept": 1.0}) for row in run.done]
    assert (attacks_verdict(kept) == UNSEEN) == kinked
