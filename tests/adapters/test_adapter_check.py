"""When an adapter checks, and what it imports."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import adapter_cases as cases
import nets
import pytest
import torch
from adapter_cases import TARGET, X
from torch import nn

import trompe
from trompe.adapters import base
from trompe.engine import smooth
from trompe.errors import ModelError, UsageError


class Gradients:
    """captum's interface, without captum."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def attribute(self, x: Any, target: Any) -> Any:
        score = self.model(x).gather(1, target.view(-1, 1)).sum()
        return torch.autograd.grad(score, x)[0]


def test_neither_library_is_imported_before_it_is_used() -> None:
    program = (
        "import sys, trompe; trompe.adapters.captum(object); trompe.adapters.zennit; "
        "sys.exit(' '.join(m for m in ('captum', 'zennit') if m in sys.modules) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("library", "module", "name"),
    [("captum", "captum.attr", "Saliency"), ("zennit", "zennit.composites", "epsilon_plus")],
)
def test_a_missing_library_is_named_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, library: str, module: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"{library} is not installed.*pip install {library}"):
        getattr(trompe.adapters, library)(name)


def test_the_check_is_made_once_for_models_of_one_structure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks: list[Any] = []
    own = base.check_derivative

    def counted(*arguments: Any) -> bool:
        checks.append(arguments)
        return own(*arguments)

    monkeypatch.setattr(base, "check_derivative", counted)
    method = trompe.adapters.captum(Gradients)
    x = X.float()
    for model in (nets.plain(), smooth(nets.plain(seed=1), beta=2.0), nets.plain(seed=2)):
        method(model, x, TARGET)
    assert len(checks) == 1
    method(nets.plain(bias=False), x, TARGET)
    assert len(checks) == 2
    method(nets.normed(), torch.randn(2, 3, 12, 12), TARGET)
    method(nets.normed(), x, TARGET)
    assert len(checks) == 4
    trompe.adapters.captum(Gradients)(nets.plain(), x, TARGET)
    assert len(checks) == 5


def test_a_map_that_does_not_depend_on_the_image_is_no_mistake() -> None:
    """The gradient of a linear model: zero is the right derivative."""
    model = nets.seeded(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)))
    method = trompe.adapters.captum(Gradients)
    x = X.float().requires_grad_(True)
    nets.close(method(model, x, TARGET), trompe.explainer("gradient")(model, x, TARGET), 1e-6)


def test_random_numbers_of_the_user_are_not_drawn() -> None:
    model = nets.plain()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    trompe.adapters.captum(Gradients)(model, X.float(), TARGET)
    assert torch.equal(torch.rand(2), expected)


def test_flat_and_black_images() -> None:
    for image in (torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)):
        method = trompe.adapters.captum(Gradients)
        found = method(nets.plain(), image, TARGET[:1])
        nets.close(found, trompe.explainer("gradient")(nets.plain(), image, TARGET[:1]), 1e-6)


def test_a_model_in_training_is_refused_as_ever() -> None:
    with pytest.raises(ModelError, match="training mode"):
        trompe.adapters.captum(Gradients)(nets.normed().train(), X.float(), TARGET)


def test_in_place_models_and_functional_calls() -> None:
    """The user's own ways of writing a network, smoothed and not."""
    for form in ("inplace_used", "methods", "clamped"):
        model = smooth(nets.forms(form).double(), beta=2.0)
        found = cases.slope(trompe.adapters.captum(Gradients), model, X)
        nets.close(found, cases.slope(trompe.explainer("gradient"), model, X), 1e-9)
