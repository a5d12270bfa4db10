"""The view of a model under which it is explained."""

from __future__ import annotations

import nets
import pytest
import torch
from torch import Tensor, nn

from trompe.engine import frozen
from trompe.errors import ModelError


def test_a_model_ready_to_use_is_returned_itself() -> None:
    model = nets.normed()
    assert frozen(model) is model


@pytest.mark.parametrize("change", ["train", "one module in training", "requires_grad"])
def test_the_same_function_in_evaluation_mode_sharing_memory(change: str) -> None:
    model = nets.normed()
    expected = model(nets.images(dtype=torch.float32))
    if change == "train":
        model.train()
    elif change == "requires_grad":
        model.head.requires_grad_(True)
    else:
        model.bn2.train()
    flags = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    view = frozen(model)
    assert view is not model
    assert not any(m.training for m in view.modules())
    assert not any(p.requires_grad for p in view.parameters())
    for ours, theirs in zip(view.state_dict().values(), model.state_dict().values(), strict=True):
        assert ours.data_ptr() == theirs.data_ptr()
    assert torch.equal(view(nets.images(dtype=torch.float32)), expected)
    assert flags == (
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
    )


def test_shared_parameters_stay_shared() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    view = frozen(model)
    assert view[2].weight is view[0].weight
    assert not view[0].weight.requires_grad


def test_a_model_that_cannot_be_copied_is_named() -> None:
    class Stubborn(nn.Module):
        def __deepcopy__(self, memo: object) -> Stubborn:
            raise RuntimeError("no copies")

        def forward(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(ModelError, match=r"Stubborn cannot be copied \(no copies\).*eval\(\)"):
        frozen(Stubborn().train())


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_what_a_pass_has_left_in_a_model_does_not_keep_it_from_being_copied() -> None:
    """The old weight norm keeps its weight, computed in the last pass, with its graph."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(12, 3)))
    x = torch.rand(2, 3, 2, 2)
    expected = model(x)
    assert model[1].weight.grad_fn is not None
    view = frozen(model)
    assert view is not model
    assert torch.equal(view(x), expected)
    with torch.no_grad():
        model[1].weight_g.mul_(2)  # the memory is shared, and the weight computed anew
    assert torch.equal(view(x), model(x))
