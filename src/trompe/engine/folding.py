"""Batch norms folded into the linear operations before them, in a copy of the model.

In evaluation a batch norm is a factor and a shift per channel, which the weight and bias of a
convolution can take over: the same function, in fewer operations. An attack that differentiates a
function twice, whichever operations it is written in, saves a tenth of its step.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from trompe.engine.agreement import difference
from trompe.engine.apart import apart
from trompe.engine.calls import users_of
from trompe.engine.frozen import shared_copy
from trompe.engine.once import first_image, once
from trompe.engine.recording import record
from trompe.engine.tape import OpCall, Tape
from trompe.engine.walk import modules_of
from trompe.errors import TrompeError

_ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-4}
"""What folding may change, relative to the largest output, by type; others are left alone."""

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_FOLDING = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_LINEAR = (torch.conv1d, torch.conv2d, torch.conv3d, F.linear)

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class _Fold(NamedTuple):
    """The names of a linear module and of the batch norm that alone takes its output."""

    linear: str
    norm: str


def folded(model: nn.Module, x: Tensor) -> nn.Module:
    """The same function with each batch norm folded that may be; the model where none may.

    A batch norm is folded where it runs in evaluation mode and alone takes the output of a
    convolution or linear layer, both run once, and their weights are nobody else's. A model with
    hooks is left alone, and so is one whose folded copy differs by more than rounding.

    Args:
        model: in evaluation mode, its parameters without grad; not changed.
        x: images, [B, C, H, W], as the copy will be given; the first is looked at.
    """
    if not any(type(module) in _NORMS for module in modules_of(model)) or _hooked(model):
        return model
    folds = once(model, "folds", (x,), {}, lambda: _vouched(model, x))
    return _copy(model, folds) if folds else model


def _hooked(model: nn.Module) -> bool:
    """Whether something watches the modules, and would see other numbers, or miss a module."""
    if torch.nn.modules.module._has_any_global_hook():
        return True
    return any(getattr(module, name) for module in modules_of(model) for name in _HOOKS)


def _vouched(model: nn.Module, x: Tensor) -> tuple[_Fold, ...]:
    """The folds of a model, if the folded copy gives its outputs; else none."""
    if x.dtype not in _ROUNDING:
        return ()
    (args, _) = first_image((x.detach(),), {})
    image = args[0].clone()
    with apart(), torch.inference_mode(False), torch.enable_grad():
        try:
            tape, _ = record(model, image.clone().requires_grad_(True))
        except TrompeError:  # what has no record has no folds
            return ()
        folds = _found(model, tape)
    if not folds:
        return ()
    try:
        copy = _copy(model, folds)
        with apart(), torch.no_grad():
            for one in (image, image.flip(-1) / 2):
                if difference([copy(one.clone())], [model(one.clone())]) > _ROUNDING[x.dtype]:
                    return ()
    except Exception:  # code of the model's own that asks more of its modules than their outputs
        return ()
    return folds


def _found(model: nn.Module, tape: Tape) -> tuple[_Fold, ...]:
    """The folds that a record shows to be possible."""
    linear = _by_tensor(model, _FOLDING, "weight", subclasses=True)
    norms = _by_tensor(model, _NORMS, "running_var", subclasses=False)
    users = users_of(tape.calls)
    uses = Counter(id(value) for op in tape.calls for value in _given(op))
    makers = {id(tensor): op for op in tape.calls for tensor in op.outputs}
    found = []
    for op in tape.calls:
        if op.func is not F.batch_norm or op.argument(5, "training", False):
            continue
        source, variance = op.edges[0][0], op.argument(2, "running_var")
        maker = makers.get(id(source))
        if maker is None or maker.func not in _LINEAR or users[id(source)] != 1:
            continue
        weight = maker.argument(1, "weight")
        if maker.func is F.linear and source.dim() != 2:  # the batch norm scales the places
            continue
        if uses[id(weight)] != 1 or uses[id(variance)] != 1 or weight.dtype != variance.dtype:
            continue
        if id(weight) in linear and id(variance) in norms:
            found.append(_Fold(linear[id(weight)], norms[id(variance)]))
    return tuple(found)


def _given(op: OpCall) -> tuple[Any, ...]:
    return (*op.args, *op.kwargs.values())


def _by_tensor(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], name: str, *, subclasses: bool
) -> dict[int, str]:
    """The names of modules of some kinds by the ids of their tensors, each of one module alone."""
    named = list(model.named_modules())
    shared = Counter(
        id(tensor)
        for _, module in named
        for tensor in (*module._parameters.values(), *module._buffers.values())
    )
    found = {}
    for path, module in named:
        tensor = module._parameters.get(name, module._buffers.get(name))
        fits = isinstance(module, kinds) if subclasses else type(module) in kinds
        if fits and path and tensor is not None and shared[id(tensor)] == 1:
            found[id(tensor)] = path
    return found


def _copy(model: nn.Module, folds: tuple[_Fold, ...]) -> nn.Module:
    """A copy that shares all memory with the model but the folded weights."""
    copy = shared_copy(model)
    for fold in folds:
        linear: Any = copy.get_submodule(fold.linear)
        norm: Any = copy.get_submodule(fold.norm)
        weight, bias = fuse_conv_bn_weights(
            *(linear.weight, linear.bias, norm.running_mean, norm.running_var),
            *(norm.eps, norm.weight, norm.bias),
        )
        linear.weight, linear.bias = (
            nn.Parameter(made.detach(), requires_grad=False) for made in (weight, bias)
        )
        copy.set_submodule(fold.norm, nn.Identity())
    return copy
