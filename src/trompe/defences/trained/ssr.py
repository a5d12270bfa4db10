"""Smooth surface regularisation: the largest curvature of the loss through the softmax."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.defences.base import Defence, defences
from trompe.training import Batch


@defences.register("ssr")
@dataclass(frozen=True)
class SmoothSurface(Defence):
    """``weight * lambda_max(J^T (diag p - p p^T) J)``, J the logits' Jacobian (Wang et al. 2020).

    That is the Hessian of the cross entropy of a network of ReLU, away from its kinks. By K
    gradients, and K x K eigenvalues: with ``diag p - p p^T = S S^T``, ``S = diag sqrt(p) - p
    sqrt(p)^T``, the matrix ``S^T J J^T S`` has the same largest eigenvalue. In pixel units.

    Trap: it shrinks where the network is sure of itself, so that logits times ten "harden" it
    without moving a single explanation.

    Args:
        weight: Of the eigenvalue.
    """

    weight: float = 0.3

    source = "Wang et al. 2020"

    def penalty(self, model: nn.Module, batch: Batch) -> Tensor:
        """The weighted largest eigenvalue, [B]."""
        x = batch.x.detach().requires_grad_(True)
        logits = model(x)
        scale = batch.space.scale(1.0, x)
        rows = []
        for column in logits.unbind(dim=1):
            (row,) = torch.autograd.grad(column.sum(), x, create_graph=True)
            rows.append((row * scale).flatten(1))
        jacobian = torch.stack(rows, dim=1)
        p = logits.softmax(dim=1)
        root = p.clamp(min=1e-30).sqrt()
        s = torch.diag_embed(root) - p[:, :, None] * root[:, None, :]
        inner = s.mT @ (jacobian @ jacobian.mT) @ s
        found: Tensor = torch.linalg.eigvalsh((inner + inner.mT) / 2)[:, -1]
        return self.weight * found
