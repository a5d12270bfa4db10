"""The records of activations with a kink: functions of one number, place by place, or of two."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine import surrogates as smooth
from trompe.engine.decompose import hard_sigmoid
from trompe.engine.operations import Operation
from trompe.engine.softplus import softplus

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _step(x: Tensor, *_: Any) -> Tensor:
    return (x > 0).to(x.dtype)


def _between(x: Tensor, low: float, high: float) -> Tensor:
    return ((x > low) & (x < high)).to(x.dtype)


def _scaled_exponential(x: Tensor, alpha: float, scale: float) -> Tensor:
    return scale * torch.where(x > 0, 1.0, alpha * x.clamp(max=0).exp())


def _zero(*_: Any) -> tuple[float, ...]:
    return (0.0,)


RELU = Operation(
    "relu",
    "activation",
    F.relu,
    lambda beta, x: softplus(x, beta),
    smooth=(softplus,),
    gate=_step,
    kinks=_zero,
    also=(torch.relu, Tensor.relu),
)
HARDTANH = Operation(
    "hardtanh",
    "activation",
    F.hardtanh,
    lambda beta, x, low, high: smooth.smooth_hardtanh(x, beta, low, high),
    smooth=(smooth.smooth_hardtanh,),
    gate=_between,
    kinks=lambda low, high: (low, high),
    also=(F.relu6,),
)
LOWER_BOUND = Operation(
    "lower bound",
    "activation",
    F.threshold,
    lambda beta, x, bound, *_: smooth.smooth_threshold(x, beta, bound),
    smooth=(smooth.smooth_threshold,),
    gate=lambda x, bound, *_: (x > bound).to(x.dtype),
    kinks=lambda bound, *_: (bound,),
    also=(torch.threshold, torch.clamp_min, Tensor.clamp_min),
)
UPPER_BOUND = Operation(
    "upper bound",
    "activation",
    torch.clamp_max,
    lambda beta, x, bound: smooth.smooth_upper_bound(x, beta, bound),
    smooth=(smooth.smooth_upper_bound,),
    gate=lambda x, bound: (x < bound).to(x.dtype),
    kinks=lambda bound: (bound,),
    also=(Tensor.clamp_max,),
)
LEAKY_RELU = Operation(
    "leaky relu",
    "activation",
    F.leaky_relu,
    lambda beta, x, slope: smooth.smooth_leaky_relu(x, beta, slope),
    smooth=(smooth.smooth_leaky_relu,),
    gate=lambda x, slope: torch.where(x > 0, torch.ones_like(x), slope),
    kinks=_zero,
    also=(F.rrelu, torch.rrelu),
)
PRELU = Operation(
    "prelu",
    "activation",
    F.prelu,
    lambda beta, x, slope: smooth.smooth_leaky_relu(x, beta, slope),
    smooth=(smooth.smooth_leaky_relu,),
    kinks=_zero,
    also=(torch.prelu, Tensor.prelu),
)
ELU = Operation(
    "elu",
    "activation",
    F.elu,
    lambda beta, x, alpha: smooth.smooth_elu(x, beta, alpha),
    smooth=(smooth.smooth_elu,),
    gate=lambda x, alpha: _scaled_exponential(x, alpha, 1.0),
    kinks=lambda alpha: () if alpha == 1 else (0.0,),
)
SELU = Operation(
    "selu",
    "activation",
    F.selu,
    lambda beta, x: smooth.smooth_elu(x, beta, SELU_ALPHA, SELU_SCALE),
    smooth=(smooth.smooth_elu,),
    gate=lambda x: _scaled_exponential(x, SELU_ALPHA, SELU_SCALE),
    kinks=_zero,
    also=(torch.selu,),
)
CELU = Operation(
    "celu",
    "activation",
    F.celu,
    lambda beta, x, alpha: smooth.smooth_celu(x, beta, alpha),
    smooth=(smooth.smooth_celu,),
    gate=lambda x, alpha: torch.where(x > 0, 1.0, (x.clamp(max=0) / alpha).exp()),
    kinks=lambda alpha: (),
    also=(torch.celu,),
)
HARD_SIGMOID = Operation(
    "hard sigmoid",
    "activation",
    F.hardsigmoid,
    lambda beta, x: smooth.smooth_hard_sigmoid(x, beta),
    smooth=(smooth.smooth_hard_sigmoid,),
    gate=lambda x: _between(x, -3.0, 3.0) / 6,
    kinks=lambda: (-3.0, 3.0),
    also=(hard_sigmoid,),
)
HARD_SWISH = Operation(
    "hard swish",
    "activation",
    F.hardswish,
    lambda beta, x: smooth.smooth_hard_swish(x, beta),
    smooth=(smooth.smooth_hard_swish,),
    gate=lambda x: torch.where(x < 3, _between(x, -3.0, math.inf) * (2 * x + 3) / 6, 1.0),
    kinks=lambda: (-3.0, 3.0),
)
SOFT_SHRINK = Operation(
    "soft shrinkage",
    "activation",
    F.softshrink,
    lambda beta, x, width: smooth.smooth_softshrink(x, beta, width),
    smooth=(smooth.smooth_softshrink,),
    gate=lambda x, width: (x.abs() > width).to(x.dtype),
    kinks=lambda width: (-width, width),
)
ABS = Operation(
    "abs",
    "activation",
    torch.abs,
    lambda beta, x: smooth.smooth_abs(x, beta),
    smooth=(smooth.smooth_abs,),
    gate=torch.sign,
    kinks=_zero,
    also=(torch.absolute, Tensor.abs, Tensor.absolute, Tensor.__abs__),
)
MAXIMUM = Operation(
    "maximum of two",
    "activation",
    torch.maximum,
    lambda beta, x, other: smooth.smooth_maximum(x, other, beta),
    smooth=(smooth.smooth_maximum,),
    also=(Tensor.maximum, torch.fmax, Tensor.fmax),
)
MINIMUM = Operation(
    "minimum of two",
    "activation",
    torch.minimum,
    lambda beta, x, other: smooth.smooth_minimum(x, other, beta),
    smooth=(smooth.smooth_minimum,),
    also=(Tensor.minimum, torch.fmin, Tensor.fmin),
)

ACTIVATIONS: tuple[Operation, ...] = (
    RELU,
    HARDTANH,
    LOWER_BOUND,
    UPPER_BOUND,
    LEAKY_RELU,
    PRELU,
    ELU,
    SELU,
    CELU,
    HARD_SIGMOID,
    HARD_SWISH,
    SOFT_SHRINK,
    ABS,
    MAXIMUM,
    MINIMUM,
)
"""All of them."""
