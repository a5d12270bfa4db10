"""Networks written oddly, each beside a plain twin that is the same function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint as cp
from torch import Tensor, nn

Act = Callable[[Tensor], Tensor]


def _ignoring(call: Callable[[Tensor], Any]) -> Act:
    """The result of an in-place call ignored, and the tensor used on."""

    def act(h: Tensor) -> Tensor:
        h = h * 1
        call(h)
        return h

    return act


def _by_index(h: Tensor) -> Tensor:
    h = h.clone()
    h[h < 0] = 0
    return h


def _flat(h: Tensor) -> Tensor:
    h = (h * 1).contiguous()
    h.view(-1).relu_()
    return h


def _halves(h: Tensor) -> Tensor:
    h = h * 1
    F.relu(h[:, ::2], inplace=True)
    h[:, 1::2].clamp_(min=0)
    return h


def _transposed(h: Tensor) -> Tensor:
    h = h * 1
    h.transpose(1, 2).relu_()
    return h


def _row_by_row(h: Tensor) -> Tensor:
    h = h * 1
    for i in range(h.shape[1]):
        h[:, i] = F.relu(h[:, i])
    return h


RELUS: dict[str, Act] = {
    "relu": F.relu,
    "relu_": _ignoring(F.relu_),
    "method": lambda h: h.relu(),
    "module": nn.ReLU(inplace=True),
    "clamp": lambda h: h.clamp(min=0),
    "clamp_": _ignoring(lambda h: h.clamp_(0)),
    "clip": lambda h: torch.clip(h, 0),
    "clamp_min": lambda h: torch.clamp_min(h, 0.0),
    "threshold": nn.Threshold(0, 0),
    "threshold_": _ignoring(lambda h: F.threshold_(h, 0, 0)),
    "maximum": lambda h: torch.maximum(h, torch.zeros_like(h)),
    "max": lambda h: h.max(torch.zeros((), dtype=h.dtype)),
    "fmax": lambda h: torch.fmax(h.new_zeros(1), h),
    "where": lambda h: torch.where(h > 0, h, 0.0),
    "where not": lambda h: torch.where(h < 0, torch.zeros_like(h), h),
    "product": lambda h: h * (h > 0),
    "numbers": lambda h: (h > 0).to(h.dtype) * h,
    "masked_fill": lambda h: h.masked_fill(~(h > 0), 0.0),
    "by index": _by_index,
    "aten": torch.ops.aten.relu,
    "aten overload": lambda h: torch.ops.aten.clamp_min.default(h, 0),
    "leaky of slope 0": lambda h: F.leaky_relu(h, 0.0),
    "flat view": _flat,
    "halves in place": _halves,
    "wide hard tanh": lambda h: F.hardtanh(h, 0.0, 1e9),
    "transposed in place": _transposed,
    "row by row": _row_by_row,
}


def _leaky(h: Tensor) -> Tensor:
    return F.leaky_relu(h, 0.1)


OTHERS: dict[str, tuple[Act, Act]] = {
    "relu6": (nn.ReLU6(inplace=True), lambda h: h.clamp(0, 6)),
    "leaky": (_ignoring(lambda h: F.leaky_relu_(h, 0.1)), lambda h: F.leaky_relu(h, 0.1)),
    "leaky where": (lambda h: torch.where(h > 0, h, 0.1 * h), lambda h: F.leaky_relu(h, 0.1)),
    "elu": (_ignoring(lambda h: F.elu_(h, 1.5)), lambda h: F.elu(h, 1.5)),
    "hardtanh": (_ignoring(F.hardtanh_), F.hardtanh),
    "abs": (lambda h: (h * h).sqrt(), torch.abs),
    "hardswish": (F.hardswish, lambda h: h * (h + 3).clamp(0, 6) / 6),
    "minimum": (lambda h: torch.minimum(h, torch.full_like(h, 0.5)), lambda h: h.clamp(max=0.5)),
    "softshrink": (F.softshrink, lambda h: h - h.clamp(-0.5, 0.5)),
    "maxout": (lambda h: torch.max(h, h.flip(1)), lambda h: torch.maximum(h, h.flip(1))),
    "own elu": (lambda h: torch.where(h > 0, h, torch.expm1(h)), F.elu),
    # PyTorch keeps 1 / alpha, and the 1 / 6 of hard sigmoid's derivative, in single precision.
    "celu": (_ignoring(lambda h: F.celu_(h, 2.0)), lambda h: 2 * F.elu(h / 2)),
    "selu": (_ignoring(F.selu_), F.selu),
    "rrelu": (_ignoring(F.rrelu_), lambda h: F.leaky_relu(h, (1 / 8 + 1 / 3) / 2)),
    "gate": (
        lambda h: h * F.hardsigmoid(h.clone(), inplace=True),
        lambda h: h * F.hardsigmoid(h),
    ),
    "addcmul": (lambda h: torch.addcmul(torch.zeros_like(h), h, (h > 0).to(h.dtype)), F.relu),
    "lerp": (lambda h: torch.lerp(torch.zeros_like(h), h, (h > 0).to(h.dtype)), F.relu),
    "where of a cast": (lambda h: torch.where(h.float() > 0, h, h.new_zeros(())), F.relu),
    "stacked first": (lambda h: torch.stack([h, torch.zeros_like(h)]).amax(0), F.relu),
    "stacked last": (lambda h: torch.stack([h, 0.1 * h], -1).max(-1).values, _leaky),
    "joined": (lambda h: torch.cat([h[:, None], -h[:, None]], 1).amax(1), torch.abs),
    "groups": (
        lambda h: h.unflatten(1, (2, 2)).amax(2).repeat(1, 2, 1, 1),
        lambda h: torch.maximum(h[:, ::2], h[:, 1::2]).repeat(1, 2, 1, 1),
    ),
    "half of both": (lambda h: (h + h.abs()) / 2, F.relu),
    "difference": (lambda h: h + F.relu(-h), F.relu),
    "two rectified": (lambda h: F.relu(h) - F.relu(-h) * 0.1, _leaky),
    "of numbers": (lambda h: (h >= 0) * h + 0.1 * h * (h < 0), _leaky),
    "filled below": (lambda h: h.masked_fill(h < 0.2, 0.2), lambda h: h.clamp(min=0.2)),
    "parametric": (lambda h: F.prelu(h, h.new_full((1,), 0.1)), _leaky),
    "threshold": (lambda h: F.threshold(h, 0.2, 0.2), lambda h: h.clamp(min=0.2)),
    "two steps": (lambda h: h.relu().clamp(max=1), lambda h: h.clamp(0, 1)),
}
SMOOTH: dict[str, Act] = {"gelu": F.gelu, "tanh": torch.tanh, "silu": F.silu}


SHAPES: dict[str, Act] = {
    "permuted": lambda h: h.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "viewed": lambda h: h.contiguous().view(h.shape[0], -1).view(h.shape),
    "chunked": lambda h: torch.cat(h.chunk(2, 1), 1),
    "stacked": lambda h: torch.stack([h, h]).mean(0),
    "cast": lambda h: h.to(torch.float64),
    "last": lambda h: h.contiguous(memory_format=torch.channels_last),
    "indexed": lambda h: h[:, [*range(h.shape[1])]],
    "copied": lambda h: torch.empty_like(h).copy_(h),
    "unfolded": lambda h: F.fold(F.unfold(h, 1), h.shape[-2:], 1),
    "rolled": lambda h: h.roll((1, 2), (2, 3)).roll((-1, -2), (2, 3)),
    "shuffled": lambda h: F.channel_shuffle(F.channel_shuffle(h, 2), 2),
    "unbound": lambda h: torch.stack(h.unbind(2), 2),
}

CHOICES = [
    *(("relu", name) for name in RELUS),
    *(("other", name) for name in OTHERS),
    *(("smooth", name) for name in SMOOTH),
    *(("shape", name) for name in SHAPES),
    *(("layer", name) for name in ("residual", "checkpoint", "constant weight", "pool")),
]


class Odd(nn.Module):
    """Convolutions with odd steps between them.

    Args:
        steps: pairs of a kind and a name, of ``CHOICES``.
        plain: whether each is written plainly instead.
        relu: the plain ReLU.
        seed: of the weights.
    """

    def __init__(
        self,
        steps: Sequence[tuple[str, str]],
        seed: int,
        plain: bool = False,
        relu: Act = F.relu,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.steps, self.plain, self.relu = list(steps), plain, relu

        def drawn(*shape: int) -> nn.Parameter:
            scale = (2 / torch.Size(shape[1:] or (4,)).numel()) ** 0.5
            values = torch.randn(shape, generator=generator, dtype=torch.float64)
            return nn.Parameter(values * scale, requires_grad=False)

        self.first = drawn(4, 3, 3, 3)
        self.layers = nn.ParameterList(drawn(4, 4, 1, 1) for _ in steps)
        self.biases = nn.ParameterList(drawn(4) for _ in steps)
        self.head = drawn(3, 4 * 16)

    def step(self, h: Tensor, i: int) -> Tensor:
        kind, name = self.steps[i]
        if kind == "relu":
            return self.relu(h) if self.plain else RELUS[name](h)
        if kind == "other":
            return OTHERS[name][self.plain](h)
        if kind == "smooth":
            return SMOOTH[name](h)
        if kind == "shape":
            return h if self.plain else SHAPES[name](h)
        if name == "residual":
            if self.plain:
                return h + self.relu(h)
            out = RELUS["relu"](h)
            out += h
            return out
        if name == "checkpoint":
            function = self.relu if self.plain else F.relu
            if self.plain:
                return function(h)
            return cp.checkpoint(function, h, use_reentrant=False)
        if name == "pool":
            return F.max_pool2d(h, 3, 1, 1)
        weight = self.layers[i].abs() if self.plain else F.relu(self.layers[i]) * 2 - self.layers[i]
        return F.conv2d(h, weight)

    def forward(self, x: Tensor) -> Tensor:
        h = F.conv2d(x, self.first)
        for i in range(len(self.steps)):
            h = F.conv2d(h, self.layers[i], self.biases[i])
            h = self.step(h, i)
        return F.linear(h.flatten(1), self.head)


def has_only_relus(steps: Sequence[tuple[str, str]]) -> bool:
    """Whether no step has another kink than that of a ReLU, or of a max pooling."""
    names = ("relu6", "difference", "two rectified")
    return all(kind != "other" or name in names for kind, name in steps)


def has_kinks(steps: Sequence[tuple[str, str]]) -> bool:
    """Whether smoothing changes the network."""
    names = ("residual", "checkpoint")
    return any(kind in ("relu", "other") or name in names for kind, name in steps)
