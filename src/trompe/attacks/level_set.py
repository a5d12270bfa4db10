"""Moving along the set of images that have the same output, exactly."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trompe.attacks.constraints import Constraint
from trompe.attacks.keep import Keep
from trompe.attacks.observation import Observation
from trompe.per_image import per_image
from trompe.types import InputSpace

_NEWTON = 20  # iterations at most: a ReLU network is linear around an image, one or two suffice
_REFRESH = 10  # steps for which a Jacobian serves: it changes with the network's linear pieces
_DAMPING = 1e-10  # of the largest eigenvalue, so that outputs that depend on one another do no harm


@dataclass
class LevelSet:
    """The images around original ones whose output is the original one's.

    With the Jacobian J of what is kept of the output, at x on the ORIGINAL model, a gradient or a
    step d becomes its part along the level set, ``d - J^T (J J^T)^-1 J d`` (the gradient, too, or
    a step that scales pixel by pixel would come to rest off the optimum); and the error r of the
    output that is left, by curvature and rounding, is taken back by Newton's method,
    ``x - J^T (J J^T)^-1 r``, the least change that does so to first order (pixels at the border of
    what is allowed left out).

    Args:
        model: the original model.
        keep: what is kept; see ``Keep.quantities``.
        reference: the original images.
        constraint: where the images must stay.
        space: the model's normalisation.
    """

    model: nn.Module
    keep: Keep
    reference: Observation
    constraint: Constraint
    space: InputSpace
    _jacobian: Tensor | None = field(default=None, init=False)
    _mend: Tensor | None = field(default=None, init=False)
    _age: int = field(default=0, init=False)

    def look(self, x: Tensor) -> None:
        """Take notice of x, where the next step begins; the Jacobian serves several steps."""
        self._mend = None
        if self._jacobian is None or self._age >= _REFRESH:
            self._mend, kept, image = self._error(x)
            self._jacobian, self._age = _rows(kept, image), 0
        self._age += 1

    def tangent(self, way: Tensor) -> Tensor:
        """A direction [B, C, H, W] without its part that changes the output."""
        return self._without(way, None)

    def along(self, move: Tensor) -> Tensor:
        """A step without its part that changes the output, and with what mends it."""
        return self._without(move, self._mend)

    def _without(self, way: Tensor, mend: Tensor | None) -> Tensor:
        assert self._jacobian is not None, "look comes first"
        change = torch.einsum("mbn,bn->bm", self._jacobian, way.flatten(1))
        wanted = change if mend is None else change + mend
        return way - _least(self._jacobian, wanted).view_as(way)

    def restore(self, x: Tensor) -> Tensor:
        """The images with their output restored, where Newton's method arrives; allowed images.

        A step that makes the error larger is halved: a network is linear in pieces, and one step
        may end on another piece.
        """
        x = self.constraint.project(x, self.reference.x, self.space)
        free = torch.ones_like(x, dtype=torch.bool)
        best, step = x, torch.zeros_like(x)
        least = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        share = torch.ones_like(least)
        for _ in range(_NEWTON):
            error, kept, image = self._error(x)
            excess = self.keep.excess(error, self.reference)
            better = excess < least
            best = torch.where(per_image(better, x), x, best)
            least = torch.where(better, excess, least)
            # Half of what is tolerated: the judge may compute in another order.
            if bool((least <= 0.5).all()):
                break
            share = torch.where(better, 1.0, share / 2)
            fresh = _least(_rows(kept, image) * free.flatten(1), error).view_as(x)
            step = torch.where(per_image(better, x), fresh, step)
            there = best - per_image(share, x) * step
            x = self.constraint.project(there, self.reference.x, self.space)
            free = free & ((x - there).abs() <= 1e-6 * self.space.scale(1.0, x))
            # All pixels at the border: begin anew with all of them.
            free = torch.where(per_image(free.flatten(1).any(dim=1), x), free, True)
        self._jacobian = None
        return best.detach()

    def _error(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The error of what is kept, [B, m]; and what is kept, with its graph to the images."""
        with torch.enable_grad():
            image = x.detach().requires_grad_(True)
            kept = self.keep.quantities(self.model(image), self.reference.logits)
        before = self.keep.quantities(self.reference.logits, self.reference.logits)
        return (kept - before).detach(), kept, image


def _rows(kept: Tensor, image: Tensor) -> Tensor:
    """The Jacobian of what is kept [B, m], [m, B, C H W]: in one batched backward pass if it can.

    Images do not mix, so that the gradient of a sum over them has the rows of all.
    """
    with torch.enable_grad():
        totals = kept.sum(dim=0)
    seeds = torch.eye(len(totals), dtype=kept.dtype, device=kept.device)
    try:
        (rows,) = torch.autograd.grad(
            totals, image, seeds, retain_graph=True, is_grads_batched=True
        )
    except RuntimeError:  # an operation without a batching rule
        rows = torch.stack(
            [torch.autograd.grad(totals, image, seed, retain_graph=True)[0] for seed in seeds]
        )
    return rows.detach().flatten(2)


def _least(jacobian: Tensor, wanted: Tensor) -> Tensor:
    """The least change [B, n] that changes the outputs by ``wanted`` [B, m] to first order."""
    rows = jacobian.transpose(0, 1).double()
    gram = rows @ rows.transpose(1, 2)
    largest = gram.diagonal(dim1=1, dim2=2).amax(dim=1).clamp_min(1e-30)
    damping = torch.diag_embed((_DAMPING * largest).unsqueeze(1).expand(gram.shape[:2]))
    weights = torch.linalg.solve(gram + damping, wanted.double().unsqueeze(2))
    return (rows.transpose(1, 2) @ weights).squeeze(2).to(wanted.dtype)
