"""Spellings of one function each, and small networks to put them into.

A spelling is an expression of an activation h and the weights p of the network. Every spelling of
a group is the function that stands before it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS: dict[str, dict[str, list[str]]] = {
    "attention": {
        "F.softmax(h, -1)": [
            "h.exp() / h.exp().sum(-1, keepdim=True)",
            "(e := h.exp()) / e.sum(-1, keepdim=True)",
            "(e := (h - h.max()).exp()) / e.sum(-1, keepdim=True)",
            "(e := (h - h.amax(-1, keepdim=True)).exp()) / e.sum(-1, keepdim=True)",
            "(e := torch.exp(h - h.max(-1, keepdim=True).values)) / e.sum(-1, keepdim=True)",
            "(e := torch.exp(h - h.max(-1, keepdim=True)[0].detach())) / e.sum(-1, keepdim=True)",
            "(h - h.logsumexp(-1, keepdim=True)).exp()",
            "F.log_softmax(h, -1).exp()",
            "h.log_softmax(dim=-1).exp()",
            "torch.special.softmax(h, -1)",
            "F.softmin(-h, -1)",
            "F.softmax(h - h.amax(-1, keepdim=True), -1)",
            "(e := h.exp()) / e.sum(-1).unsqueeze(-1)",
            "(e := h.exp()) / e.sum(-1)[..., None]",
            "(e := h.exp()) * e.sum(-1, keepdim=True).reciprocal()",
            "(e := h.exp()).div_(e.sum(-1, keepdim=True))",
            "torch.ops.aten._softmax(h, -1, False)",
            "F.softmax(h.transpose(-2, -1), -2).transpose(-2, -1)",
            "(e := h.exp()) / (e.sum(-1, keepdim=True) + 0.0)",
            "(e := (math.e ** h)) / e.sum(-1, keepdim=True)",
            "(e := torch.exp2(h * 1.4426950408889634)) / e.sum(-1, keepdim=True)",
            "(h - torch.log(torch.exp(h).sum(-1, keepdim=True))).exp()",
            "(e := h.exp()) / (e @ torch.ones(h.shape[-1], 1, dtype=h.dtype))",
            "F.softmax(h * 2 * 0.5, -1)",
            (
                "F.softmax(h.masked_fill(torch.zeros(h.shape[-2:], dtype=torch.bool), "
                "-1000000000.0), -1)"
            ),
        ],
        "torch.sigmoid(h)": [
            "F.softmax(torch.stack([h, torch.zeros_like(h)], -1), -1)[..., 0]",
        ],
    },
    "tokens": {
        "F.layer_norm(h, (8,), p.v, p.c, 1e-05)": [
            (
                "(h - h.mean(-1, keepdim=True)) / torch.sqrt(h.var(-1, keepdim=True, "
                "unbiased=False) + 1e-05) * p.v + p.c"
            ),
            (
                "(h - h.mean(-1, keepdim=True)) / ((h - h.mean(-1, keepdim=True)) ** 2).mean(-1, "
                "keepdim=True).add(1e-05).sqrt() * p.v + p.c"
            ),
            (
                "p.v * ((c := (h - h.mean(-1, keepdim=True))) * torch.rsqrt(c.pow(2).mean(-1, "
                "keepdim=True) + 1e-05)) + p.c"
            ),
            (
                "(lambda vm: (h - vm[1]) * (vm[0] + 1e-05).rsqrt() * p.v + "
                "p.c)(torch.var_mean(h, -1, keepdim=True, correction=0))"
            ),
            (
                "(h - h.mean(-1, keepdim=True)) / torch.sqrt((h * h).mean(-1, keepdim=True) - "
                "h.mean(-1, keepdim=True) ** 2 + 1e-05) * p.v + p.c"
            ),
            (
                "torch.addcmul(p.c.expand_as(h), (h - h.mean(-1, keepdim=True)) * (h.var(-1, "
                "keepdim=True, correction=0) + 1e-05) ** (-0.5), p.v)"
            ),
            "F.layer_norm(h, (8,)) * p.v + p.c",
            "F.group_norm(h.flatten(0, 1), 1, p.v, p.c).view(h.shape)",
            "torch.layer_norm(h, (8,), p.v, p.c, 1e-05)",
        ],
        "F.rms_norm(h, (8,), p.v, 1e-06)": [
            "h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-06) * p.v",
            "p.v * (h / torch.sqrt((h * h).mean(-1, keepdim=True) + 1e-06))",
            "h / (h.norm(dim=-1, keepdim=True).square() / 8 + 1e-06).sqrt() * p.v",
            "h / torch.sqrt(h.square().sum(-1, keepdim=True) / 8 + 1e-06) * p.v",
        ],
        "F.normalize(h, dim=-1)": [
            "h / h.norm(dim=-1, keepdim=True).clamp_min(1e-12)",
            "h / torch.linalg.vector_norm(h, dim=-1, keepdim=True)",
            "h / h.pow(2).sum(-1, keepdim=True).sqrt()",
            "h * (h * h).sum(-1, keepdim=True).rsqrt()",
            'h / torch.einsum("btd,btd->bt", h, h).sqrt().unsqueeze(-1)',
            "F.normalize(h, p=2.0, dim=2)",
        ],
    },
    "image": {
        "F.layer_norm(h.permute(0, 2, 3, 1), (4,), p.v, p.c, 1e-06).permute(0, 3, 1, 2)": [
            (
                "p.v[:, None, None] * ((h - (u := h.mean(1, keepdim=True))) / torch.sqrt((h - "
                "u).pow(2).mean(1, keepdim=True) + 1e-06)) + p.c[:, None, None]"
            ),
        ],
        "F.instance_norm(h)": [
            (
                "(h - h.mean((2, 3), keepdim=True)) / (h.var((2, 3), keepdim=True, "
                "unbiased=False) + 1e-05).sqrt()"
            ),
            "F.group_norm(h, 4)",
        ],
        "F.gelu(h)": [
            "0.5 * h * (1 + torch.erf(h / math.sqrt(2)))",
            "h * 0.5 * (1.0 + torch.special.erf(h * 0.7071067811865476))",
            "h * torch.special.ndtr(h)",
        ],
        'F.gelu(h, approximate="tanh")': [
            "0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h ** 3)))",
            "0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * torch.pow(h, 3))))",
            "h * torch.sigmoid(2 * 0.7978845608028654 * h * (1 + 0.044715 * h * h))",
        ],
        "F.silu(h)": [
            "h * torch.sigmoid(h)",
            "h.sigmoid() * h",
            "h.mul(h.sigmoid())",
            "h / (1 + torch.exp(-h))",
            "0.5 * h * (1 + torch.tanh(h / 2))",
            "h * torch.special.expit(h)",
            "F.glu(torch.cat([h, h], 1), 1)",
        ],
        "torch.sigmoid(h)": [
            "1 / (1 + torch.exp(-h))",
            "h.exp() / (h.exp() + 1)",
            "0.5 * (1 + torch.tanh(h / 2))",
            "(1 + (-h).exp()).reciprocal()",
            "F.logsigmoid(h).exp()",
            "torch.softmax(torch.stack([h, torch.zeros_like(h)]), 0)[0]",
            "1 - torch.sigmoid(-h)",
        ],
        "torch.tanh(h)": [
            "2 * torch.sigmoid(2 * h) - 1",
            "(h.exp() - (-h).exp()) / (h.exp() + (-h).exp())",
            "1 - 2 / ((2 * h).exp() + 1)",
            "torch.sinh(h) / torch.cosh(h)",
        ],
        "F.softplus(h)": [
            "torch.log(1 + torch.exp(h))",
            "torch.log1p(h.exp())",
            "torch.logaddexp(h, torch.zeros_like(h))",
            "-F.logsigmoid(-h)",
            "h.clamp(min=0) + torch.log1p(torch.exp(-h.abs()))",
            "torch.logsumexp(torch.stack([h, torch.zeros_like(h)]), 0)",
        ],
        "F.mish(h)": [
            "h * torch.tanh(F.softplus(h))",
            "h * torch.tanh(torch.log(1 + h.exp()))",
        ],
        "F.hardswish(h)": [
            "h * F.relu6(h + 3) / 6",
            "h * (h + 3).clamp(0, 6) / 6",
            "h * F.hardsigmoid(h)",
            "h * nn.Hardsigmoid()(h)",
            "h.mul(F.hardtanh(h + 3, 0.0, 6.0).div(6.0))",
        ],
        "F.hardsigmoid(h)": [
            "F.relu6(h + 3) / 6",
            "(h / 6 + 0.5).clamp(0, 1)",
        ],
        "F.elu(h)": [
            "torch.where(h > 0, h, h.exp() - 1)",
            "F.relu(h) + (h.clamp(max=0).exp() - 1)",
            "torch.where(h > 0, h, torch.expm1(h))",
        ],
        "F.softsign(h)": [
            "h / (1 + h.abs())",
        ],
        "F.selu(h)": [
            "1.0507009873554805 * torch.where(h > 0, h, 1.6732632423543772 * (h.exp() - 1))",
        ],
        "F.leaky_relu(h, 0.1)": [
            "torch.where(h > 0, h, 0.1 * h)",
            "torch.maximum(h, 0.1 * h)",
            "F.relu(h) - 0.1 * F.relu(-h)",
            "h * ((h > 0) * 0.9 + 0.1)",
            "0.55 * h + 0.45 * h.abs()",
            "F.prelu(h, torch.tensor([0.1], dtype=h.dtype))",
        ],
        "F.relu(h)": [
            "h + F.relu(-h)",
            "(h.sign() * h.abs()).relu()",
            "0.5 * (h + h.abs())",
            "h.clamp_min(0)",
            "torch.fmax(h, torch.zeros_like(h))",
            "h * (h > 0)",
            "h.masked_fill(h < 0, 0)",
            "torch.where(h < 0, torch.zeros_like(h), h)",
            "F.threshold(h, 0, 0)",
            "torch.heaviside(h, torch.zeros(1, dtype=h.dtype)) * h",
            "(h + (h * h).sqrt()) / 2",
            "F.hardtanh(h, 0, math.inf)",
            "torch.maximum(h, torch.zeros_like(h))",
            "h - h.clamp(max=0)",
            "h - torch.minimum(h, torch.zeros_like(h))",
            "-(-h).clamp(max=0)",
            "h * (1 + h.sign()) / 2",
            "h.clamp(min=0).square().sqrt()",
            "torch.add(h, torch.relu(-h))",
            "torch.stack([h, torch.zeros_like(h)], 1).amax(1)",
            "torch.cat([h.unsqueeze(-1), torch.zeros_like(h).unsqueeze(-1)], -1).max(-1)[0]",
            "F.leaky_relu(h, 0.0)",
            "F.prelu(h, torch.zeros(1, dtype=h.dtype))",
            "F.relu(F.relu(h))",
            "F.relu(h).clamp(min=0)",
            "F.relu(3 * h) / 3",
            "(h.abs() + h) * 0.5",
            "h * h.gt(0).double()",
            "torch.mul(h > 0, h)",
            "h.max(torch.tensor(0.0, dtype=h.dtype))",
            "torch.where(h.detach() > 0, h, torch.zeros((), dtype=h.dtype))",
            "h.masked_scatter(h < 0, torch.zeros_like(h))",
            "F.relu(h) ** 1",
            "F.elu(h, 0.0)",
            "F.threshold(h, 0.0, 0.0)",
            "(h + torch.sqrt(h.pow(2))) / 2",
            "(h + torch.copysign(h, torch.ones_like(h))) / 2",
        ],
        "h": [
            "h.sign() * h.abs()",
            "F.relu(h) - F.relu(-h)",
            "2 * h - h",
            "h - 0",
            "h / 2 + h / 2",
            "+h",
            "h ** 1",
        ],
        "h * F.relu(h)": [
            "F.relu(h) ** 2",
        ],
        "F.relu(h).square()": [
            "F.relu(h) * F.relu(h)",
            "F.relu(h).pow(2)",
        ],
        "h * torch.sigmoid(F.linear(h.mean((2, 3)), p.mix, p.b))[:, :, None, None]": [
            "h * torch.sigmoid(F.conv2d(h.mean((2, 3), keepdim=True), p.w[:, :, :1, :1], p.b))",
            "h / (1 + torch.exp(-F.conv2d(h.mean((2, 3), keepdim=True), p.w[:, :, :1, :1], p.b)))",
            (
                "torch.multiply(torch.special.expit(F.conv2d(F.adaptive_avg_pool2d(h, 1), p.w[:, "
                ":, :1, :1], p.b)), h)"
            ),
            'torch.einsum("bchw,bc->bchw", h, torch.sigmoid(F.linear(h.mean((2, 3)), p.mix, p.b)))',
        ],
        "F.batch_norm(h, p.mean, p.var, p.v, p.c)": [
            (
                "(h - per_channel(p.mean)) / torch.sqrt(per_channel(p.var) + 1e-5) * "
                "per_channel(p.v) + per_channel(p.c)"
            ),
            (
                "(h - per_channel(p.mean)) * per_channel((p.var + 1e-5).rsqrt() * p.v) + "
                "per_channel(p.c)"
            ),
            "h * per_channel(s := (p.var + 1e-5).rsqrt() * p.v) + per_channel(p.c - p.mean * s)",
            (
                "torch.addcmul(per_channel(p.c - p.mean * (s := (p.var + 1e-5).rsqrt() * p.v)), "
                "h, per_channel(s))"
            ),
            (
                "(h.permute(0, 2, 3, 1) * (s := (p.var + 1e-5).rsqrt() * p.v) + (p.c - p.mean * "
                "s)).permute(0, 3, 1, 2)"
            ),
        ],
        "F.group_norm(h, 2, p.v, p.c, 1e-5)": [
            (
                "(((g := h.view(len(h), 2, -1)) - g.mean(-1, keepdim=True)) / (g.var(-1, "
                "keepdim=True, unbiased=False) + 1e-5).sqrt()).view(h.shape) * per_channel(p.v) "
                "+ per_channel(p.c)"
            ),
            (
                "(((g := h.reshape(len(h), 2, 2, 6, 6)) - (m := torch.var_mean(g, (2, 3, 4), "
                "keepdim=True, unbiased=False))[1]) * torch.rsqrt(m[0] + 1e-5)).reshape(h.shape) "
                "* p.v[None, :, None, None] + p.c[None, :, None, None]"
            ),
        ],
    },
    "dense": {
        "F.linear(h, p.w, p.b)": [
            "(h[:, None] * p.w).sum(-1) + p.b",
            "(h.unsqueeze(1) * p.w.unsqueeze(0)).sum(dim=2).add(p.b)",
            "(h[:, :, None] * p.w.t()).sum(1) + p.b",
            "torch.tensordot(h, p.w, ([1], [1])) + p.b",
            "torch.tensordot(h, p.w.t(), 1) + p.b",
            "torch.stack([torch.addmv(p.b, p.w, r) for r in h])",
            "torch.stack([torch.mv(p.w, r) for r in h]) + p.b",
            "torch.linalg.vecdot(h[:, None], p.w[None]) + p.b",
            "F.conv1d(h[:, :, None], p.w[:, :, None], p.b)[:, :, 0]",
            "F.conv2d(h[:, :, None, None], p.w[:, :, None, None], p.b).flatten(1)",
            'torch.einsum("bi,oi->bo", h, p.w).add(p.b)',
            "torch.einsum(h, [0, 1], p.w, [2, 1], [0, 2]) + p.b",
            'torch.einsum("bi,ji", h, p.w) + p.b',
            "torch.baddbmm(p.b.expand(1, len(h), 6), h[None], p.w.t()[None])[0]",
            (
                "torch.chain_matmul(h, p.w.t()) + p.b if False else torch.linalg.multi_dot([h, "
                "p.w.t()]) + p.b"
            ),
            "(h[:, None] * p.w).mean(-1) * 8 + p.b",
            "torch.rsub(F.linear(h, -p.w), p.b)",
            "torch.subtract(F.linear(h, p.w), -p.b)",
            "torch.true_divide(F.linear(h, 2 * p.w, 2 * p.b), 2)",
            "torch.multiply(F.linear(h, p.w / 2, p.b / 2), 2)",
            "torch.lerp(F.linear(h, 2 * p.w, p.b), p.b.expand(len(h), 6), 0.5)",
            "torch.addcmul(p.b, F.linear(h, p.w / 2), torch.full((6,), 2.0, dtype=h.dtype))",
            "torch.addcdiv(p.b, F.linear(h, p.w * 2), torch.full((6,), 2.0, dtype=h.dtype))",
            "torch.matmul(h[:, None, None], p.w.t()).flatten(1) + p.b",
            "torch._C._nn.linear(h, p.w, p.b)",
        ],
    },
    "conv": {
        "F.conv2d(h, p.w, p.b, padding=1)": [
            "F.conv2d(F.pad(h, (1, 1, 1, 1)), p.w, p.b)",
            'F.conv2d(h, p.w, p.b, padding="same")',
            "F.conv2d(nn.ZeroPad2d(1)(h), p.w, p.b)",
            "F.conv_transpose2d(h, p.w.flip(2, 3).transpose(0, 1), p.b, padding=1)",
            "torch.convolution(h, p.w, p.b, (1, 1), (1, 1), (1, 1), False, (0, 0), 1)",
            "torch.ops.aten.convolution(h, p.w, p.b, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)",
            "F.conv3d(h[:, :, None], p.w[:, :, None], p.b, padding=(0, 1, 1))[:, :, 0]",
        ],
        "F.conv2d(h, p.w[:, :1], p.b, padding=1, groups=4)": [
            (
                'torch.einsum("bchwij,cij->bchw", F.pad(h, (1, 1, 1, 1)).unfold(2, 3, '
                "1).unfold(3, 3, 1), p.w[:, 0]) + per_channel(p.b)"
            ),
            (
                "torch.cat([F.conv2d(h[:, i:i + 1], p.w[i:i + 1, :1], p.b[i:i + 1], padding=1) "
                "for i in range(4)], 1)"
            ),
            (
                "(F.unfold(h, 3, padding=1).view(len(h), 4, 9, -1) * p.w[:, :1].reshape(1, 4, 9, "
                "1)).sum(2).view(h.shape) + per_channel(p.b)"
            ),
        ],
        "F.conv2d(h, p.w[:, :, :1, :1], p.b)": [
            "F.linear(h.permute(0, 2, 3, 1), p.mix, p.b).permute(0, 3, 1, 2)",
            'torch.einsum("bihw,oi->bohw", h, p.mix) + per_channel(p.b)',
            "(p.mix @ h.flatten(2)).view(h.shape) + per_channel(p.b)",
            "torch.tensordot(h, p.mix, ([1], [1])).permute(0, 3, 1, 2) + per_channel(p.b)",
            "torch.tensordot(p.mix, h, ([1], [1])).transpose(0, 1) + per_channel(p.b)",
            "(h[:, None] * p.mix[None, :, :, None, None]).sum(2) + per_channel(p.b)",
            "torch.bmm(p.mix.expand(len(h), 4, 4), h.flatten(2)).view(h.shape) + per_channel(p.b)",
            (
                "torch.baddbmm(p.b[None, :, None], p.mix.expand(len(h), 4, 4), "
                "h.flatten(2)).view(h.shape)"
            ),
            "F.conv1d(h.flatten(2), p.mix[:, :, None], p.b).view(h.shape)",
        ],
        "h + F.conv2d(h, p.w, p.b, padding=1)": [
            "h.clone().add_(F.conv2d(h, p.w, p.b, padding=1))",
            "torch.add(h, F.conv2d(h, p.w, p.b, padding=1))",
            "torch.stack([h, F.conv2d(h, p.w, p.b, padding=1)]).sum(0)",
            "sum([h, F.conv2d(h, p.w, p.b, padding=1)])",
            "h - -F.conv2d(h, p.w, p.b, padding=1)",
            "2 * torch.lerp(h, F.conv2d(h, p.w, p.b, padding=1), 0.5)",
            "torch.addcmul(h, F.conv2d(h, p.w, p.b, padding=1), torch.ones((), dtype=h.dtype))",
            "torch.stack([h, F.conv2d(h, p.w, p.b, padding=1)]).mean(0) * 2",
            "torch.cat([h[:, None], F.conv2d(h, p.w, p.b, padding=1)[:, None]], 1).sum(1)",
            "torch.rsub(-h, F.conv2d(h, p.w, p.b, padding=1))",
            "torch.add(h, F.conv2d(h, p.w, p.b, padding=1) / 2, alpha=2)",
            'torch.einsum("sbchw->bchw", torch.stack([h, F.conv2d(h, p.w, p.b, padding=1)]))',
            "torch.ops.aten.add.Tensor(h, F.conv2d(h, p.w, p.b, padding=1))",
        ],
        "torch.cat([h[:, 2:], F.conv2d(h, p.w, p.b, padding=1)[:, :2]], 1)": [
            "torch.concat([h[:, 2:], F.conv2d(h, p.w, p.b, padding=1)[:, :2]], 1)",
            "torch.hstack([h[:, 2:], F.conv2d(h, p.w, p.b, padding=1)[:, :2]])",
            "torch.cat([h.split(2, 1)[1], F.conv2d(h, p.w, p.b, padding=1).chunk(2, 1)[0]], 1)",
            "torch.stack([*h.unbind(1)[2:], *F.conv2d(h, p.w, p.b, padding=1).unbind(1)[:2]], 1)",
            (
                "torch.cat([torch.tensor_split(h, 2, 1)[1], F.conv2d(h, p.w, p.b, "
                "padding=1).narrow(1, 0, 2)], 1)"
            ),
            (
                "torch.stack([h.select(1, 2), h.select(1, 3), F.conv2d(h, p.w, p.b, "
                "padding=1).select(1, 0), F.conv2d(h, p.w, p.b, padding=1).select(1, 1)], 1)"
            ),
            (
                "torch.cat([h, F.conv2d(h, p.w, p.b, padding=1)], 1).index_select(1, "
                "torch.tensor([2, 3, 4, 5]))"
            ),
            "torch.cat([h, F.conv2d(h, p.w, p.b, padding=1)], 1)[:, [2, 3, 4, 5]]",
            (
                "torch.cat([h, F.conv2d(h, p.w, p.b, padding=1)], 1).gather(1, torch.tensor([2, "
                "3, 4, 5]).view(1, 4, 1, 1).expand(len(h), 4, 6, 6))"
            ),
            (
                "torch.take_along_dim(torch.cat([h, F.conv2d(h, p.w, p.b, padding=1)], 1), "
                "torch.tensor([2, 3, 4, 5]).view(1, 4, 1, 1), 1)"
            ),
            (
                "F.pad(h[:, 2:], (0, 0, 0, 0, 0, 2)) + F.pad(F.conv2d(h, p.w, p.b, padding=1)[:, "
                ":2], (0, 0, 0, 0, 2, 0))"
            ),
            (
                "torch.cat([h[:, 2:].transpose(0, 1), F.conv2d(h, p.w, p.b, padding=1)[:, "
                ":2].transpose(0, 1)]).transpose(0, 1)"
            ),
            (
                "torch.cat([h.roll(2, 1)[:, :2], F.conv2d(h, p.w, p.b, "
                "padding=1).flip(1).flip(1)[:, :2]], 1)"
            ),
            (
                'torch.einsum("bchw,oc->bohw", torch.cat([h, F.conv2d(h, p.w, p.b, padding=1)], '
                "1), torch.eye(8, dtype=h.dtype)[2:6])"
            ),
            (
                "torch.cat([h, F.conv2d(h, p.w, p.b, padding=1)], 1)[:, torch.tensor([0, 0, 1, "
                "1, 1, 1, 0, 0]).bool()]"
            ),
            (
                "torch.slice_scatter(torch.slice_scatter(torch.zeros_like(h), h[:, 2:], 1, 0, "
                "2), F.conv2d(h, p.w, p.b, padding=1)[:, :2], 1, 2, 4)"
            ),
        ],
    },
    "pooled": {
        "F.avg_pool2d(h, 2)": [
            "h.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).mean((3, 5))",
            "h.view(len(h), 4, 3, 2, 3, 2).sum((3, 5)) / 4",
            "F.unfold(h, 2, stride=2).view(len(h), 4, 4, 9).mean(2).view(len(h), 4, 3, 3)",
            "h.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))",
            "(h[..., ::2, ::2] + h[..., 1::2, ::2] + h[..., ::2, 1::2] + h[..., 1::2, 1::2]) / 4",
            'F.interpolate(h, scale_factor=0.5, mode="area")',
            "F.adaptive_avg_pool2d(h, 3)",
            'F.interpolate(h, scale_factor=0.5, mode="bilinear")',
            "torch.stack([h[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]).mean(0)",
        ],
        "F.max_pool2d(h, 2)": [
            "h.view(len(h), 4, 3, 2, 3, 2).amax((3, 5))",
            "F.unfold(h, 2, stride=2).view(len(h), 4, 4, 9).max(2).values.view(len(h), 4, 3, 3)",
            "h.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))",
            (
                "torch.maximum(torch.maximum(h[..., ::2, ::2], h[..., 1::2, ::2]), "
                "torch.maximum(h[..., ::2, 1::2], h[..., 1::2, 1::2]))"
            ),
            "F.adaptive_max_pool2d(h, 3)",
            "F.max_pool2d(h, 2, return_indices=True)[0]",
            "F.max_pool3d(h, (1, 2, 2))",
            (
                "(u := h.view(len(h), 4, 3, 2, 3, 2).transpose(3, 4).flatten(4)).gather(-1, "
                "u.argmax(-1, keepdim=True))[..., 0]"
            ),
            (
                "(u := h.view(len(h), 4, 3, 2, 3, 2).transpose(3, "
                "4).flatten(4)).take_along_dim(u.argmax(-1, keepdim=True), -1)[..., 0]"
            ),
            "-(-h).view(len(h), 4, 3, 2, 3, 2).amin((3, 5))",
        ],
        "F.adaptive_avg_pool2d(h, 1).flatten(1)": [
            "h.mean((2, 3))",
            "h.mean(-1).mean(-1)",
            "h.view(len(h), 4, -1).mean(-1)",
            "h.sum((2, 3)) / 36",
            "F.avg_pool2d(h, 6)[:, :, 0, 0]",
            'torch.einsum("bchw->bc", h) / 36',
            "(h.flatten(2) @ torch.full((36, 1), 1 / 36, dtype=h.dtype))[..., 0]",
            "F.linear(h.flatten(2), torch.full((1, 36), 1 / 36, dtype=h.dtype)).flatten(1)",
            "F.adaptive_avg_pool2d(h, (1, None)).mean(3).squeeze(2)",
            (
                "torch.bmm(h.flatten(2), torch.full((len(h), 36, 1), 1 / 36, "
                "dtype=h.dtype)).squeeze(-1)"
            ),
            "torch.stack([h[:, :, i, j] for i in range(6) for j in range(6)]).sum(0) / 36",
            "h.flatten(2).cumsum(-1)[..., -1] / 36",
            "torch.tensordot(h.flatten(2), torch.full((36,), 1 / 36, dtype=h.dtype), 1)",
        ],
        "F.adaptive_max_pool2d(h, 1).flatten(1)": [
            "h.amax((2, 3))",
            "h.flatten(2).max(-1).values",
            "h.max(-1)[0].max(-1)[0]",
            "F.max_pool2d(h, 6).flatten(1)",
        ],
        "F.pixel_shuffle(h.repeat(1, 4, 1, 1), 2)": [
            "nn.PixelShuffle(2)(torch.cat([h] * 4, 1))",
            "torch.pixel_shuffle(h.tile(1, 4, 1, 1), 2)",
        ],
        "F.interpolate(h, scale_factor=2)": [
            "h.repeat_interleave(2, 2).repeat_interleave(2, 3)",
            "h[:, :, :, None, :, None].expand(len(h), 4, 6, 2, 6, 2).reshape(len(h), 4, 12, 12)",
            "nn.UpsamplingNearest2d(scale_factor=2)(h)",
            "h[:, :, torch.arange(12) // 2][..., torch.arange(12) // 2]",
        ],
        'F.pad(h, (1, 1, 1, 1), mode="reflect")': [
            "h[:, :, [1, 0, 1, 2, 3, 4, 5, 4]][..., [1, 0, 1, 2, 3, 4, 5, 4]]",
            (
                "(lambda g: torch.cat([g[..., 1:2], g, g[..., 4:5]], 3))(torch.cat([h[:, :, "
                "1:2], h, h[:, :, 4:5]], 2))"
            ),
            "nn.ReflectionPad2d(1)(h)",
        ],
        'F.pad(h, (1, 1, 1, 1), mode="circular")': [
            "torch.cat([h[..., -1:], h, h[..., :1]], 3)[:, :, [5, 0, 1, 2, 3, 4, 5, 0]]",
        ],
        'F.pad(h, (1, 1, 1, 1), mode="replicate")': [
            "h[:, :, [0, 0, 1, 2, 3, 4, 5, 5]][..., [0, 0, 1, 2, 3, 4, 5, 5]]",
            "nn.ReplicationPad2d(1)(h)",
        ],
        "F.avg_pool2d(F.batch_norm(h, p.mean, p.var, p.v, p.c), 2)": [
            (
                "F.avg_pool2d((h - per_channel(p.mean)) / torch.sqrt(per_channel(p.var) + 1e-5) "
                "* per_channel(p.v) + per_channel(p.c), 2)"
            ),
            (
                "F.avg_pool2d((h - per_channel(p.mean)) * per_channel((p.var + 1e-5).rsqrt() * "
                "p.v) + per_channel(p.c), 2)"
            ),
            (
                "F.avg_pool2d(h * per_channel(s := (p.var + 1e-5).rsqrt() * p.v) + "
                "per_channel(p.c - p.mean * s), 2)"
            ),
            (
                "F.avg_pool2d(torch.addcmul(per_channel(p.c - p.mean * (s := (p.var + "
                "1e-5).rsqrt() * p.v)), h, per_channel(s)), 2)"
            ),
        ],
    },
}


def per_channel(values: Tensor) -> Tensor:
    """Of a shape that broadcasts to feature maps."""
    return values.view(1, -1, 1, 1)


class Spelled(nn.Module):
    """A small network with a function in it.

    Args:
        kind: what the function gets: one of ``GROUPS``.
        spelling: of the function.
    """

    def __init__(self, kind: str, spelling: str) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        names = {"torch": torch, "F": F, "math": math, "nn": nn, "per_channel": per_channel}
        self.function = eval(f"lambda h, p: {spelling}", names)
        self.kind = kind

        def weight(*shape: int) -> nn.Parameter:
            scale = (2 / torch.Size(shape[1:]).numel()) ** 0.5
            return nn.Parameter(torch.randn(shape, generator=draw, dtype=torch.float64) * scale)

        tokens = kind in ("tokens", "attention")
        width = 8 if tokens or kind == "dense" else 4
        self.a = weight(8, 48) if kind == "dense" else weight(width, 3, *[2 if tokens else 3] * 2)
        self.ab, self.v, self.c = weight(width), weight(width), weight(width)
        self.b = weight(6 if kind == "dense" else width)
        self.w = weight(6, 8) if kind == "dense" else weight(width, width, *[3, 3][tokens * 2 :])
        self.mean, self.var = self.ab.detach().flip(0), self.ab.detach().square() + 0.5
        self.qkv, self.head = weight(24, 8), weight(3, len(self.b))

    @property
    def mix(self) -> Tensor:
        """The middle of the convolution, [C, C]."""
        return self.w[:, :, 0, 0]

    def forward(self, x: Tensor) -> Tensor:
        if self.kind in ("tokens", "attention"):
            return F.linear(self.mixed(x).mean(1), self.head)
        if self.kind == "dense":
            h = F.relu(F.linear(x.flatten(1)[:, :48], self.a, self.ab))
            return F.linear(F.relu(self.function(h, self)), self.head)
        h = F.conv2d(x, self.a, self.ab, padding=1)
        h = self.function(h if self.kind == "image" else F.relu(h), self)
        if self.kind == "conv":
            h = F.relu(h)
        elif h.dim() == 4:
            h = F.relu(F.conv2d(h, self.w, self.b, padding=1))
        return F.linear(h if h.dim() == 2 else h.mean((2, 3)), self.head)

    def mixed(self, x: Tensor) -> Tensor:
        h = F.conv2d(x, self.a, self.ab, stride=2).flatten(2).transpose(1, 2)
        if self.kind == "tokens":
            return F.relu(F.linear(self.function(h, self), self.w, self.b))
        heads = F.linear(h, self.qkv).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)
        weights = self.function(query @ key.transpose(-2, -1) / 2, self)
        return h + F.linear((weights @ value).transpose(1, 2).flatten(2), self.w, self.b)
