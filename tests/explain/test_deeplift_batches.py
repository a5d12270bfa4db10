"""DeepLIFT takes halves of a batch for images and baselines; a batch elsewhere is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.errors import ModelError

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

ELSEWHERE: dict[str, Callable[[Tensor], Tensor]] = {
    "stacked": lambda h: F.relu(torch.stack([h, -h])).sum(0),
    "transposed": lambda h: F.relu(h.transpose(0, 1)).transpose(0, 1),
    "last": lambda h: F.relu(h.permute(1, 2, 3, 0)).permute(3, 0, 1, 2),
    "pooled": lambda h: F.max_pool2d(h.transpose(0, 1), 3, 1, 1).transpose(0, 1),
    "product": lambda h: (torch.stack([h, h]) * torch.stack([h.sigmoid(), h.tanh()])).sum(0),
}
FIRST: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": F.relu,
    "stacked within": lambda h: F.relu(torch.stack([h, -h], 1)).sum(1),
    "in a row": lambda h: F.relu(h.flatten()).view(h.shape),
}


class Net(nn.Module):
    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.act = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), act
        self.fc = nn.Linear(128, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.act(self.b(self.act(self.a(x)))).flatten(1))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_batch_elsewhere_is_refused(name: str, count: int) -> None:
    net = Net(ELSEWHERE[name]).double().eval()
    with pytest.raises(ModelError, match="do not add up to the difference of the scores"):
        trompe.explainer("deeplift")(net, X[:count], 0)


@pytest.mark.parametrize("name", FIRST)
def test_maps_add_up_to_the_difference(name: str) -> None:
    net = Net(FIRST[name]).double().eval()
    found = trompe.explainer("deeplift")(net, X, 1).flatten(1).sum(1)
    torch.testing.assert_close(found, (net(X) - net(torch.zeros_like(X)))[:, 1])
    single = trompe.explainer("deeplift")(Net(FIRST[name]).eval(), X.float(), 1)
    torch.testing.assert_close(single.double().flatten(1).sum(1), found, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 1e-6), (torch.float64, 1e-15)])
def test_scores_that_hardly_differ_from_the_baselines_are_explained(
    dtype: torch.dtype, scale: float
) -> None:
    """Their difference is rounding beside a bias: no sign of a batch elsewhere."""
    net = Net(F.relu)
    with torch.no_grad():
        net.fc.weight *= scale
        net.fc.bias.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0]))
    found = trompe.explainer("deeplift")(net.to(dtype).eval(), X.to(dtype), 1)
    larger = Net(F.relu).double().eval()
    torch.testing.assert_close(
        found.double() / scale, trompe.explainer("deeplift")(larger, X, 1), rtol=1e-3, atol=1e-5
    )
