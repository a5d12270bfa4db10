"""The network linearised at one image: exact Jacobians between its gates, by their norms.

Every gate is replaced by its derivative at x. Of the Jacobian of a gate's argument by the image,
and by the output of every earlier gate, the norm of each row is computed exactly (in batches of
rows; those of distant places in one sweep), and from rows and columns an upper bound of its
spectral norm. Nothing depends on a radius: what is made once serves all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from trompe.certificates.gates import Gate, Range
from trompe.certificates.jacobian_norms import Curvature, Jacobian
from trompe.certificates.linear_maps import LinearMap, Move
from trompe.certificates.linear_sweep import PointHessian, Sweep
from trompe.certificates.network import Network
from trompe.certificates.upper import WIDEN

_FLOOR = 1e-3
"""Every weight of a gate is at least this share of its largest: quotients stay bounded."""


@dataclass
class Linearised:
    """All Jacobians between gates, and the derivative of the score by every gate's output.

    Args:
        slopes: of every gate, at its computed argument.
        jacobians: per gate, by source: 0 is the image, others are gates.
        pulls: at least the magnitude of the score's derivative by the gate's output, [1, ...].
        gradient: of the score by the image, [1, ...], as computed.
        noise: at least its rounding error, entry by entry.
        weights: per gate, ``curbs`` of its second derivative at x times the magnitude of its pull,
            of the argument's shape.
        origins: per gate, the gate whose argument its weights are pulled back to: its own, or the
            one it pools.
        curvatures: by origin.
        uncertain: per gate, at least the rounding error of its pull.
        hessian: of the score at x, where every gate has an origin.
    """

    slopes: dict[int, Tensor]
    jacobians: dict[int, dict[int, Jacobian]] = field(default_factory=dict)
    pulls: dict[int, Tensor] = field(default_factory=dict)
    gradient: Tensor = field(default_factory=lambda: torch.zeros(0))
    noise: Tensor = field(default_factory=lambda: torch.zeros(0))
    weights: dict[int, Tensor] = field(default_factory=dict)
    origins: dict[int, int] = field(default_factory=dict)
    curvatures: dict[int, Curvature] = field(default_factory=dict)
    uncertain: dict[int, Tensor] = field(default_factory=dict)
    hessian: PointHessian | None = None


def linearise(network: Network, values: list[Tensor], target: int) -> Linearised:
    """Linearise at x; see the module.

    Args:
        network: as traced.
        values: of its nodes at x, [1, ...].
        target: index of the logit.
    """
    slopes = {
        number: node.part.slope(values[node.parents[0]])
        for number, node in enumerate(network.nodes)
        if isinstance(node.part, Gate)
    }
    out = Linearised(slopes)
    sweep = Sweep(network, slopes)
    seed = torch.zeros_like(values[-1])
    seed[0, target] = 1.0
    last = len(network.nodes) - 1
    sizes = sweep.pull(last, seed, magnitude=True)
    nothing = torch.zeros_like(values[0])
    out.gradient, out.noise = nothing, nothing
    signed = sweep.pull(last, seed)
    for number, pull in signed.items():
        noise = sweep.relative * sizes[number]
        if number == 0:
            out.gradient, out.noise = pull, noise
        else:
            out.pulls[number] = WIDEN * pull.abs() + noise
            out.uncertain[number] = noise
    weights = _weights(network, values, out)
    for number in slopes:
        before = network.nodes[number].parents[0]
        origin = _selects(network, before)
        if origin is None:
            weight = weights.get(number)
            out.jacobians[number], curvature = sweep.jacobians(before, values, weight)
            if curvature is not None:
                out.curvatures[number] = curvature
        else:
            out.jacobians[number] = _selection(network, before, slopes, origin, out.jacobians)
    if all(out.origins.get(number) in out.curvatures for number in out.pulls):
        out.hessian = sweep.hessian(values, signed, out.curvatures)
    return out


def _weights(network: Network, values: list[Tensor], out: Linearised) -> dict[int, Tensor]:
    """Note the weights of all gates; those of each origin added up."""
    total: dict[int, Tensor] = {}
    for number, pull in sorted(out.pulls.items()):
        node = network.nodes[number]
        gate, before = node.part, node.parents[0]
        assert isinstance(gate, Gate)
        z = values[before]
        weight = gate.curbs(Range(z, z)) * gate.spread(pull)
        weight = torch.where(gate.spread(pull) > 0, weight, 0.0)
        if not bool(weight.isfinite().all()):
            continue
        weight = weight + _FLOOR * weight.max()
        origin, pulled = _selects(network, before), weight
        if origin is None:
            origin = number
        else:
            first, part = network.nodes[origin], network.nodes[before].part
            assert isinstance(first.part, Gate)
            assert isinstance(part, LinearMap)
            if first.part.windowed or _selects(network, first.parents[0]) is not None:
                continue
            # Of a selection P and slopes D: (P D)^T C P D is the diagonal D^2 P^T C.
            pulled = WIDEN * part.transpose(weight) * out.slopes[origin].square()
        out.weights[number], out.origins[number] = weight, origin
        total[origin] = total[origin] + pulled if origin in total else pulled
    return total


def cost(network: Network, values: list[Tensor]) -> int:
    """How many numbers the sweeps of ``linearise`` go through, about."""
    total = through = 0
    for number, node in enumerate(network.nodes):
        through += values[number].numel()
        if isinstance(node.part, Gate) and _selects(network, node.parents[0]) is None:
            total += values[node.parents[0]].numel() * through
    return total + 2 * values[0].numel() * through


def _selects(network: Network, before: int) -> int | None:
    """The gate whose output's entries node ``before`` only selects, if that is what it does."""
    node = network.nodes[before]
    if not isinstance(node.part, Move) or len(node.parents) != 1:
        return None
    if not isinstance(network.nodes[node.parents[0]].part, Gate):
        return None
    generator = torch.Generator().manual_seed(0)
    shape = (1, *node.part.in_shape)
    probe = 1 + torch.rand(shape, generator=generator, dtype=torch.float64)
    image = node.part.apply(probe)
    return node.parents[0] if bool(torch.isin(image[image != 0], probe).all()) else None


def _selection(
    network: Network,
    before: int,
    slopes: dict[int, Tensor],
    origin: int,
    known: dict[int, dict[int, Jacobian]],
) -> dict[int, Jacobian]:
    """The Jacobians of a selection of a gate's outputs, from those of the gate's argument."""
    part, gate, slope = network.nodes[before].part, network.nodes[origin].part, slopes[origin]
    assert isinstance(part, LinearMap)
    assert isinstance(gate, Gate)
    gain = WIDEN * gate.gain(Range(slope, slope))
    found = {}
    for source, jacobian in known[origin].items():
        found[source] = Jacobian(
            WIDEN * part.apply(gate.gather(slope * jacobian.rows)),
            WIDEN * part.apply(gate.gather(slope * jacobian.sums)),
            part.norm * gain * jacobian.columns,
            part.norm * gain * jacobian.norm,
        )
    ones = torch.ones(1, *part.in_shape, dtype=torch.float64)
    picked = part.apply(ones)
    found[origin] = Jacobian(picked, picked, part.transpose(picked).sqrt() * WIDEN, part.norm)
    return found
