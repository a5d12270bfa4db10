"""How far the inputs of each activation of a network spread: what beta should be measured in."""

from __future__ import annotations

import contextlib
import math
from typing import NamedTuple

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
    """Notes the standard deviation of what each kink is given, in the order of the calls."""

    def __init__(self, owner: Smoothed, x: Tensor) -> None:
        super().__init__(owner, ((x,), {}))
        self.activations: list[float] = []
        self.poolings: list[float] = []

    def _strength(self, reading: Reading) -> Beta | None:
        strength = super()._strength(reading)
        if strength is not None:
            given = tensors_in(reading.on if reading.on else reading.args)
            found = self.poolings if reading.kind == "pooling" else self.activations
            found.append(float(given[0].detach().double().std()))
        return strength


class Spreads(NamedTuple):
    """The standard deviations that beta is measured in, in the order of the calls.

    Args:
        activations: of what each activation is given; empty if one has none, or none is known.
        poolings: of what each max pooling is given.
    """

    activations: tuple[float, ...] = ()
    poolings: tuple[float, ...] = ()

    @property
    def scales(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What multiplies a beta measured in spreads: in the activations, in the poolings."""
        return tuple(1 / s for s in self.activations), tuple(1 / s for s in self.poolings)


def spreads(model: nn.Module, like: Tensor) -> Spreads:
    """How far what is given to the activations and the poolings of a model spreads.

    Softplus of beta bends where its input is within a few 1 / beta of zero: with one beta for all,
    an activation of small inputs is bent everywhere, and one of large inputs nowhere. Measured in
    spreads, a beta means the same in each layer and each network; one with batch norms has spreads
    near 1.

    The model is shown noise with the spectrum of photos (amplitude 1 / f) and not the images, so
    that what becomes of one image does not depend on those beside it.

    Args:
        model: not changed.
        like: images of the shape, type and device that it takes, normalised, [B, C, ...].

    Returns:
        The spreads; none, so that beta is the same in all layers, if no activation is called, the
        inputs of one do not spread, or the model refuses noise.
    """
    x = pink_noise(like)
    mode = _Spreads(Smoothed(model, _STEEP, pooling=1.0), x)
    plainly = apart(), torch.inference_mode(False), torch.enable_grad()
    with contextlib.ExitStack() as stack:
        for context in (*plainly, kept(), as_written(), decomposed(), mode):
            stack.enter_context(context)
        try:
            model(x)
        except Exception:  # it takes images of some range only: it has answered those attacked
            return Spreads()
    found = Spreads(tuple(mode.activations), tuple(mode.poolings))
    every = (*found.activations, *found.poolings)
    known = bool(found.activations) and all(0 < spread < math.inf for spread in every)
    return found if known else Spreads()


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
