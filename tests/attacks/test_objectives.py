"""The objective, term by term."""

from __future__ import annotations

import torch

import trompe
from trompe.attacks.objectives import ReachMap
from trompe.attacks.observation import Observation

SPACE = trompe.InputSpace((0.5, 0.4, 0.3), (0.25, 0.5, 0.2))


def look(seed: int) -> Observation:
    draw = torch.Generator().manual_seed(seed)
    x = SPACE.from_pixels(torch.rand(2, 3, 4, 4, generator=draw, dtype=torch.float64))
    heat = torch.rand(2, 4, 4, generator=draw, dtype=torch.float64)
    return Observation(x, heat, torch.randn(2, 5, generator=draw, dtype=torch.float64))


def test_every_term_counts_with_its_weight() -> None:
    reference, now, aim = look(1), look(2), look(3).map
    objective = ReachMap(aim, (2.0, 30.0), relative=True, closeness=7.0, input_space=SPACE)
    for i in range(2):
        error = ((now.map - aim)[i] ** 2).mean() / ((reference.map - aim)[i] ** 2).mean()
        outputs = [torch.softmax(one.logits[i], 0) for one in (now, reference)]
        output = ((outputs[0] - outputs[1]) ** 2).sum()
        pixels = [SPACE.to_pixels(one.x)[i] for one in (now, reference)]
        change = ((pixels[0] - pixels[1]) ** 2).mean()
        for strictness in (1.0, 0.1):
            expected = 2 * error + 30 * strictness * output + 7 * change
            found = objective(now, reference, strictness)[i]
            torch.testing.assert_close(found, expected)
            number = torch.tensor(strictness, dtype=torch.float64)
            torch.testing.assert_close(objective(now, reference, number)[i], expected)
    full = objective(now, reference, 1.0)
    torch.testing.assert_close(objective(now, reference), full)


def test_the_papers_has_no_price_on_the_change() -> None:
    reference, now, aim = look(1), look(2), look(3).map
    moved = Observation(reference.x + 1, now.map, now.logits)
    objective = ReachMap(aim)
    assert torch.equal(objective(now, reference), objective(moved, reference))
