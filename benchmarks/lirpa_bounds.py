"""Bounds of a gradient by auto_LiRPA, in an interpreter that has it; called by ``lirpa.py``.

Reads the weights of a fully connected softplus network and points from an archive, writes JSON to
standard output: per point and radius, at most the l2 change of the gradient of one logit within
the l2 ball, the mean over entries of the bound of their change, and the seconds, of each method.
auto_LiRPA 0.3 bounds functions, not their derivatives: the gradient is written out as a network of
linear layers, sigmoids (the derivative of softplus) and products. Needs nothing of trompe.
"""

import json
import sys
import time
import warnings

import numpy as np
import torch
from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm
from torch import nn


class GradientNet(nn.Module):
    """x -> the gradient of one logit of a softplus network, by the chain rule, [B, D]."""

    def __init__(
        self, weights: list[torch.Tensor], biases: list[torch.Tensor], beta: float, target: int,
        point: torch.Tensor,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layers = nn.ModuleList()
        self.back = nn.ModuleList()
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.weight.data, layer.bias.data = beta * weight, beta * bias
            self.layers.append(layer)
            back = nn.Linear(weight.shape[0], weight.shape[1], bias=False)
            back.weight.data = weight.t().contiguous()
            self.back.append(back)
        self.beta = beta
        self.register_buffer("last", weights[-1][target : target + 1].clone())
        self.on = []
        for layer in self.layers:
            z = layer(point).detach()
            self.on.append((z > 0).to(z))
            point = nn.functional.softplus(z) / beta

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The gradient at x, [1, D]."""
        slopes = []
        for index, layer in enumerate(self.layers):
            z = layer(x)  # beta times the argument of softplus
            slopes.append(torch.sigmoid(z))
            if index + 1 < len(self.layers):
                # Version 0.3 cannot relax softplus, but a logarithm of a sigmoid: softplus(z) is
                # -log sigmoid(-z) and z - log sigmoid(z). Its logarithm is cut at 1e-12, so of the
                # two the one whose sigmoid is above a half at the point.
                on = self.on[index]
                x = (z * on - torch.log(torch.sigmoid(z * (2 * on - 1)))) * (1 / self.beta)
        found = slopes[-1] * self.last
        for index in range(len(self.layers) - 1, -1, -1):
            found = self.back[index](found)
            if index:
                found = found * slopes[index - 1]
        return found


def main() -> None:
    """See the module."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    given = np.load(sys.argv[1])
    count = sum(name.startswith("weight") for name in given.files)
    weights = [torch.from_numpy(given[f"weight{i}"]) for i in range(count)]
    biases = [torch.from_numpy(given[f"bias{i}"]) for i in range(count)]
    rows = []
    for index, (point, target) in enumerate(zip(given["x"], given["target"], strict=True)):
        x = torch.from_numpy(point)[None]
        net = GradientNet(weights, biases, float(given["beta"]), int(target), x)
        with torch.no_grad():
            centre = net(x)
        bounded = BoundedModule(net, torch.zeros_like(x))
        for radius in given["radii"]:
            ball = BoundedTensor(x, PerturbationLpNorm(norm=2, eps=float(radius)))
            for method in ("IBP", "CROWN"):
                start = time.perf_counter()
                with torch.no_grad():
                    low, high = bounded.compute_bounds(x=(ball,), method=method)
                seconds = time.perf_counter() - start
                assert bool((low <= centre + 1e-9).all() and (centre <= high + 1e-9).all())
                most = torch.maximum(high - centre, centre - low)
                row = {"point": index, "radius": float(radius), "method": method}
                row.update(l2=float(most.norm()), entry=float(most.mean()), seconds=seconds)
                row["centre"] = centre[0].tolist()
                rows.append(row)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
