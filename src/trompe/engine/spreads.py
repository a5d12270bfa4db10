"""How far the inputs of each activation of a network spread: what beta should be measured in."""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor, nn

from trompe.engine.apart import apart, as_written, kept
from trompe.engine.decompose import decomposed
from trompe.engine.operations import Reading
from trompe.engine.pytree import tensors_in
from trompe.engine.replacing import Careful
from trompe.engine.smoothing import Smoothed
from trompe.engine.surrogates import Beta

_STEEP = 1e6  # a beta at which the stand-ins are the functions that they stand for


class _Spreads(Careful):
    """Notes the standard deviation of what each activation is given, in the order of the calls."""

    def __init__(self, owner: Smoothed, x: Tensor) -> None:
        super().__init__(owner, ((x,), {}))
        self.found: list[float] = []

    def _strength(self, reading: Reading) -> Beta | None:
        strength = super()._strength(reading)
        if strength is not None and reading.kind != "pooling":
            given = tensors_in(reading.on if reading.on else reading.args)
            self.found.append(float(given[0].detach().double().std()))
        return strength


def beta_scales(model: nn.Module, like: Tensor) -> tuple[float, ...]:
    """By what to multiply beta in each activation of a model, so that all are smoothed alike.

    ``g / s_l``, s_l the standard deviation of what activation l is given, g their geometric mean.
    Softplus of beta bends where its input is within a few 1 / beta of zero: with one beta for all,
    an activation of small inputs is bent everywhere, and one of large inputs nowhere. In networks
    with batch norms the scales are near 1.

    The model is shown noise with the spectrum of photos (amplitude 1 / f) and not the images, so
    that what becomes of one image does not depend on those beside it.

    Args:
        model: not changed.
        like: images of the shape, type and device that it takes, normalised, [B, C, ...].

    Returns:
        A factor per activation, in the order in which they are called; empty, so that beta is the
        same in all, if there is none, the inputs of one do not spread, or the model refuses noise.
    """
    x = pink_noise(like)
    mode = _Spreads(Smoothed(model, _STEEP), x)
    plainly = apart(), torch.inference_mode(False), torch.enable_grad()
    with contextlib.ExitStack() as stack:
        for context in (*plainly, kept(), as_written(), decomposed(), mode):
            stack.enter_context(context)
        try:
            model(x)
        except Exception:  # it takes images of some range only: it has answered those attacked
            return ()
    spreads = mode.found
    if not spreads or not all(0 < spread < math.inf for spread in spreads):
        return ()
    middle = math.exp(sum(map(math.log, spreads)) / len(spreads))
    return tuple(middle / spread for spread in spreads)


def pink_noise(like: Tensor, count: int = 2) -> Tensor:
    """Noise whose amplitude falls as 1 / f, as that of photos does (Field 1987).

    Args:
        like: images of the shape, type and device, [B, C, ...].
        count: of the images.

    Returns:
        Images of mean 0 and standard deviation 1, [count, C, ...], always the same.
    """
    sides = like.shape[2:]
    shape = (count, *like.shape[1:])
    white = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    if not sides:
        return white.to(like)
    square = torch.zeros(sides)
    for axis, side in enumerate(sides):
        along = [-1 if other == axis else 1 for other in range(len(sides))]
        square = square + torch.fft.fftfreq(side).square().view(along)
    frequency = square.sqrt().clamp_min(1 / max(sides))
    axes = tuple(range(2, len(shape)))
    noise = torch.fft.ifftn(torch.fft.fftn(white, dim=axes) / frequency, dim=axes).real
    flat = noise.flatten(1)
    flat = (flat - flat.mean(dim=1, keepdim=True)) / flat.std(dim=1, keepdim=True)
    return flat.view(shape).to(like)
