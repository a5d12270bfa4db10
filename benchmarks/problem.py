"""What is measured: networks, images, the methods, and the problem that all contenders solve.

The unit of time is one forward pass of the network on the same batch. A walk back through the
network to the image takes as long: one transposed linear map per layer. Differentiating a map walks
back once more through everything it was computed from. Hence the floors, in which elementwise work
counts nothing:

- A map by one walk back (the gradient, guided backpropagation, the deconvnet, patterns): forward
  and walk, and the derivative of each: 4.
- LRP and excitation backpropagation run each layer once more with other weights, for the
  denominators: forward, denominators and walk, and the derivative of each: 6.
- A mean over n images takes n times as much. Integrated gradients end at the image itself, whose
  logits the loss needs too: 4 n. The samples of SmoothGrad and its kin do not, nor is it the
  original network that beta-smoothing explains: a forward pass and its derivative more, 4 n + 2.
- DeepLIFT: forward passes of image and baseline, a walk, and the derivative of all but the
  baseline's: 5.
- Grad-CAM: forward and its derivative: 2. What lies above the feature maps is walked three times
  more, which is next to nothing where these are the last ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import trompe
from trompe.types import InputSpace, heatmap

BETA = 30.0
"""Of the softplus that the attack puts in place of ReLU."""

DEFENCE = 0.8
"""Of the softplus network that beta-smoothing explains."""

IG_STEPS, SAMPLES, BASELINES = 30, 10, 30
PREFACTORS = (1e11, 1e6)
MODELS = ("vgg16", "squeezenet1_1", "resnet18", "tiny-vgg")


@dataclass(frozen=True)
class Case:
    """How a method is attacked.

    Args:
        floor: forward passes that a step needs at least, see above; None: not known.
        surrogate: whether the attack runs on softplus; else, as in the paper for LRP, on the
            network itself (beta-smoothing brings its own).
        options: of trompe's method.
        patterns: whether the method needs patterns.
        variants: more options, by the name of a contender of their own.
    """

    floor: float | None
    surrogate: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    patterns: bool = False
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)


METHODS: dict[str, Case] = {
    "gradient": Case(4),
    "grad_times_input": Case(4),
    "integrated_grad": Case(
        4 * IG_STEPS,
        options={"steps": IG_STEPS},
        # Five images with their graph at once, the rest computed twice: a floor of 6 each.
        variants={"trompe, chunk=5": {"steps": IG_STEPS, "chunk": 5}},
    ),
    "guided_backprop": Case(4),
    "lrp": Case(6, surrogate=False),
    "pattern_attribution": Case(4, patterns=True),
    "smoothgrad": Case(4 * SAMPLES + 2, options={"samples": SAMPLES}),
    "beta_smoothing": Case(6, surrogate=False, options={"beta": DEFENCE}),
    "deconvnet": Case(4),
    "deeplift": Case(5),
    "excitation_backprop": Case(6, surrogate=False),
    "expected_gradients": Case(4 * BASELINES + 2, options={"samples": BASELINES}),
    "uniform_gradient": Case(4 * SAMPLES + 2, options={"samples": SAMPLES}),
    "grad_cam": Case(2, options={"positive": False}),  # random weights may leave no positive part
    "pattern_net": Case(4, patterns=True),
}
"""Every method but attention rollout, which none of these networks has a use for."""

PAPER = tuple(METHODS)[:6]
"""The six methods of the paper."""


@dataclass(frozen=True)
class Problem:
    """One attack, the same for all contenders.

    Args:
        model: the original network, in evaluation mode, parameters without grad.
        x: images, [B, C, H, W].
        method: attacked.
        aim: the heat maps aimed at, [B, H, W].
        target: the classes explained, [B].
        was: softmax output to be kept, [B, K].
        patterns: by parameter name, where the method needs them.
    """

    model: nn.Module
    x: Tensor
    method: str
    aim: Tensor
    target: Tensor
    was: Tensor
    patterns: dict[str, Tensor]

    @property
    def case(self) -> Case:
        """How the method is attacked."""
        return METHODS[self.method]

    @property
    def beta(self) -> float | None:
        """Of the surrogate's softplus; None where the network itself is attacked."""
        return BETA if self.case.surrogate else None

    def explainer(self, options: dict[str, Any] | None = None) -> Any:
        """Trompe's method, with options in place of the case's."""
        given = dict(self.case.options if options is None else options)
        if self.case.patterns:
            given["patterns"] = self.patterns
        return trompe.explainer(self.method, **given)


def problem(model: nn.Module, x: Tensor, method: str) -> Problem:
    """The problem of attacking ``method`` at ``x``: to copy the map of the mirrored images."""
    patterns = random_patterns(model) if METHODS[method].patterns else {}
    with torch.no_grad():
        logits = model(x)
    bare = Problem(model, x, method, x, logits.argmax(1), logits.softmax(1), patterns)
    aim = heatmap(bare.explainer()(model, x.flip(-1), bare.target)).detach()
    return Problem(model, x, method, aim, bare.target, bare.was, patterns)


def random_patterns(model: nn.Module) -> dict[str, Tensor]:
    """Patterns of the right shapes: which numbers they hold changes no time."""
    draw = torch.Generator().manual_seed(0)
    return {
        name: (0.5 + torch.rand(weight.shape, generator=draw)).to(weight)
        for name, weight in model.named_parameters()
        if weight.dim() > 1
    }


def network(name: str) -> tuple[nn.Module, int]:
    """A network and the size of its images, in pixels; random weights change no time."""
    if name.startswith("tiny"):
        return trompe.load_model(name).model, 64
    import torchvision

    torch.manual_seed(0)
    return torchvision.models.get_model(name).eval().requires_grad_(False), 224


def images(count: int, size: int) -> Tensor:
    """The default photos, normalised, [count, 3, size, size]."""
    from trompe.zoo.images import default_images

    pixels = list(default_images(size).values())
    return InputSpace().from_pixels(torch.stack([pixels[i % len(pixels)] for i in range(count)]))
