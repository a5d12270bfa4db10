"""The attack on a GPU: the same as on the CPU, and without waiting for numbers in every step."""

from __future__ import annotations

from typing import Any

import nets
import pytest
import torch
from attacking import manipulate
from torch import nn

import trompe
from trompe.explain import Method, explainers

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU at hand"),
]

SPACE = trompe.InputSpace((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
X = SPACE.clamp(0.6 * nets.images(2))
AIM = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
METHODS = [name for name in explainers.names() if name != "attention_rollout"]


def build(name: str, model: nn.Module) -> Method:
    options: dict[str, Any] = {
        "integrated_grad": {"steps": 3},
        "expected_gradients": {"samples": 3},
        "smoothgrad": {"samples": 2},
        "grad_cam": {"positive": False},
    }.get(name, {})
    if name.startswith("pattern"):
        options = {"patterns": nets.patterns_of(model)}
    return trompe.explainer(name, **options)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("preset", ["paper", "fast"])
def test_the_same_attack_as_on_the_cpu(name: str, preset: str) -> None:
    found = {}
    for place in ("cpu", "cuda"):
        net = nets.plain().double()
        found[place] = manipulate(
            net.to(place),
            X.to(place),
            AIM.to(place),
            explainer=build(name, net),
            input_space=SPACE,
            preset=preset,
            iterations=5,
            keep="last",
        )
    one, other = found["cpu"], found["cuda"]
    assert one.iterations == other.iterations == 5
    nets.close(other.map_original, one.map_original, 1e-9)
    nets.close(other.history["loss"], one.history["loss"], 1e-5)
    nets.close(other.x_adv, one.x_adv, 1e-5)  # Adam magnifies the last digit


@pytest.mark.parametrize("name", METHODS)
def test_a_step_does_not_wait_for_the_gpu(name: str) -> None:
    from trompe.attacks import Adam, Keep, ReachMap, ValidImage
    from trompe.attacks.loop import Attack
    from trompe.attacks.loss import Loss
    from trompe.attacks.observation import observe
    from trompe.engine import smooth

    original = nets.plain().double()
    method, net = build(name, original), original.to("cuda")
    x, aim = X.cuda(), AIM.cuda()
    target = net(x).argmax(1)
    marks: list[int] = []

    def progress(done: int, total: int, numbers: Any) -> None:
        marks.append(done)
        # The first step makes what is kept; the last one asks whether all went well.
        torch.cuda.set_sync_debug_mode("error" if 2 <= done < total - 1 else "default")

    try:
        Attack(
            model=net,
            surrogate=smooth(net, beta=5.0, pooling=1.0),
            explainer=method,
            loss=Loss(ReachMap(aim / aim.sum((1, 2), keepdim=True)), Keep(), SPACE),
            constraint=ValidImage(),
            stepper=Adam(1e-3).begin(x, SPACE),
            beta=lambda iteration: 5.0,
            reference=observe(net, method, x, target),
            target=target,
            ask_every=10,
            progress=progress,
        ).run(x, 8)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert marks == list(range(1, 9))
