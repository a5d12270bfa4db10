"""Names as people type them."""

from __future__ import annotations

import pytest

import trompe
from trompe.errors import UsageError
from trompe.explain import explainers
from trompe.names import USUAL_NAMES, resolve, squeezed


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("ig", "integrated_grad"),
        ("IntegratedGradients", "integrated_grad"),
        ("integrated-gradients", "integrated_grad"),
        ("Grad-CAM", "grad_cam"),
        ("gradcam", "grad_cam"),
        ("saliency", "gradient"),
        ("shap", "kernel_shap"),
        ("KernelSHAP", "kernel_shap"),
        ("guided-backprop", "guided_backprop"),
        ("input x gradient", "grad_times_input"),
        ("Gradient * Input", "grad_times_input"),
        ("deep-lift", "deeplift"),
        ("LRP", "lrp"),
    ],
)
def test_methods_by_usual_names(typed: str, name: str) -> None:
    assert resolve(typed, "method", trompe.methods()) == name
    assert explainers[typed] is explainers[name]


def test_no_usual_name_hides_another_method() -> None:
    names = trompe.methods()
    assert len({squeezed(name) for name in names}) == len(names)
    for usual, name in USUAL_NAMES.items():
        assert usual == squeezed(usual)
        assert name in names
        assert usual not in {squeezed(other) for other in names}


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("gradiant", "did you mean gradient"),
        ("integrated_gradiants", "did you mean integrated_grad"),
        ("ocklusion", "did you mean occlusion"),
        ("xyzzy", "choose from "),
    ],
)
def test_what_was_meant(typed: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"unknown explanation method '{typed}': {hint}"):
        trompe.explainer(typed)


def test_other_kinds_have_no_usual_names_of_methods() -> None:
    with pytest.raises(UsageError, match="choose from adam, sgd"):
        resolve("ig", "step", ["adam", "sgd"])
    with pytest.raises(UsageError, match="did you mean linf"):
        resolve("lnif", "constraint", ["l2", "linf"])


def test_models_are_listed() -> None:
    assert {"efficientnet-lite0", "tiny-vgg", "resnet18"} <= set(trompe.models())
