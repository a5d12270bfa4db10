"""AttnLRP on a transformer, against a slow form; Hugging Face and timm where they are installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.model_output import Logits

sys.path.insert(0, str(Path(__file__).parents[1] / "architectures"))
from derivatives import slope_error
from families import images, settle

EPS = 1e-6


class Attention(nn.Module):
    """One head over the pixels of an image, a layer norm before and a GELU after."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(3)
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
        self.last = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        normed = self.norm(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        return self.last(nn.functional.gelu(tokens).mean(dim=1))


def stable(z: Tensor) -> Tensor:
    return z + EPS * torch.where(z >= 0, 1.0, -1.0)


def dense(x: Tensor, weight: Tensor, z: Tensor, relevance: Tensor) -> Tensor:
    """Equation 8."""
    return x * ((relevance / stable(z)) @ weight)


def by_hand(net: Attention, x: Tensor, target: int) -> Tensor:
    """AttnLRP of one image, proposition by proposition."""
    tokens = x.flatten(1).T
    mean, std = tokens.mean(1, keepdim=True), (tokens.var(1, False, keepdim=True) + 1e-5).sqrt()
    normed = (tokens - mean) / std * net.norm.weight + net.norm.bias
    parts = net.attention.in_proj_weight.chunk(3), net.attention.in_proj_bias.chunk(3)
    q, k, v = (normed @ w.T + b for w, b in zip(*parts, strict=True))
    scores = q @ k.T / 3**0.5
    weights = scores.softmax(-1)
    mixed = weights @ v
    out = net.attention.out_proj
    attended = mixed @ out.weight.T + out.bias
    summed = tokens + attended
    activated = nn.functional.gelu(summed)
    pooled = activated.mean(0)
    logits = net.last(pooled)

    relevance = torch.zeros(4, dtype=x.dtype)
    relevance[target] = logits[target]
    relevance = dense(pooled, net.last.weight, logits, relevance)
    relevance = activated / len(activated) * relevance / stable(pooled)  # the mean, eq. 8
    r_attended = attended * relevance / stable(summed)
    r_tokens = tokens * relevance / stable(summed)
    r_mixed = dense(mixed, out.weight, attended, r_attended)
    share = r_mixed / stable(mixed) / 2  # proposition 3.3
    r_weights, r_v = weights * (share @ v.T), v * (weights.T @ share)
    r_scores = scores * (r_weights - weights * r_weights.sum(-1, keepdim=True))  # 3.1
    share = r_scores / stable(scores) / 2
    r_q, r_k = q / 3**0.5 * (share @ k), k * (share.T @ q / 3**0.5)
    shares = zip((r_q, r_k, r_v), (q, k, v), parts[0], strict=True)
    r_normed = sum(dense(normed, w, z, r) for r, z, w in shares)
    share = r_normed / stable(normed) * net.norm.weight / std  # 3.4
    r_tokens = r_tokens + tokens * (share - share.mean(1, keepdim=True))
    return r_tokens.T.reshape(x.shape)


def test_attention_by_hand() -> None:
    torch.manual_seed(0)
    net = Attention().double().eval().requires_grad_(False)
    for tensor in (net.norm.bias, net.attention.in_proj_bias, net.attention.out_proj.bias):
        nn.init.normal_(tensor, std=0.3)
    x, target = images(3), torch.tensor([1, 3])
    ours = trompe.explainer("lrp", composite="attn")(net, x, target)
    for i in range(2):
        torch.testing.assert_close(
            ours[i], by_hand(net, x[i], int(target[i])), rtol=1e-5, atol=1e-7
        )


METHODS = [("gradient", {}), ("lrp", {}), ("lrp", {"composite": "attn"}), ("attention_rollout", {})]


@pytest.mark.parametrize(("name", "options"), METHODS, ids=str)
def test_hugging_face(name: str, options: dict[str, str]) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=16,
        patch_size=8,
        num_labels=5,
    )
    torch.manual_seed(0)
    net = settle(
        Logits(transformers.ViTForImageClassification(config), ("logits",), config.num_labels), 16
    )
    method = trompe.explainer(name, **options)
    assert slope_error(method, net, images(16, 1), torch.tensor([1])) < 1e-4


TIMM = {
    "vit_tiny_patch16_224": {"img_size": 32, "depth": 2},
    "resnet10t": {},
    "mobilenetv3_small_050": {},
    "convnext_atto": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = settle(timm.create_model(name, pretrained=False, num_classes=5, **TIMM[name]), 32)
    smoothed = trompe.smooth(net, beta=5.0, pooling=True)
    for method in (trompe.explainer("gradient"), trompe.explainer("lrp")):
        assert slope_error(method, smoothed, images(32, 1), torch.tensor([1])) < 1e-4


@pytest.mark.parametrize("composite", ["paper", "epsilon", "attn"])
@pytest.mark.parametrize("dims", [2, 4])
@pytest.mark.filterwarnings("ignore:Implicit dimension")
def test_softmax_without_a_dimension(composite: str, dims: int) -> None:
    """It is that of the channels, as in PyTorch, not the last."""

    class Net(nn.Module):
        def __init__(self, dim: int | None) -> None:
            super().__init__()
            self.dim = dim

        def forward(self, x: Tensor) -> Tensor:
            h = x if dims == 4 else x.flatten(1)
            gate = F.softmax(h * 0.7) if self.dim is None else F.softmax(h * 0.7, dim=self.dim)
            return (h.abs() * gate).flatten(1).view(len(x), 4, -1).sum(-1)

    x, target = torch.rand(1, 3, 4, 4, dtype=torch.float64), torch.tensor([1])
    method = trompe.explainer("lrp", composite=composite)
    nets_close(method(Net(None), x, target), method(Net(1), x, target))


def nets_close(found: Tensor, expected: Tensor) -> None:
    assert float((found - expected).abs().max()) <= 1e-12 * float(expected.abs().max())
