"""The network linearised at one image: exact Jacobians between its gates, by their norms.

Every gate is replaced by its derivative at x. Of the Jacobian of a gate's argument by the image,
and by the output of every earlier gate, the norm of each row is computed exactly (in batches of
rows; those of distant places in one sweep), and from rows and columns an upper bound of its
spectral norm. Nothing depends on a radius: what is made once serves all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trompe.geometry.forward import EPS
from trompe.geometry.gates import Gate, Range
from trompe.geometry.maps import WIDEN, Conv, Dense, LinearMap, Move
from trompe.geometry.network import Network

_ENTRIES = 2**22
"""So many numbers a batch of rows may hold in one layer."""
_DECOMPOSED = 3072
"""Gram matrices of at most so many rows are decomposed."""
_FLOOR = 1e-3
"""Every weight of a gate is at least this share of its largest: quotients stay bounded."""
_HELD = 2**25 + 2**23
"""A Jacobian of at most so many entries is held, and its norm is that of its Gram matrix."""


@dataclass
class Jacobian:
    """Norms of the Jacobian of a gate's argument by the image, or by an earlier gate's output.

    Args:
        rows: at least the l2 norm of each row, of the argument's shape, [1, ...].
        sums: at least the l1 norm of each row, likewise.
        columns: at least the l2 norm of each column, of the source's shape, [1, ...].
        norm: at least the spectral norm.
    """

    rows: Tensor
    sums: Tensor
    columns: Tensor
    norm: float


@dataclass
class Curvature:
    """Bounds of ``J^T C J`` for the Jacobian J of a gate's argument by the image.

    C is the diagonal of that gate's weights, and of those of the pools over its output.

    Args:
        norm: at least the spectral norm.
        columns: at least the l2 norm of each column of ``C^(1/2) J``, of the image's shape.
        magnitude: at least the norm of ``M^T C M``, M with every path counted as positive.
    """

    norm: float
    columns: Tensor
    magnitude: float


@dataclass
class Hessian:
    """Bounds of the score's second derivative at x.

    Args:
        norm: at least the spectral norm.
        rows: at least the l2 norm of each row, of the image's shape, [1, ...].
    """

    norm: float
    rows: Tensor


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
    hessian: Hessian | None = None


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
    sweep = _Sweep(network, slopes)
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


def _terms(part: LinearMap) -> int:
    """Products added up in one output of a layer or of its transpose, for the rounding error."""
    if isinstance(part, (Dense, Conv)):
        return max(part.terms, part.weight.shape[0] * part.weight[0, :1].numel())
    return max(part.terms, 64)


class _Sweep:
    """The linearised network, forward and backward, in batches.

    Args:
        network: as traced.
        slopes: of its gates.
    """

    def __init__(self, network: Network, slopes: dict[int, Tensor]) -> None:
        self.network, self.slopes = network, slopes
        self.relative = EPS * sum(
            _terms(node.part) + 8 if isinstance(node.part, LinearMap) else 8
            for node in network.nodes
        )

    def pull(self, last: int, seed: Tensor, magnitude: bool = False) -> dict[int, Tensor]:
        """The derivatives of ``seed . node last`` by the image and by every gate's output before.

        With ``magnitude`` every term of the sums over paths counts as positive.
        """
        pulls, found = {last: seed}, {}
        for number in range(last, -1, -1):
            pull = pulls.pop(number, None)
            if pull is None:
                continue
            node = self.network.nodes[number]
            if isinstance(node.part, Gate) or not node.parents:
                found[number] = pull
            if isinstance(node.part, Gate):
                pull = self.slopes[number] * node.part.spread(pull)
            elif isinstance(node.part, LinearMap):
                part = node.part.magnitude if magnitude else node.part
                pull = part.transpose(pull)
            for parent in node.parents:
                pulls[parent] = pulls[parent] + pull if parent in pulls else pull
        return found

    def push(self, source: int, x: Tensor, last: int, magnitude: bool = False) -> Tensor:
        """The change of node ``last`` when the output of ``source`` changes by x, to first order.

        The source must be before it.
        """
        pushed = {source: x}
        for number in range(source + 1, last + 1):
            node = self.network.nodes[number]
            reached = [pushed[parent] for parent in node.parents if parent in pushed]
            if not reached:
                continue
            value = reached[0]
            for other in reached[1:]:
                value = value + other
            if isinstance(node.part, Gate):
                value = node.part.gather(self.slopes[number] * value)
            elif isinstance(node.part, LinearMap):
                value = (node.part.magnitude if magnitude else node.part).apply(value)
            pushed[number] = value
        return pushed[last]

    def hessian(
        self, values: list[Tensor], pulls: dict[int, Tensor], curvatures: dict[int, Curvature]
    ) -> Hessian:
        """The Hessian ``sum_l J_l^T W_l J_l`` at x, column by column; W_l as computed.

        Args:
            values: of the nodes at x.
            pulls: the derivative of the score by every gate's output.
            curvatures: of all gates, for the rounding error.
        """
        shape, size = values[0].shape[1:], values[0].numel()
        batch = max(1, _ENTRIES // max(value.numel() for value in values))
        columns = []
        for first in range(0, size, batch):
            count = min(batch, size - first)
            seed = torch.zeros(count, size, dtype=torch.float64)
            seed[torch.arange(count), first + torch.arange(count)] = 1.0
            columns.append(self._bent(values, pulls, seed.view(count, *shape)).flatten(1))
        matrix = torch.cat(columns)
        matrix = (matrix + matrix.mT) / 2
        error = 16 * self.relative * sum(found.magnitude for found in curvatures.values())
        rows = WIDEN * matrix.norm(dim=1).view_as(values[0]) + error
        return Hessian(WIDEN * symmetric_norm(matrix) + error, rows)

    def _bent(self, values: list[Tensor], pulls: dict[int, Tensor], seed: Tensor) -> Tensor:
        """The Hessian times each of the seeds [B, ...]: forward, bent at the gates, backward."""
        nodes = self.network.nodes
        pushed, bent = [seed], {}
        for number, node in enumerate(nodes[1:], start=1):
            value = pushed[node.parents[0]]
            for other in node.parents[1:]:
                value = value + pushed[other]
            if isinstance(node.part, Gate):
                if number in pulls:
                    turned = node.part.turn(values[node.parents[0]], value)
                    bent[number] = turned * node.part.spread(pulls[number])
                value = node.part.gather(self.slopes[number] * value)
            elif isinstance(node.part, LinearMap):
                value = node.part.apply(value)
            pushed.append(value)
        back: dict[int, Tensor] = {}
        for number in range(len(nodes) - 1, 0, -1):
            node, pull = nodes[number], back.pop(number, None)
            if isinstance(node.part, Gate):
                if pull is not None:
                    pull = self.slopes[number] * node.part.spread(pull)
                if number in bent:
                    pull = bent[number] if pull is None else pull + bent[number]
            elif isinstance(node.part, LinearMap) and pull is not None:
                pull = node.part.transpose(pull)
            if pull is not None:
                for parent in node.parents:
                    back[parent] = back[parent] + pull if parent in back else pull
        return back.get(0, torch.zeros_like(seed))

    def jacobians(
        self, last: int, values: list[Tensor], weight: Tensor | None = None
    ) -> tuple[dict[int, Jacobian], Curvature | None]:
        """The Jacobians of node ``last`` by the image and by the outputs of the gates before.

        With a weight of each entry of the node, [1, ...], also the curvature it makes.
        """
        shape = values[last].shape[1:]
        size = math.prod(shape)
        ones = torch.ones(1, *shape, dtype=torch.float64)
        sources = self.pull(last, ones, magnitude=True)
        sums = {source: _Sums(size, total) for source, total in sources.items()}
        if weight is not None and 0 in sums:
            sums[0].weigh(weight.flatten())
        groups = self._apart(last, shape) if len(shape) == 3 else []
        if len(groups) < math.prod(shape[1:]) / 2 and groups:
            self._in_groups(last, shape, groups, sums)
        else:
            widest = max(value.numel() for value in values[: last + 1])
            batch = max(1, min(size, _ENTRIES // widest))
            for first in range(0, size, batch):
                count = min(batch, size - first)
                seed = torch.zeros(count, size, dtype=torch.float64)
                seed[torch.arange(count), first + torch.arange(count)] = 1.0
                for source, rows in self.pull(last, seed.view(count, *shape)).items():
                    known = sums[source]
                    known.add(first, rows.flatten(1))
                    if source == 0 and known.held is None:
                        known.add_gram(first, self.push(0, rows, last).flatten(1))
        found, curvature = {}, None
        for source, known in sums.items():
            start = torch.ones(1, *known.shape, dtype=torch.float64)
            reach = self.push(source, start, last, magnitude=True)
            found[source] = known.jacobian(reach, sources[source], self.relative)
            if known.weight is not None:
                curvature = known.curvature(reach, sources[source], self.relative)
        return found, curvature

    def _apart(self, last: int, shape: torch.Size) -> list[dict[int, Tensor]]:
        """Groups of places of a node [C, H, W] that depend on different places of every source.

        Of each group: by source, and of the node itself (key -1), a map of places [H, W] to the
        numbers of the group's members, -1 where none depends on it. Empty where a source has no
        places.
        """
        places = shape[1] * shape[2]
        seed = torch.eye(places, dtype=torch.float64).view(places, 1, *shape[1:])
        masks: dict[int, Tensor] = {}
        parts: dict[int, list[Tensor]] = {}
        for some in seed.split(64):
            pulls = self.pull(last, some.expand(-1, *shape), magnitude=True)
            for source, pull in pulls.items():
                if pull.dim() != 4:
                    return []
                parts.setdefault(source, []).append((pull != 0).any(dim=1))
        masks = {source: torch.cat(some) for source, some in parts.items()}
        clash = torch.zeros(places, places, dtype=torch.bool)
        for mask in masks.values():
            flat = mask.flatten(1).float()
            clash |= flat @ flat.mT > 0
        groups: list[list[int]] = []
        for place in range(places):
            for members in groups:
                if not bool(clash[place, members].any()):
                    members.append(place)
                    break
            else:
                groups.append([place])
        maps = []
        for members in groups:
            labels = {-1: torch.full((places,), -1)}
            labels[-1][members] = torch.arange(len(members))
            for source, mask in masks.items():
                label = torch.full(mask.shape[1:], -1)
                for index, place in enumerate(members):
                    label[mask[place]] = index
                labels[source] = label
            maps.append(labels)
        return maps

    def _in_groups(
        self,
        last: int,
        shape: torch.Size,
        groups: list[dict[int, Tensor]],
        sums: dict[int, _Sums],
    ) -> None:
        """Add up the rows of a node [C, H, W], those of a group's places in one sweep."""
        channels = shape[0]
        for labels in groups:
            member = labels[-1]
            place = (member >= 0).nonzero().flatten()
            seed = torch.zeros(channels, channels, member.numel(), dtype=torch.float64)
            seed[torch.arange(channels), torch.arange(channels)] = (member >= 0).double()
            number = torch.arange(channels)[:, None] * member.numel() + place
            for source, rows in self.pull(last, seed.view(channels, *shape)).items():
                sums[source].add_merged(number, rows, labels[source], len(place))


