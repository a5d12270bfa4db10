"""Reading a network off the record of one forward pass; what is not covered is refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from trompe.certificates.gates import Gate, LogSumExp, Maximum, Relu, Softplus
from trompe.certificates.linear_maps import Conv, Dense, LinearMap, Move, Scale
from trompe.certificates.network import Network
from trompe.engine import OpCall, frozen, record
from trompe.engine.pooling import _geometry, _split, smooth_max_pool2d
from trompe.engine.softplus import softplus
from trompe.errors import CertificateError

_RELU = {F.relu, torch.relu, Tensor.relu}
_CLAMP = {torch.clamp_min, Tensor.clamp_min, torch.clamp, Tensor.clamp}
_RESHAPE = {torch.flatten, torch.reshape, Tensor.flatten, Tensor.reshape, Tensor.view}
_SAME = {F.dropout, F.dropout2d, torch.dropout, nn.Identity.forward}
_SAME |= {Tensor.contiguous, torch.clone, Tensor.clone, Tensor.double, Tensor.float, Tensor.to}
_MOVES = {
    *(torch.permute, Tensor.permute, torch.transpose, Tensor.transpose, torch.squeeze),
    *(Tensor.squeeze, torch.unsqueeze, Tensor.unsqueeze, torch.cat, torch.concat),
    *(torch.chunk, torch.split, Tensor.chunk, Tensor.split, Tensor.__getitem__, F.pad),
    *(torch.mean, Tensor.mean, torch.sum, Tensor.sum, F.avg_pool2d, F.adaptive_avg_pool2d),
    *(torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__),
}
_SIGNED = {
    *(torch.sub, Tensor.sub, Tensor.__sub__, Tensor.__rsub__, torch.neg, Tensor.neg),
    *(torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.div, Tensor.div),
    *(Tensor.__truediv__, Tensor.__neg__, F.batch_norm),
}


def trace(model: nn.Module, x: Tensor) -> Network:
    """Read the network that ``model`` is off its run on x [1, ...], in float64.

    Raises:
        CertificateError: names the first operation that is not covered, or says that the model
            does not run in float64.
    """
    double = copy.deepcopy(frozen(model)).double().cpu()
    point = x.detach().double().cpu().clone().requires_grad_(True)
    with torch.inference_mode(False), torch.enable_grad():
        try:
            tape, logits = record(double, point, locate=True)
        except RuntimeError as error:
            raise CertificateError(
                f"the model does not run in float64, in which proofs are computed "
                f"({str(error).splitlines()[0]}): give the network itself, a module whose weights "
                "can be converted, not a function around it; method='noise' takes any"
            ) from error
    network = Network()
    known = {id(point): network.add((), name="input")}
    with torch.no_grad():
        for call in tape.calls:
            _read(network, known, call)
        if id(logits) not in known:
            raise CertificateError("the logits are not an output of a recorded operation")
        if known[id(logits)] != len(network.nodes) - 1:
            network.add((known[id(logits)],), name="logits")
        _verify(network, double, point.detach())
    return network


def _verify(network: Network, model: nn.Module, x: Tensor) -> None:
    """The record must be the model at other inputs too: no control flow may depend on x."""
    generator = torch.Generator().manual_seed(0)
    for size in (0.0, 1e-3, 1e-1, 1.0, 10.0):
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        point = x + size * noise
        expected, found = model(point.clone()), network.values(point)[-1]
        scale = float(expected.abs().max()) + 1e-12
        if expected.shape != found.shape or float((expected - found).abs().max()) > 1e-7 * scale:
            raise CertificateError(
                "the model does not repeat on other inputs the operations recorded on this one: "
                "its control flow, or a detached value, depends on the input"
            )


def _rerun(call: OpCall, inputs: dict[int, Tensor]) -> Any:
    """The operation with its aliases (by id) replaced."""
    args, kwargs = tree_map_only(Tensor, lambda t: inputs.get(id(t), t), (call.args, call.kwargs))
    return call.func(*args, **kwargs)


def _refuse(call: OpCall, why: str = "has no certified bounds") -> CertificateError:
    return CertificateError(
        f"operation '{call.name}' at {call.place or 'an unknown place'} {why}: certify a "
        "network of convolutions, linear layers, (smoothed) ReLU, pooling, batch norm and sums, or "
        "bound its SmoothGrad (method='smoothgrad'), which needs nothing of the network"
    )


def _read(network: Network, known: dict[int, int], call: OpCall) -> None:
    parents = [known[id(tensor)] for tensor, _ in call.edges]
    aliases = [alias for _, alias in call.edges]
    if any(alias.dtype != torch.float64 for alias in aliases) or not aliases[0].shape[:1] == (1,):
        raise _refuse(call, "changes the type, or has no batch axis first")
    gate = _gate(call)
    if gate is not None:
        source = parents[0]
        if gate.windowed:
            source = _windows(network, source, call)
        if len(parents) != 1:
            raise _refuse(call)
        known[id(call.out)] = network.add((source,), gate, name=call.name)
        return
    if call.func in _SAME:
        if call.argument(2, "training", False) and call.func in {F.dropout, F.dropout2d}:
            raise _refuse(call, "is random")
        known[id(call.out)] = parents[0]
        return
    for number, out in enumerate(call.outputs):
        known[id(out)] = _affine(network, parents, aliases, call, number, out)


def _gate(call: OpCall) -> Gate | None:
    func = call.func
    if func in _RELU:
        return Relu()
    if func in _CLAMP:
        low = call.argument(1, "min")
        if isinstance(low, Tensor) or low != 0 or call.argument(2, "max") is not None:
            raise _refuse(call, "clamps to other bounds than (0, None)")
        return Relu()
    if func is softplus:
        return Softplus(float(call.argument(1, "beta")))
    if func in (F.softplus, torch._C._nn.softplus):
        # Beyond the threshold PyTorch's is linear: off by exp(-threshold) (see Certificate).
        if float(call.argument(2, "threshold", 20)) < 20:
            raise _refuse(call, "with a threshold below 20")
        return Softplus(float(call.argument(1, "beta", 1)))
    if func is smooth_max_pool2d:
        return LogSumExp(float(call.argument(1, "beta")))
    if func in (F.max_pool2d, torch.max_pool2d, torch._C._nn.max_pool2d_with_indices):
        if len(call.outputs) != 1 or call.argument(6, "return_indices", False):
            raise _refuse(call, "returns indices")
        return Maximum()
    return None


def _windows(network: Network, parent: int, call: OpCall) -> int:
    """The windows of a pool as a node [B, window, C, OH, OW], padding at -inf."""
    (alias,) = (alias for _, alias in call.edges)
    if alias.dim() != 4:
        raise _refuse(call, "needs [B, C, H, W]")
    first = 2 if call.func is smooth_max_pool2d else 1
    geometry = _geometry(
        alias,
        kernel_size=call.argument(first, "kernel_size"),
        stride=call.argument(first + 1, "stride"),
        padding=call.argument(first + 2, "padding", 0),
        dilation=call.argument(first + 3, "dilation", 1),
        ceil_mode=call.argument(first + 4, "ceil_mode", False),
    )

    def split(x: Tensor) -> Tensor:
        return _split(x, geometry, 0.0).movedim(0, 1)

    blank = _split(torch.zeros_like(alias), geometry, -torch.inf).movedim(0, 1)
    part = Move(split, alias.shape[1:])
    shift = blank if bool(blank.isinf().any()) else None
    return network.add((parent,), part, shift, name=call.name)


def _affine(
    network: Network,
    parents: list[int],
    aliases: list[Tensor],
    call: OpCall,
    number: int,
    out: Tensor,
) -> int:
    """The node of one output of an operation that is affine in its inputs."""
    zeros = {id(alias): torch.zeros_like(alias) for alias in aliases}
    shapes = [alias.shape[1:] for alias in aliases]

    def run(position: int, x: Tensor) -> Tensor:
        blank = {id(a): a.new_zeros(x.shape[0], *a.shape[1:]) for a in aliases}
        result = _rerun(call, {**blank, id(aliases[position]): x})
        return result if isinstance(result, Tensor) else result[number]

    try:
        shift: Tensor = run(0, zeros[id(aliases[0])])
        if call.func is F.linear and len(parents) == 1:
            weight = call.argument(1, "weight")
            if id(weight) in zeros:
                raise _refuse(call, "multiplies by a value that depends on the input")
            return _added(network, parents[0], Dense(weight.detach(), shapes[0]), shift, call)
        if call.func is torch.conv2d and len(parents) == 1:
            return _added(network, parents[0], _convolution(call, shapes[0]), shift, call)
        if call.func in _RESHAPE:
            shape = out.shape[1:]
            if out.shape[0] != 1:
                raise _refuse(call, "moves the batch axis")
            part = Move(lambda x: x.reshape(x.shape[0], *shape), shapes[0])
            return _added(network, parents[0], part, shift, call)
        if call.func in _SIGNED or (call.func in _MOVES and _weighted(call)):
            if len(parents) > 1 and call.func not in _DIFFERENCES:
                raise _refuse(call, "multiplies two values that depend on the input")
            if call.func is F.batch_norm and call.argument(5, "training", False):
                raise _refuse(call, "in training mode mixes the images of a batch")
            parts: list[LinearMap] = []
            for position, shape in enumerate(shapes):
                ones = torch.ones(1, *shape, dtype=torch.float64)
                factor = (run(position, ones) - shift)[0]
                if factor.shape != shape:
                    raise _refuse(call, "broadcasts")
                parts.append(Scale(factor, shape))
            return _summed(network, parents, parts, shift, call)
        if call.func in _MOVES:
            moved: list[LinearMap] = [
                Move(_piece(run, position, shift), shape) for position, shape in enumerate(shapes)
            ]
            pair = run(0, torch.zeros(2, *shapes[0], dtype=torch.float64))
            if out.dim() == 0 or out.shape[0] != 1 or pair.shape[0] != 2:
                raise _refuse(call, "mixes the images of a batch")
            return _summed(network, parents, moved, shift, call)
    except (RuntimeError, TypeError) as error:
        raise _refuse(call, f"cannot be run again ({error})") from error
    raise _refuse(call)


_DIFFERENCES = {torch.sub, Tensor.sub, Tensor.__sub__, Tensor.__rsub__}
_DIFFERENCES |= {torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__}


def _weighted(call: OpCall) -> bool:
    return call.kwargs.get("alpha", 1) != 1


def _piece(
    run: Callable[[int, Tensor], Tensor], position: int, shift: Tensor
) -> Callable[[Tensor], Tensor]:
    return lambda x: run(position, x) - shift


def _convolution(call: OpCall, shape: torch.Size) -> Conv:
    def pair(value: Any) -> tuple[int, int]:
        if isinstance(value, str):
            raise _refuse(call, "has its padding given by name: give numbers")
        values = [value] if isinstance(value, int) else list(value)
        return (int(values[0]), int(values[-1]))

    settings = {
        "stride": pair(call.argument(3, "stride", 1)),
        "padding": pair(call.argument(4, "padding", 0)),
        "dilation": pair(call.argument(5, "dilation", 1)),
        "groups": int(call.argument(6, "groups", 1)),
    }
    return Conv(call.argument(1, "weight").detach(), shape, settings)


def _added(network: Network, parent: int, part: LinearMap, shift: Tensor, call: OpCall) -> int:
    return network.add((parent,), part, shift if bool(shift.any()) else None, name=call.name)


def _summed(
    network: Network, parents: list[int], parts: list[LinearMap], shift: Tensor, call: OpCall
) -> int:
    if len(parts) == 1:
        return _added(network, parents[0], parts[0], shift, call)
    images = [
        network.add((parent,), part, name=call.name)
        for parent, part in zip(parents, parts, strict=True)
    ]
    return network.add(tuple(images), None, shift if bool(shift.any()) else None, name=call.name)
