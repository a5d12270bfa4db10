"""Arguments of other kinds get one line of trompe's own, not an error from somewhere below."""

from __future__ import annotations

from typing import Any

import nets
import pytest
import torch

import trompe
from trompe.errors import TrompeError

KINDS: dict[str, Any] = {
    "none": None,
    "list": [1, 2],
    "dict": {},
    "3d": torch.rand(3, 8, 8),
    "nan": torch.full((1, 3, 8, 8), float("nan")),
    "sparse": torch.rand(1, 3, 8, 8).to_sparse(),
    "model": torch.nn.Linear(2, 2),
}


def refused(call: Any, *arguments: Any, **options: Any) -> None:
    with pytest.raises(TrompeError) as caught:
        call(*arguments, **options)
    assert len(str(caught.value).splitlines()) == 1, str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_maps_of_another_kind(kind: str) -> None:
    model, x = nets.plain(seed=0), nets.images(1, seed=1)
    if kind not in ("none", "list"):
        refused(trompe.manipulate, model, x, torch.rand(1, *x.shape[-2:]), objective=KINDS[kind])
    refused(trompe.explainer, KINDS[kind])
    if kind not in ("3d", "sparse"):
        refused(trompe.manipulate, model, x, KINDS[kind], iterations=1)


@pytest.mark.parametrize("kind", ["none", "dict", "sparse", "model"])
def test_images_of_another_kind(kind: str) -> None:
    model = nets.plain(seed=0)
    refused(trompe.auto_attack, model, KINDS[kind], budget=0.01)
    refused(trompe.certify, model, KINDS[kind], radius=0.01)
    refused(trompe.manipulate, model, KINDS[kind], torch.rand(1, 8, 8), iterations=1)
    refused(trompe.explainer("gradient"), model, KINDS[kind], 0)


#: Of other kinds than any number, name or part.
ODD: dict[str, Any] = {
    "none": None,
    "string": "0.1",
    "dict": {},
    "model": torch.nn.Linear(2, 2),
    "sparse": torch.rand(1, 3, 8, 8).to_sparse(),
    "tensor": torch.rand(2, 3),
    "nan": float("nan"),
    "infinite": float("inf"),
    "negative": -1,
    "huge": 10**400,
    "object": object(),
    "complex": 1j,
}
NUMBERS = [kind for kind in ODD]
NOT_NONE = [kind for kind in ODD if kind != "none"]
NO_NAMES = [kind for kind in NOT_NONE if kind != "string"]


def odd(name: str, kinds: list[str]) -> list[Any]:
    return [pytest.param(name, ODD[kind], id=f"{name}-{kind}") for kind in kinds]


def short(call: Any, *arguments: Any, **options: Any) -> None:
    with pytest.raises(TrompeError) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert len(text.splitlines()) == 1, text
    assert len(text) < 400, text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *odd("target", NOT_NONE),
        *odd("preset", list(ODD)),
        *odd("iterations", NOT_NONE),
        *odd("through", [kind for kind in ODD if kind != "string"]),
        *odd("generator", NOT_NONE),
        *odd("input_space", NOT_NONE),
        *odd("redraw", NOT_NONE),
        *odd("progress", NOT_NONE),
        *odd("follow", NOT_NONE),
        *odd("capture", NOT_NONE),
        *odd("keep", list(ODD)),
        *odd("start_noise", list(ODD)),
        *odd("batch_size", NOT_NONE),
        *odd("constraint", NOT_NONE),
        *odd("step", NOT_NONE),
        *odd("keep_output", list(ODD)),
    ],
)
def test_arguments_of_manipulate(name: str, value: Any) -> None:
    model, x = nets.plain(seed=0), nets.images(1, seed=1)
    options = {"iterations": 1, name: value}
    short(trompe.manipulate, model, x, torch.rand(1, 8, 8), **options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *odd("radius", list(ODD)),
        *odd("norm", list(ODD)),
        *odd("target", NOT_NONE),
        *odd("input_space", NOT_NONE),
        *odd("method", list(ODD)),
    ],
)
def test_arguments_of_certify(name: str, value: Any) -> None:
    model, x = nets.plain(seed=0), nets.images(1, seed=1)
    short(trompe.certify, model, x, **{"radius": 0.01, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *odd("radius", list(ODD)),
        *odd("budget", list(ODD)),
        *odd("norm", list(ODD)),
        *odd("version", list(ODD)),
        *odd("target", NOT_NONE),
        *odd("input_space", NOT_NONE),
        *odd("generator", NOT_NONE),
        *odd("progress", NOT_NONE),
    ],
)
def test_arguments_of_auto_attack(name: str, value: Any) -> None:
    model, x = nets.plain(seed=0), nets.images(1, seed=1)
    short(trompe.auto_attack, model, x, **{"budget": 1e-4, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *odd("images", [kind for kind in ODD if kind not in ("none", "dict")]),
        *odd("model", [kind for kind in ODD if kind != "none"]),
        *odd("method", list(ODD)),
        *odd("preset", list(ODD)),
        *odd("iterations", NOT_NONE),
        *odd("objective", list(ODD)),
        *odd("constraint", NOT_NONE),
        *odd("explained", NOT_NONE),
    ],
)
def test_arguments_of_attack(name: str, value: Any) -> None:
    short(trompe.attack, **{"model": "tiny-vgg", "iterations": 1, "progress": False, name: value})


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("guided_backprop", {"hard_cut": "yes"}, "hard_cut must be True or False, not 'yes'"),
        ("guided_backprop", {"hard_cut": 1}, "hard_cut must be True or False, not 1"),
        ("rise", {"centred": "no"}, "centred must be True or False"),
        ("grad_cam", {"channels_last": "no"}, "channels_last must be True or False or None"),
        ("grad_cam", {"positive": None}, "positive must be True or False, not None"),
        ("grad_cam", {"layer": 3}, "layer must be a text or None, not 3"),
        ("lrp", {"composite": 3}, "composite must be a text or a Composite, not 3"),
        ("lrp", {"input_space": "x"}, "input_space must be an InputSpace"),
        ("smoothgrad", {"base": "gradient"}, "base must be a Method"),
        ("smoothgrad", {"samples": 3.5}, "samples must be a whole number"),
        ("smoothgrad", {"seed": True}, "seed must be a whole number, not True"),
        ("integrated_grad", {"baseline": "black"}, "baseline must be a number or a tensor"),
        ("integrated_grad", {"score": 1}, "score must be a text"),
        ("occlusion", {"window": "7"}, "window must be a whole number or a tuple or None"),
        ("pattern_net", {"patterns": "p.pt"}, "patterns must be a mapping"),
    ],
)
def test_options_of_methods_of_another_kind(method: str, options: Any, said: str) -> None:
    with pytest.raises(TrompeError) as caught:
        trompe.explainer(method, **options)
    assert str(caught.value).startswith(said)


def test_options_of_methods_of_the_kinds_that_are_meant() -> None:
    numpy = pytest.importorskip("numpy")
    trompe.explainer("smoothgrad", samples=numpy.int64(3), noise=numpy.float32(0.2), sigma=1)
    trompe.explainer("beta_smoothing", beta=torch.tensor(2.0), pooling=True)
    trompe.explainer("occlusion", window=[3, 3], baseline=torch.zeros(3, 1, 1))
    trompe.explainer("grad_cam", layer=None, channels_last=None)
