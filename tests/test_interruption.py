"""Nothing that was cut short passes for the whole: Ctrl-C ends what needs all of an attack."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from trompe.defences import measured
from trompe.input_space import InputSpace

PACKAGE = Path(__file__).parents[1] / "src" / "trompe"
ATTACKS = {"manipulate", "auto_attack"}


def _name(call: ast.Call) -> str:
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.relative_to(PACKAGE).as_posix()
)
def test_whoever_attacks_looks_at_how_it_ended_or_hands_the_result_on(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    whole = {id(one) for call in calls if _name(call) == "whole" for one in call.args}
    handed_on = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Return) and node.value
    }
    looks = any(
        isinstance(node, ast.Attribute)
        and node.attr in ("stopped", "result")
        and isinstance(node.ctx, ast.Load | ast.Store)
        for node in ast.walk(tree)
    )
    for call in calls:
        if _name(call) in ATTACKS and not looks:
            assert id(call) in whole | handed_on, f"{path}:{call.lineno} ignores how it ended"


class Interrupting(torch.nn.Module):
    """A small network; in the midst of an attack on it somebody presses Ctrl-C."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.Softplus(), torch.nn.Flatten(),
            torch.nn.Linear(144, 3),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Interrupting.calls += 1  # copies of it count, too
        if Interrupting.calls == 60:
            raise KeyboardInterrupt
        return self.net(x)


class Labelled:
    """Two images with classes."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x

    def epoch(self, number: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(self.x, torch.tensor([0, 1]))]


def test_an_interrupted_measurement_is_none() -> None:
    net = Interrupting()
    x = torch.rand(2, 3, 8, 8)
    with pytest.raises(KeyboardInterrupt):
        measured.measure(net, InputSpace(), Labelled(x), x, budget=0.5)
    assert 60 <= Interrupting.calls < 80
