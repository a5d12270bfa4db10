"""The linearised network, forward and backward in batches: rows of Jacobians, the Hessian."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.certificates.gates import Gate
from trompe.certificates.jacobian_norms import Curvature, Jacobian, Sums, symmetric_norm, symmetrise
from trompe.certificates.linear_maps import Conv, Dense, LinearMap
from trompe.certificates.network import Network, Node
from trompe.certificates.upper import EPS, WIDEN

_ENTRIES = 2**22
"""So many numbers a batch of rows may hold in one layer."""


@dataclass
class PointHessian:
    """Bounds of the score's second derivative at x.

    Args:
        norm: at least the spectral norm.
        rows: at least the l2 norm of each row, of the image's shape, [1, ...].
    """

    norm: float
    rows: Tensor


def _terms(part: LinearMap) -> int:
    """Products added up in one output of a layer or of its transpose, for the rounding error."""
    if isinstance(part, (Dense, Conv)):
        return max(part.terms, part.weight.shape[0] * part.weight[0, :1].numel())
    return max(part.terms, 64)


class Sweep:
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
        found: dict[int, Tensor] = {}

        def visit(number: int, node: Node, pull: Tensor) -> Tensor:
            if isinstance(node.part, Gate):
                found[number] = pull
                return self.slopes[number] * node.part.spread(pull)
            if isinstance(node.part, LinearMap):
                return (node.part.magnitude if magnitude else node.part).transpose(pull)
            return pull

        by_image = self.network.walk_back({last: seed}, visit)
        return found if by_image is None else {**found, 0: by_image}

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
    ) -> PointHessian:
        """The Hessian ``sum_l J_l^T W_l J_l`` at x, column by column; W_l as computed.

        Args:
            values: of the nodes at x.
            pulls: the derivative of the score by every gate's output.
            curvatures: of all gates, for the rounding error.
        """
        shape, size = values[0].shape[1:], values[0].numel()
        batch = max(1, _ENTRIES // max(value.numel() for value in values))
        matrix = torch.empty(size, size, dtype=torch.float64)
        for first in range(0, size, batch):
            count = min(batch, size - first)
            seed = torch.zeros(count, size, dtype=torch.float64)
            seed[torch.arange(count), first + torch.arange(count)] = 1.0
            bent = self._bent(values, pulls, seed.view(count, *shape)).flatten(1)
            matrix[first : first + count] = bent
        symmetrise(matrix)
        error = 16 * self.relative * sum(found.magnitude for found in curvatures.values())
        rows = WIDEN * matrix.norm(dim=1).view_as(values[0]) + error
        return PointHessian(WIDEN * symmetric_norm(matrix) + error, rows)

    def _bent(self, values: list[Tensor], pulls: dict[int, Tensor], seed: Tensor) -> Tensor:
        """The Hessian times each of the seeds [B, ...]: forward, bent at the gates, backward."""
        nodes = self.network.nodes
        pushed, bent = [seed], dict[int, Tensor]()
        for number, node in enumerate(nodes[1:], start=1):
            value = pushed[node.parents[0]]
            for other in node.parents[1:]:
                value = value + pushed[other]
            if isinstance(node.part, Gate):
                if number in pulls:
                    turned = node.part.turn(values[node.parents[0]], value)
                    own, before = turned * node.part.spread(pulls[number]), node.parents[0]
                    bent[before] = bent[before] + own if before in bent else own
                value = node.part.gather(self.slopes[number] * value)
            elif isinstance(node.part, LinearMap):
                value = node.part.apply(value)
            pushed.append(value)

        def visit(number: int, node: Node, pull: Tensor) -> Tensor:
            if isinstance(node.part, Gate):
                return self.slopes[number] * node.part.spread(pull)
            return node.part.transpose(pull) if isinstance(node.part, LinearMap) else pull

        found = self.network.walk_back(bent, visit)
        return torch.zeros_like(seed) if found is None else found

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
        sums = {source: Sums(size, total) for source, total in sources.items()}
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
        sums: dict[int, Sums],
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