class _Sums:
    """What is added up over the rows of one Jacobian.

    Args:
        size: number of rows.
        like: of the source's shape, [1, ...].
    """

    def __init__(self, size: int, like: Tensor) -> None:
        self.shape = like.shape[1:]
        self.rows = torch.zeros(size, dtype=torch.float64)
        self.sums = torch.zeros_like(self.rows)
        self.squares = torch.zeros(like.numel(), dtype=torch.float64)
        self.magnitudes = torch.zeros_like(self.squares)
        fits = size * like.numel() <= _HELD
        self.held = torch.zeros(size, like.numel(), dtype=torch.float64) if fits else None
        self.gram_sum = self.gram_square = 0.0
        self.weight: Tensor | None = None

    def weigh(self, weight: Tensor) -> None:
        """Add up ``J^T C J`` too; the diagonal of C, [rows]."""
        self.weight = weight
        self.weighted_squares = torch.zeros_like(self.squares)
        self.weighted_sums = torch.zeros_like(self.squares)
        self.weighted_gram_sum = self.weighted_gram_square = 0.0

    def add(self, first: int, rows: Tensor) -> None:
        """Rows [count, source] from number ``first`` on."""
        part = slice(first, first + len(rows))
        self.rows[part] = rows.norm(dim=1)
        sizes = rows.abs()
        self.sums[part] = sizes.sum(dim=1)
        self.magnitudes += sizes.sum(dim=0)
        self.squares += rows.square().sum(dim=0)
        if self.held is not None:
            self.held[part] = rows
        if self.weight is not None:
            weight = self.weight[part]
            self.weighted_squares += weight @ rows.square()
            self.weighted_sums += (weight * self.sums[part]) @ sizes

    def add_merged(self, number: Tensor, rows: Tensor, label: Tensor, count: int) -> None:
        """Sums of rows [channels, *source] with nothing in common, told apart by a map of places.

        Args:
            number: of each row, [channels, count].
            rows: those of one channel in one sum.
            label: to which of the ``count`` rows a place belongs, [H, W].
            count: of rows in a sum.
        """
        inside = label.flatten() >= 0
        index = label.flatten()[inside].expand(len(rows), -1)
        places = rows.flatten(2)[:, :, inside]
        blank = torch.zeros(len(rows), count, dtype=torch.float64)
        squares = blank.scatter_add(1, index, places.square().sum(dim=1))
        sizes = blank.scatter_add(1, index, places.abs().sum(dim=1))
        self.rows[number.flatten()] = squares.sqrt().flatten()
        self.sums[number.flatten()] = sizes.flatten()
        self.magnitudes += rows.abs().sum(dim=0).flatten()
        self.squares += rows.square().sum(dim=0).flatten()
        self.held = None
        if self.weight is not None:
            weight = self.weight[number.flatten()].view(len(rows), count)
            self.weighted_squares[:] += _merged(places.square(), weight, index, inside)
            self.weighted_sums[:] += _merged(places.abs(), weight * sizes, index, inside)

    def add_gram(self, first: int, rows: Tensor) -> None:
        """Rows of the Gram matrix ``J J^T``, [count, size], from number ``first`` on."""
        self.gram_sum = max(self.gram_sum, float(rows.abs().sum(dim=1).max()))
        self.gram_square += float(rows.square().sum())
        if self.weight is not None:
            root = self.weight.sqrt()
            rows = rows.abs() * root * root[first : first + len(rows), None]
            self.weighted_gram_sum = max(self.weighted_gram_sum, float(rows.sum(dim=1).max()))
            self.weighted_gram_square += float(rows.square().sum())

    def norm(self, rounding: float) -> float:
        """The spectral norm, or the smallest bound of it that the sums give.

        Schur's test of J, and of J J^T, whose root is never larger; and Frobenius norms of both.

        Args:
            rounding: at least the norm of the rounding error of a Gram matrix.
        """
        if self.held is not None:
            tall = self.held.shape[0] > self.held.shape[1]
            gram = self.held.mT @ self.held if tall else self.held @ self.held.mT
            if len(gram) <= _DECOMPOSED:
                return math.sqrt(max(float(torch.linalg.eigvalsh(gram)[-1]), 0.0) + rounding)
            squared = float(gram.abs().sum(dim=1).max())
            return math.sqrt(min(squared, float(gram.norm())) + rounding)
        bounds = [
            math.sqrt(float(self.sums.max()) * float(self.magnitudes.max())),
            float(self.rows.norm()),
        ]
        if self.gram_sum:
            bounds.append(math.sqrt(min(self.gram_sum, self.gram_square**0.5) + rounding))
        return min(bounds)

    def jacobian(self, reach: Tensor, total: Tensor, relative: float) -> Jacobian:
        """All norms, rounding included.

        Args:
            reach: sums of the rows with every term positive, of the argument's shape.
            total: of the columns, of the source's shape.
            relative: rounding error against such sums.
        """
        off, across = relative * reach, relative * total
        error, rounding = self._errors(reach, total, relative)
        return Jacobian(
            WIDEN * self.rows.view_as(reach) + off,
            WIDEN * self.sums.view_as(reach) + off,
            WIDEN * self.squares.sqrt().view_as(total) + across,
            WIDEN * self.norm(rounding) + error,
        )

    def curvature(self, reach: Tensor, total: Tensor, relative: float) -> Curvature:
        """Bounds of ``J^T C J``, rounding included; see ``jacobian``."""
        assert self.weight is not None
        error, rounding = self._errors(reach, total, relative)
        largest = float(self.weight.max())
        # The trace, and Schur's test of |J|^T C |J|.
        bounds = [float(self.weighted_squares.sum()), float(self.weighted_sums.max())]
        if self.held is not None:
            scaled = self.weight.sqrt()[:, None] * self.held
            gram = scaled @ scaled.mT if len(scaled) < scaled.shape[1] else scaled.mT @ scaled
            exact = float(gram.norm())
            if len(gram) <= _DECOMPOSED:
                exact = max(float(torch.linalg.eigvalsh(gram)[-1]), 0.0)
            bounds.append(exact + largest * rounding)
        elif self.gram_sum:
            exact = min(self.weighted_gram_sum, self.weighted_gram_square**0.5)
            bounds.append(exact + largest * rounding)
        columns = self.weighted_squares.sqrt().view_as(total)
        return Curvature(
            WIDEN * (math.sqrt(min(bounds)) + math.sqrt(largest) * error) ** 2,
            WIDEN * (columns + math.sqrt(largest) * relative * total),
            WIDEN * largest * float(reach.max()) * float(total.max()),
        )

    def _errors(self, reach: Tensor, total: Tensor, relative: float) -> tuple[float, float]:
        """Of the Jacobian in the spectral norm, and of a Gram matrix of it as computed."""
        most = float(reach.max()) * float(total.max())
        own = EPS * max(len(self.rows), self.squares.numel())
        return 2 * relative * math.sqrt(most), 4 * (relative + own) * most


