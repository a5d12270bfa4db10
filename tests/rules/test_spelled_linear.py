"""A map does not depend on how a linear layer, its bias or its batch norm is spelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.rules.composites import COMPOSITES

Layer = Callable[[Tensor, Tensor, Tensor], Tensor]

DENSE: dict[str, Layer] = {
    "h @ W + b": lambda h, w, b: h @ w.t() + b,
    "b + h @ W": lambda h, w, b: b + h @ w.t(),
    "addmm": lambda h, w, b: torch.addmm(b, h, w.t()),
    "aten addmm": lambda h, w, b: torch.ops.aten.addmm(b, h, w.t()),
    "aten mm": lambda h, w, b: torch.ops.aten.mm.default(h, w.t()) + b,
    "einsum": lambda h, w, b: torch.einsum("bi,oi->bo", h, w) + b,
    "einsum, ellipsis": lambda h, w, b: torch.einsum("...i,io->...o", h, w.t()) + b,
    "einsum, moved": lambda h, w, b: (torch.einsum("bi,oi->ob", h, w) + b[:, None]).t(),
    "W @ h": lambda h, w, b: (w @ h.t()).t() + b,
    "W @ h + b": lambda h, w, b: (w @ h.unsqueeze(-1) + b[:, None]).squeeze(-1),
    "named": lambda h, w, b: torch.mm(input=h, mat2=w.t()) + b,
    "sparse": lambda h, w, b: torch.mm(w.detach().to_sparse(), h.t()).t() + b,
    "sparse, of its own": lambda h, w, b: torch.sparse.mm(w.detach().to_sparse(), h.t()).t() + b,
    "inner": lambda h, w, b: torch.inner(h, w) + b,
    "bmm": lambda h, w, b: torch.bmm(h[:, None], w.t().expand(len(h), -1, -1)).flatten(1) + b,
    "added in place": lambda h, w, b: F.linear(h, w).add_(b),
    "minus": lambda h, w, b: F.linear(h, w) - (-b),
    "b minus": lambda h, w, b: b - F.linear(h, -w),
    "alpha": lambda h, w, b: torch.add(F.linear(h, w), b / 2, alpha=2),
    "negated": lambda h, w, b: -F.linear(h, -w, -b),
    "divided": lambda h, w, b: F.linear(h, -3 * w, -3 * b) / -3,
    "scaled by channel": lambda h, w, b: F.linear(h, w / b[:, None]) * b + b,
    "batch norm": lambda h, w, b: F.batch_norm(
        F.linear(h, w / b[:, None]), torch.zeros_like(b), torch.ones_like(b) - 1e-5, b, b
    ),
}


class Dense(nn.Module):
    """Two linear layers of one spelling, with a ReLU between."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.layer = layer
        for name, shape in (("w", (7, 12)), ("b", (7,)), ("v", (4, 7)), ("c", (4,))):
            values = torch.randn(shape, generator=draw, dtype=torch.float64)
            self.register_parameter(name, nn.Parameter(values))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.layer(x.flatten(1), self.w, self.b))
        return self.layer(hidden, self.v, self.c)


def image(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def map_of(model: nn.Module, x: Tensor, method: str, **options: Any) -> Tensor:
    target = torch.arange(len(x))
    return trompe.explainer(method, **options)(model.eval(), x, target).detach()


METHODS: list[tuple[str, dict[str, Any]]] = [
    *(("lrp", {"composite": name}) for name in COMPOSITES),
    *((name, {}) for name in ("excitation_backprop", "deeplift")),
]


@pytest.mark.parametrize("spelling", DENSE)
def test_a_linear_layer_is_one_in_every_spelling(spelling: str) -> None:
    x = image(3, 3, 2, 2)
    for method, options in METHODS:
        expected = map_of(Dense(F.linear), x, method, **options)
        found = map_of(Dense(DENSE[spelling]), x, method, **options)
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9, msg=f"{method} {options}")


class Frozen(nn.Module):
    """A convolution, a batch norm as a module or written out, another convolution, a head."""

    def __init__(self, written: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
        self.second, self.head = nn.Conv2d(5, 4, 1, bias=False), nn.Linear(4, 3)
        self.shift = nn.Parameter(torch.randn(4))
        self.written = written
        for tensor in (self.norm.weight, self.norm.bias, self.norm.running_mean):
            assert tensor is not None
            tensor.data.normal_()
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.written:
            norm = self.norm
            assert norm.running_var is not None
            assert norm.running_mean is not None
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            shift = norm.bias - norm.running_mean * scale
            x = torch.relu(x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1))
            x = torch.relu(self.second(x).permute(0, 2, 3, 1) + self.shift).permute(0, 3, 1, 2)
        else:
            x = torch.relu(self.norm(x))
            x = torch.relu(F.conv2d(x, self.second.weight, self.shift))
        pooled: Tensor = self.head(x.mean(dim=(2, 3)))
        return pooled


def test_a_batch_norm_written_out_is_a_batch_norm() -> None:
    x = image(2, 3, 6, 5)
    for method, options in METHODS:
        found, expected = (map_of(Frozen(w), x, method, **options) for w in (True, False))
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9, msg=f"{method} {options}")


def test_an_exported_model_has_the_maps_of_the_model() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(5)
            self.first, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
            self.second, self.drop = nn.Conv2d(6, 6, 3, padding=1), nn.Dropout(inplace=True)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu6(self.norm(self.first(x)))
            x += torch.relu(self.second(x))
            x = F.max_pool2d(x, 2)[:, :, 1:]
            return self.head(self.drop(x.mean((2, 3)).flatten(1)))

    x = image(2, 3, 8, 8)
    net = Net().double().eval()
    batch = ({0: torch.export.Dim.DYNAMIC},)
    exported = torch.export.export(net, (x,), dynamic_shapes=batch).module()
    for method, options in METHODS:
        if method == "deeplift":  # defined on ReLU, not on ReLU6
            continue
        target = torch.tensor([0, 1])
        expected = map_of(net, x, method, **options)
        found = trompe.explainer(method, **options)(exported, x, target).detach()
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9, msg=f"{method} {options}")
