"""Tensors in arguments, against PyTorch's own walk of pytrees."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from trompe.engine.pytree import swapped, tensors_in

Pair = namedtuple("Pair", ["first", "second"])
A, B = torch.zeros(2), torch.ones(3)
TREES: list[Any] = [
    A,
    (A, 1, None, "same", torch.float32, slice(1, None)),
    {"x": [A, (B, {"y": A})], "n": 2.0},
    Pair(A, [B]),
    OrderedDict(a=A, b=(B,)),
    torch.Size([1, 2]),
    (torch.max(torch.eye(2), dim=0), ...),
]


@pytest.mark.parametrize("tree", TREES, ids=str)
def test_as_pytrees(tree: Any) -> None:
    expected = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    assert [id(t) for t in tensors_in(tree)] == [id(t) for t in expected]
    made: dict[int, Tensor] = {}

    def swap(t: Tensor) -> Tensor:
        return made.setdefault(id(t), t + 1)

    found, wanted = swapped(tree, swap), tree_map_only(Tensor, swap, tree)
    assert type(found) is type(wanted)
    assert [id(t) for t in tensors_in(found)] == [id(t) for t in tensors_in(wanted)]
    rest = [leaf for leaf in tree_leaves(found) if not isinstance(leaf, Tensor)]
    assert rest == [leaf for leaf in tree_leaves(tree) if not isinstance(leaf, Tensor)]