def symmetric_norm(matrix: Tensor) -> float:
    """At least the spectral norm of a symmetric matrix [d, d].

    Small ones are decomposed. Of others a space V of leading eigenvectors is split off: with the
    blocks A on V, R on the rest and K between, the norm is at most ``max(|A|, |R|_F) + |K|``.
    """
    if len(matrix) <= _DECOMPOSED:
        return float(torch.linalg.eigvalsh(matrix).abs().max()) * WIDEN
    generator = torch.Generator().manual_seed(0)
    space = torch.randn(len(matrix), 96, generator=generator, dtype=matrix.dtype)
    for _ in range(12):
        space = torch.linalg.qr(matrix @ space).Q
    image = matrix @ space
    block = space.mT @ image
    between = image - space @ block
    total = float(matrix.square().sum())
    rest = total * (1 + 1e-10) - float(block.square().sum()) - 2 * float(between.square().sum())
    own = float(torch.linalg.matrix_norm(block, 2))
    found = max(own, math.sqrt(max(rest, 0.0))) + float(torch.linalg.matrix_norm(between, 2))
    return WIDEN * min(found, math.sqrt(total))


def _merged(places: Tensor, factor: Tensor, index: Tensor, inside: Tensor) -> Tensor:
    """Sum over channels of merged rows, [channels, C, places], each times its factor; all places.

    Args:
        places: those inside only.
        factor: of each row, [channels, count].
        index: which row a place belongs to, [channels, places].
        inside: mask of the places.
    """
    out = torch.zeros(places.shape[1], len(inside), dtype=torch.float64)
    out[:, inside] = (places * factor.gather(1, index)[:, None]).sum(dim=0)
    return out.flatten()


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
