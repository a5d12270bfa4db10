"""The attack on the smoothed map itself, against independent sums."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe.attacks import adaptive_attack
from trompe.errors import UsageError
from trompe.explain import explainer
from trompe.types import InputSpace

SPACE = InputSpace((0.5,) * 3, (0.25,) * 3)
X, TARGET_X = 0.5 * nets.images(), -0.4 * nets.images()


def softplus_twin(net: nn.Sequential, beta: float) -> nn.Sequential:
    return nn.Sequential(*[nn.Softplus(beta=beta) if isinstance(m, nn.ReLU) else m for m in net])


def heat(model: nn.Module, x: Tensor, classes: Tensor) -> np.ndarray:
    start = x.clone().requires_grad_(True)
    scores = model(start).gather(1, classes[:, None]).sum()
    found = torch.autograd.grad(scores, start)[0].abs().sum(dim=1).numpy()
    share: np.ndarray = found / found.sum(axis=(1, 2), keepdims=True)
    return share


def test_each_attack_aims_at_its_own_map_and_is_judged_by_it() -> None:
    net = nets.plain().double()
    found = adaptive_attack(net, X, target_x=TARGET_X, input_space=SPACE, iterations=4)
    assert list(found.smoothed) == ["beta=0.8"]
    classes, aimed = net(X).argmax(dim=1), net(TARGET_X).argmax(dim=1)
    for one, model in (
        (found.plain, net),
        (found.smoothed["beta=0.8"], softplus_twin(net, 0.8)),
    ):
        aim = heat(model, TARGET_X, aimed)
        for similarity, images in ((one.before, X), (one.after, one.result.x_adv)):
            maps = heat(model, images, classes)
            for i in range(len(X)):
                pcc = np.corrcoef(maps[i].ravel(), aim[i].ravel())[0, 1]
                assert float(similarity.pcc[i]) == pytest.approx(pcc, abs=1e-6)
                mse = ((maps[i] - aim[i]) ** 2).mean()
                assert float(similarity.mse[i]) == pytest.approx(mse, abs=1e-9)
        change = SPACE.to_pixels(one.result.x_adv) - SPACE.to_pixels(X)
        assert torch.allclose(one.images.mse, change.square().mean(dim=(1, 2, 3)))
    harder = found.smoothed["beta=0.8"].after.pcc < found.plain.after.pcc
    assert found.harder("beta=0.8").tolist() == harder.tolist()


@pytest.mark.parametrize(
    ("method", "rate", "steps"),
    [("gradient", 2.5e-4, 500), ("integrated_grad", 2.5e-3, 200), ("guided_backprop", 5e-4, 500)],
)
def test_the_smoothed_map_is_attacked_with_the_papers_settings(
    method: str, rate: float, steps: int
) -> None:
    from trompe.attacks import preset_for

    base = explainer(method)
    found = adaptive_attack(
        nets.plain(), X.float(), target_x=TARGET_X.float()[:1], method=base, input_space=SPACE,
        preset="paper", iterations=1,
    )  # fmt: skip
    settings = found.smoothed["beta=0.8"].result.provenance
    assert settings["step"]["learning_rate"] == rate
    assert settings["prefactors"] == [1e11, 1e6]
    assert settings["beta_start"] is None
    assert settings["method"] == "beta_smoothing"
    assert found.plain.result.provenance["beta_start"] == 10.0
    assert preset_for("paper", explainer("beta_smoothing", base=base), 8).iterations == steps


def test_a_given_map_and_other_smoothings() -> None:
    net = nets.plain()
    aim = torch.rand(8, 8)
    noisy = explainer("smoothgrad", samples=2, sigma=0.3)
    found = adaptive_attack(
        net, X.float(), target_map=aim, smoothings={"SmoothGrad": noisy}, input_space=SPACE,
        iterations=2,
    )  # fmt: skip
    assert list(found.smoothed) == ["SmoothGrad"]
    for one in (found.plain, *found.smoothed.values()):
        assert torch.allclose(one.result.map_target, (aim / aim.sum()).expand(2, 8, 8))
        assert one.result.iterations == 2
        assert one.after.ssim.shape == (2,)


def test_one_target_is_needed() -> None:
    net, x = nets.plain(), X.float()
    with pytest.raises(UsageError, match="needs something to aim at"):
        adaptive_attack(net, x)
    with pytest.raises(UsageError, match="not both"):
        adaptive_attack(net, x, target_x=x, target_map=torch.rand(8, 8))
    with pytest.raises(trompe.TrompeError, match="beta"):
        adaptive_attack(net, x, target_x=x, beta=-1.0)
