"""Every public function takes a model and images in each form that has one obvious meaning."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import nets
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import trompe
from trompe import geometry
from trompe.certificates import noise_sandwich
from trompe.metrics import deletion, insertion
from trompe.robustness import misleading_probability
from trompe.types import InputSpace, LoadedModel

SPACE = InputSpace((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
NET = nets.seeded(
    nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36, 3)
    )
).eval()
X = SPACE.from_pixels(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
HEAT = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(1))
NOISE = {"explainer": "gradient", "sigma": 0.1, "samples": 100, "pool": 4, "input_space": SPACE}


def noise() -> dict[str, Any]:
    return {**NOISE, "generator": torch.Generator().manual_seed(2)}


FUNCTIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "explainer": lambda m, x, k: trompe.explainer("gradient")(m, x, k),
    "detect": lambda m, x, k: trompe.detect(m, x, target=k, input_space=SPACE).scores["beta 0.8"],
    "deletion": lambda m, x, k: deletion(m, x, HEAT, k, steps=2).scores,
    "insertion": lambda m, x, k: insertion(m, x, HEAT, k, steps=2).scores,
    "smoothed_maps": lambda m, x, k: geometry.smoothed_maps(m, x, k, betas=(None, 2.0)),
    "distance_to_relu": lambda m, x, k: geometry.distance_to_relu(m, x, k, betas=(2.0,)).pcc,
    "recovery": lambda m, x, k: (
        geometry.recovery(m, x, x, k, HEAT, betas=(2.0,)).to_target.pcc
    ),
    "compare_smoothings": lambda m, x, k: (
        geometry.compare_smoothings(m, x, k, repeats=1, samples=(2,)).agreement
    ),
    "first_layer_norm": lambda m, x, k: torch.tensor(geometry.first_layer_norm(m, x)),
    "principal_curvatures": lambda m, x, k: (
        geometry.principal_curvatures(
            m, x, k, beta=2.0, k=1, generator=torch.Generator().manual_seed(0)
        ).values.abs()
    ),
    "certify": lambda m, x, k: (
        trompe.certify(m, x, target=k, method="noise", radius=0.05, **NOISE).pcc
    ),
    "noise_sandwich": lambda m, x, k: (
        torch.tensor(
            noise_sandwich(
                m, x, target=k, radii=(0.05,), iterations=2, **noise()
            ).layers[0].attacked_pcc
        )
    ),
    "auto_attack": lambda m, x, k: (
        trompe.auto_attack(
            m, x, target=k, explainer="gradient", budget=0.02, input_space=SPACE
        ).worst["pcc"]
    ),
    "manipulate": lambda m, x, k: (
        trompe.manipulate(
            m, x, HEAT, target=k, explainer="gradient", input_space=SPACE,
            preset=nets.one_beta(iterations=2),
        ).map_adv
    ),
    "misleading_probability": lambda m, x, k: torch.tensor(
        misleading_probability(
            m, x, target=k, explainer="gradient", size=0.2, tau=0.99, samples=60,
            method="monte-carlo", input_space=SPACE, generator=torch.Generator().manual_seed(0),
        )[0].value
    ),
}  # fmt: skip


class Pair(nn.Module):
    """Returns more than the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = copy.deepcopy(NET)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner(x), x.mean()


MODELS: dict[str, Any] = {
    "loaded": LoadedModel(NET, SPACE, ("a", "b", "c"), "small", 16, 16),
    "tuple": Pair().eval(),
    "function": lambda x: NET(x),
}
IMAGES: dict[str, Any] = {"numpy": X.numpy(), "one image": X[0]}
CLASSES: dict[str, Any] = {
    "int": 2,
    "list": [2],
    "numpy": np.array([2], dtype=np.int32),
    "int32": torch.tensor([2], dtype=torch.int32),
    "uint8": torch.tensor([2], dtype=torch.uint8),
}
"""Forms of a model, of images and of classes."""


CLASS = torch.tensor([2])


def result(name: str, model: Any = NET, x: Any = X, target: Any = CLASS) -> Tensor:
    found: Tensor = FUNCTIONS[name](model, x, target)
    return found.detach().double()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_form_gives_the_same_result(name: str) -> None:
    expected = result(name)
    assert expected.numel() > 0
    for model in MODELS.values():
        nets.close(result(name, model=model), expected, 1e-4)
    for x in IMAGES.values():
        nets.close(result(name, x=x), expected, 1e-4)
    for target in CLASSES.values():
        nets.close(result(name, target=target), expected, 1e-4)


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"first_layer_norm"}))
def test_a_class_that_is_none_is_one_line(name: str) -> None:
    for wrong in (3, -1, [0, 1], 1.5, "cat"):
        with pytest.raises(trompe.TrompeError) as caught:
            result(name, target=wrong)
        assert "\n" not in str(caught.value)


def test_a_proof_of_a_function_that_is_not_float64_is_one_line() -> None:
    with pytest.raises(trompe.CertificateError, match="give the network itself") as caught:
        trompe.certify(lambda x: NET(x), X, radius=0.01)
    assert "\n" not in str(caught.value)


def test_a_certificate_of_the_gradient_alone_takes_no_explainer() -> None:
    with pytest.raises(trompe.TrompeError, match="give method='noise'"):
        trompe.certify(NET, X, radius=0.01, explainer="lrp")


def test_results_are_short_at_a_prompt() -> None:
    found = [
        trompe.auto_attack(NET, X, explainer="gradient", budget=0.02, input_space=SPACE),
        trompe.certify(NET, X, method="noise", radius=0.05, **NOISE),
        trompe.detect(NET, X, input_space=SPACE),
        trompe.explainer("lrp").explain(NET, X, CLASS),
        MODELS["loaded"],
        geometry.principal_curvatures(NET, X, CLASS, beta=2.0, k=1),
        insertion(NET, X, HEAT, CLASS),
    ]
    for one in found:
        assert type(one).__name__ in repr(one)
        assert len(repr(one)) < 1200
        assert max(map(len, repr(one).splitlines())) < 130
    assert "robust-explanation accuracy" in found[0].summary()


def test_without_a_class_manipulated_images_are_explained_by_that_of_the_originals() -> None:
    layers = (nn.Flatten(), nn.Linear(768, 6), nn.ReLU(), nn.Linear(6, 3, bias=False))
    net = nets.seeded(nn.Sequential(*layers)).eval()
    own = net(X).argmax(1)
    tried = torch.randn(100, *X.shape, generator=torch.Generator().manual_seed(4))
    other = next(x for x in tried if net(x).argmax(1) != own)
    found = [
        geometry.recovery(net, X, other, target, HEAT, betas=(2.0,)).to_target.pcc
        for target in (None, own, net(other).argmax(1))
    ]
    nets.close(found[0], found[1], 1e-6)
    assert float((found[0] - found[2]).abs()) > 1e-3
