"""What a certificate from noisy copies says of the smoothed map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.in_brief import InBrief


@dataclass(frozen=True, repr=False)
class NoiseCertificate(InBrief):
    """What holds for every image within each radius, with ``confidence`` for each of B images.

    With e Gaussian noise, m(z) the heat map of z added up over squares (P of them, H x W) and u(z)
    the same map standardised (mean subtracted, divided by its norm), the maps spoken of are smooth:
    ``E m(x + e)``, ``E u(x + e)``, and the vote ``P(square among the k largest of m(x + e))``.
    Nothing is said of the plain map m(x). R radii; all is on the CPU.

    Args:
        radii: In l2 as ``norm`` says, in pixel units, [R].
        norm: ``l2``, or ``l1`` or ``linf`` (by the l2 ball around them).
        pcc: At least the correlation (PCC) of ``E u`` at any point of the ball with that at x,
            [B, R]; -1 where nothing is known.
        heatmap_l1: At most the l1 change of ``E m``, 0..2, [B, R].
        members: The squares that stay among the k of the largest vote, bool [B, R, H, W].
        votes: Anani et al. 2025: 1 where a square stays among the k largest of most noisy maps, -1
            where it stays out, 0 where neither is known, int8 [B, R, H, W].
        label_kept: Whether the class predicted for most noisy copies stays, bool [B, R].
        label: That class, [B].
        label_radius: The largest radius for which it surely stays, pixel units, [B]; 0 if none.
        label_share: Its share among the noisy copies, [B].
        target: The class explained, [B].
        target_share: The share of the noisy copies predicted as that, [B].
        smoothed: The mean heat map of the copies, [B, H, W], each summing to 1.
        standardised: The mean standardised map, [B, H, W].
        pcc_to_plain: Correlation of that with the plain map, [B].
        top: k.
        sigma: Of the noise, in pixel units.
        samples: How many noisy copies were counted, for each image.
        pilot: Noisy copies that chose what to count, per image.
        confidence: That all of this holds, for each image.
        pool: Side of the squares, in pixels.
    """

    radii: tuple[float, ...]
    norm: str
    pcc: Tensor
    heatmap_l1: Tensor
    members: Tensor
    votes: Tensor
    label_kept: Tensor
    label: Tensor
    label_radius: Tensor
    label_share: Tensor
    target: Tensor
    target_share: Tensor
    smoothed: Tensor
    standardised: Tensor
    pcc_to_plain: Tensor
    top: int
    sigma: float
    samples: tuple[int, ...]
    pilot: int
    confidence: float
    pool: int

    @property
    def overlap(self) -> Tensor:
        """At least the share of the k largest votes that stay among the k largest, [B, R]."""
        count: Tensor = self.members.flatten(2).sum(dim=2).double()
        return count / self.top

    @property
    def iou(self) -> Tensor:
        """At least intersection over union of the sets of the k largest votes, [B, R]."""
        return self.overlap / (2 - self.overlap)

    @property
    def void(self) -> Tensor:
        """Where the correlation is not bounded at all, bool [B, R]."""
        return self.pcc <= -1

    @property
    def votes_certified(self) -> Tensor:
        """The share of the squares whose vote is certain, 0..1, [B, R]."""
        return (self.votes != 0).flatten(2).to(torch.float64).mean(dim=2)
