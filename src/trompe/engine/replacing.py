"""The modes in which kinks are replaced by their smooth stand-ins while a model runs."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trompe.engine.inplace import Redirects, out_of_place
from trompe.engine.masks import FACTORIES, Memory, note
from trompe.engine.operations import Reading
from trompe.engine.pytree import tensors_in
from trompe.engine.reading import may_be_read, read
from trompe.engine.surrogates import Beta


class Owner(Protocol):
    """The smoothed model: what is smoothed, and how strongly; asked anew at every call."""

    model: nn.Module
    beta: Beta
    pooling: float
    activations: bool
    scales: tuple[float, ...]
    pooling_scales: tuple[float, ...]


class Smoothing(TorchFunctionMode):
    """While active, calls of kinked functions, from modules or plain code, are replaced."""

    def __init__(self, owner: Owner) -> None:
        super().__init__()
        self.owner = owner
        self.redirects = Redirects()
        self.memory = Memory()
        self._grad = torch.is_grad_enabled()
        self._met = 0  # activations so far, which may have a scale of beta each
        self._pooled = 0  # poolings so far, likewise

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = self.redirects.resolve((args, kwargs or {}))
        memory = self.memory
        if may_be_read(func, memory):
            (plain, a, k), overwritten = out_of_place(func, args, kwargs)
            reading = read(memory, plain, a, k)
            strength = None if reading is None else self._strength(reading)
            if reading is not None and strength is not None and self._differentiates():
                out = reading.smoothed(strength)
                if overwritten is not None:
                    self._overwrite(overwritten, out)
                    out = self.redirects.resolve(overwritten)
                self._made(func, a, k, out)
                return out
        out = func(*args, **kwargs)
        note(memory, func, args, kwargs, out)
        self._made(func, args, kwargs, out)
        return out

    def _differentiates(self) -> bool:
        """Whether this is no code of a custom autograd function, whose derivative is its own."""
        return torch.is_grad_enabled() or not self._grad

    def _strength(self, reading: Reading) -> Beta | None:
        """The beta of a kink's stand-in; ``None`` leaves it."""
        owner = self.owner
        if reading.kind == "pooling":
            if not owner.pooling:
                return None
            self._pooled += 1
            return _scaled(owner.beta * owner.pooling, owner.pooling_scales, self._pooled)
        if not owner.activations:
            return None
        self._met += 1
        return _scaled(owner.beta, owner.scales, self._met)

    def _overwrite(self, old: Tensor, new: Tensor) -> None:
        self.redirects.overwrite(old, new)

    def _made(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Called with the result of each call."""


def _scaled(beta: Beta, scales: tuple[float, ...], number: int) -> Beta:
    """The beta of the kink called as number 1, 2, ...: times its scale, where it has one."""
    return beta * scales[number - 1] if number <= len(scales) else beta


class Careful(Smoothing):
    """Also where views are changed in place, or weights pass a kink, which are not smoothed.

    Args:
        owner: the smoothed model.
        inputs: what the model is called with.
    """

    def __init__(self, owner: Owner, inputs: Any) -> None:
        super().__init__(owner)
        self._inputs = {id(tensor) for tensor in tensors_in(inputs)}
        self._constant = {
            id(t): t
            for t in (*owner.model.parameters(), *owner.model.buffers())
            if id(t) not in self._inputs
        }

    def _strength(self, reading: Reading) -> Beta | None:
        tensors = tensors_in(reading.on if reading.on else reading.args)
        if tensors and all(id(tensor) in self._constant for tensor in tensors):
            return None
        return super()._strength(reading)

    def _overwrite(self, old: Tensor, new: Tensor) -> None:
        if self.redirects.shared(old):
            self.redirects.overwrite_shared(old, new)
        else:
            self.redirects.overwrite(old, new)

    def _made(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        given = [] if func in FACTORIES else tensors_in(args, kwargs)
        constant = all(id(tensor) in self._constant for tensor in given)
        for tensor in tensors_in(out):
            self.redirects.track(tensor)
            if constant and id(tensor) not in self._inputs:
                self._constant[id(tensor)] = tensor
            elif not constant:
                self._constant.pop(id(tensor), None)
