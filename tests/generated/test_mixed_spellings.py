"""Networks of several functions, each in a spelling drawn at random, beside their plain twins."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.engine import record, smooth
from trompe.errors import ModelError, TrompeError

sys.path.insert(0, str(Path(__file__).parents[1] / "rules"))
from spelled_functions import GROUPS, Spelled

METHODS = {
    "lrp": 1e-4,  # stabilisers add up over several functions
    "excitation_backprop": 1e-3,
    "deeplift": 1e-5,
    "guided_backprop": 1e-6,
}
STEPS = [
    (kind, plain, spelling)
    for kind in ("image", "conv")
    for plain, spellings in GROUPS[kind].items()
    for spelling in spellings
    if "torch.eye" not in spelling  # a layer with weights, which takes negative numbers otherwise
]
TARGET = torch.tensor([0, 2])


class Mixed(nn.Module):
    """Convolutions with spelled functions between them; rectified before those of ``conv``."""

    def __init__(self, steps: Sequence[tuple[str, str, str]], plain: bool) -> None:
        super().__init__()
        self.kinds = [kind for kind, _, _ in steps]
        self.parts = nn.ModuleList(
            Spelled(kind, twin if plain else spelling) for kind, twin, spelling in steps
        )

    def forward(self, x: Tensor) -> Tensor:
        for i, (kind, part) in enumerate(zip(self.kinds, self.parts, strict=True)):
            h = F.conv2d(x, part.a if i == 0 else part.w, part.ab, padding=1)
            x = part.function(h if kind == "image" else F.relu(h), part)
        last = self.parts[-1]
        x = F.relu(F.conv2d(x, last.w, last.b))
        return F.linear(x.mean((2, 3)), last.head)


def check(seed: int) -> int:
    """Compare a network with its twin; how many maps were compared.

    The twin is written plainly, and its gradient is PyTorch's own.
    """
    draw = random.Random(seed)
    steps = draw.sample(STEPS, draw.randint(1, 3))
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(seed)).double()
    odd, plain = Mixed(steps, False).eval(), Mixed(steps, True).eval()
    leaf = x.clone().requires_grad_(True)
    expected = plain(leaf)
    (slope,) = torch.autograd.grad(expected[[0, 1], TARGET].sum(), leaf)
    names = [spelling for _, _, spelling in steps]

    def same(found: Tensor, true: Tensor, tolerance: float, what: str) -> None:
        size = float(true.detach().abs().max())
        gap = float((found - true).detach().abs().max())
        assert gap <= tolerance * size + 1e-12, f"{what}, {seed}: {gap / size:.2g} in {names}"

    same(odd(x), expected, 1e-9, "twin")
    if any("heaviside" in name for name in names):
        return 0  # has no derivative in PyTorch
    _, logits = record(odd, x.clone().requires_grad_(True))
    same(logits, expected, 1e-7, "record")
    same(trompe.explainer("gradient")(odd, x, TARGET), slope, 1e-6, "gradient")
    try:
        limit = smooth(odd, beta=1e7, pooling=1.0)(x)
    except ModelError:  # a choice that has no smooth form is refused
        limit = expected
    same(limit, expected, 1e-4, "smooth")
    compared = 0
    for method, tolerance in METHODS.items():
        explainer = trompe.explainer(method)
        try:
            found = explainer(odd, x, TARGET).detach()
        except TrompeError:
            continue
        try:
            true = explainer(plain, x, TARGET).detach()
        except TrompeError:
            assert method == "guided_backprop", f"{method} answers {names}, not the twin"
            continue  # a leaky ReLU made of two ReLUs has rectifiers, and the plain one none
        same(found, true, tolerance, method)
        compared += 1
    return compared


def test_some_mixed_spellings() -> None:
    assert sum(check(seed) for seed in range(25)) > 40


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_thousands_of_mixed_spellings() -> None:
    assert sum(check(seed) for seed in range(2000)) > 4000
