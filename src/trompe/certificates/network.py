"""A network as affine maps, gates and sums."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor

from trompe.certificates.gates import Gate
from trompe.certificates.linear_maps import LinearMap

Derivative = TypeVar("Derivative")


@dataclass(frozen=True, eq=False)
class Node:
    """One step: ``part`` of one parent plus ``shift``, or (no part) the sum of all parents."""

    parents: tuple[int, ...]
    part: LinearMap | Gate | None
    shift: Tensor | None
    name: str


@dataclass
class Network:
    """The nodes in order; node 0 is the input, the last one the logits.

    Args:
        nodes: each refers to earlier ones only.
    """

    nodes: list[Node] = field(default_factory=list)

    def add(
        self,
        parents: tuple[int, ...],
        part: LinearMap | Gate | None = None,
        shift: Tensor | None = None,
        name: str = "",
    ) -> int:
        """Append a node; returns its number."""
        self.nodes.append(Node(parents, part, shift, name))
        return len(self.nodes) - 1

    def values(self, x: Tensor) -> list[Tensor]:
        """The output of every node for x [B, ...]."""
        out: list[Tensor] = []
        for node in self.nodes:
            if not node.parents:
                out.append(x)
                continue
            value = out[node.parents[0]]
            for other in node.parents[1:]:
                value = value + out[other]
            if isinstance(node.part, LinearMap):
                value = node.part.apply(value)
            elif isinstance(node.part, Gate):
                value = node.part.value(value)
            out.append(value if node.shift is None else value + node.shift)
        return out

    def walk_back(
        self,
        seeds: Mapping[int, Derivative],
        visit: Callable[[int, Node, Derivative], Derivative],
        add: Callable[[Derivative, Derivative], Derivative] = operator.add,
    ) -> Derivative | None:
        """Carry derivatives from the outputs to the input, node by node.

        Args:
            seeds: By node, the derivative by its output that starts there.
            visit: Called once for each node that a derivative reaches, the last first, with its
                number, the node and the derivative by its output; returns the derivative by the
                node's argument, which all its parents receive.
            add: Joins the derivatives that reach one node by several ways.

        Returns:
            The derivative by the input; ``None`` if none reaches it.
        """
        arrived = dict(seeds)
        for number in range(len(self.nodes) - 1, 0, -1):
            if number not in arrived:
                continue
            node = self.nodes[number]
            passed = visit(number, node, arrived.pop(number))
            for parent in node.parents:
                known = arrived.get(parent)
                arrived[parent] = passed if known is None else add(known, passed)
        return arrived.get(0)

    @property
    def smooth(self) -> bool:
        """Whether no gate has a kink."""
        return all(g.bend != float("inf") for g in self.gates())

    def gates(self) -> list[Gate]:
        """All gates."""
        return [node.part for node in self.nodes if isinstance(node.part, Gate)]
