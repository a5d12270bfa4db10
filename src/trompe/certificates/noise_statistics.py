"""What is counted over noisy copies: a pilot chooses what to look at, fresh samples measure it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trompe.certificates.noisy_maps import NoisyMaps

_LEVELS = 24
"""Thresholds along a distribution."""


@dataclass(frozen=True)
class Pilot:
    """What the first samples choose; nothing here is an estimate that a bound relies on.

    Args:
        direction: A unit vector w, the direction of the mean standardised map, [P].
        along: Rising thresholds of ``<u, w>``, [K].
        centre: A map h0, the mean heat map, [P].
        away: Rising thresholds of ``|m - h0|_1``, [J].
        label: The class predicted most often.
        top: How many squares count as the largest of a map.
    """

    direction: Tensor
    along: Tensor
    centre: Tensor
    away: Tensor
    label: int
    top: int

    @staticmethod
    def of(maps: list[NoisyMaps], top: int) -> Pilot:
        """Choose from the first samples, which are then thrown away."""
        u = torch.cat([batch.standardised for batch in maps])
        shares = torch.cat([batch.shares for batch in maps])
        mean = u.mean(dim=0)
        direction = mean / mean.norm().clamp(min=1e-300)
        c, centre = u @ direction, shares.mean(dim=0)
        q = (shares - centre).abs().sum(dim=1)
        classes = torch.cat([batch.classes for batch in maps])
        levels = (torch.arange(_LEVELS).double() + 0.5) / _LEVELS
        # Beyond the pilot's extremes as well: no fresh sample should fall out at the wrong end.
        spread = (c.max() - c.min()).clamp(min=1e-3)
        below = c.min() - spread * torch.tensor([0.5, 0.2], dtype=torch.float64)
        above = q.max() + (q.max() - q.min()).clamp(min=1e-3) * torch.tensor(
            [0.1, 0.25, 0.5, 1.0], dtype=torch.float64
        )
        along = torch.cat([below, torch.quantile(c, levels) - 1e-9]).clamp(-1, 1).unique()
        away = torch.cat([torch.quantile(q, levels) + 1e-9, above]).clamp(0, 2).unique()
        return Pilot(direction, along, centre, away, int(classes.mode().values), top)


@dataclass
class Counted:
    """Sums over fresh samples; their size does not depend on how many there are.

    Args:
        pilot: What is looked at.
        explained: The class that is explained.
        samples: How many were counted.
        total: Sum of the standardised maps u, [P].
        square: Sum of ``u u^T``, [P, P].
        shares: Sum of the heat maps, [P].
        along: How often ``<u, w>`` reached each threshold, [K].
        away: How often ``|m - h0|_1`` reached each threshold, [J].
        marked: How often each square was among the largest, [P].
        label: How often the pilot's class was predicted.
        target: How often the explained class was predicted.
    """

    pilot: Pilot
    explained: int
    samples: int = 0
    total: Tensor = field(init=False)
    square: Tensor = field(init=False)
    shares: Tensor = field(init=False)
    along: Tensor = field(init=False)
    away: Tensor = field(init=False)
    marked: Tensor = field(init=False)
    label: int = 0
    target: int = 0

    def __post_init__(self) -> None:
        size = len(self.pilot.direction)
        self.total = torch.zeros(size, dtype=torch.float64)
        self.square = torch.zeros(size, size, dtype=torch.float64)
        self.shares = torch.zeros_like(self.total)
        self.along = torch.zeros(len(self.pilot.along), dtype=torch.int64)
        self.away = torch.zeros(len(self.pilot.away), dtype=torch.int64)
        self.marked = torch.zeros(size, dtype=torch.int64)

    def add(self, batch: NoisyMaps) -> None:
        """Count one more batch."""
        u, pilot = batch.standardised, self.pilot
        self.samples += len(u)
        self.total += u.sum(dim=0)
        self.square.addmm_(u.mT, u)
        self.shares += batch.shares.sum(dim=0)
        c = u @ pilot.direction
        self.along += (c[:, None] >= pilot.along).sum(dim=0)
        q = (batch.shares - pilot.centre).abs().sum(dim=1)
        self.away += (q[:, None] >= pilot.away).sum(dim=0)
        self.marked += batch.top(pilot.top).sum(dim=0)
        self.label += int((batch.classes == pilot.label).sum())
        self.target += int((batch.classes == self.explained).sum())

    @property
    def spread(self) -> float:
        """The largest eigenvalue of the samples' covariance of u, within 0..1."""
        mean = self.total / self.samples
        covariance = self.square / self.samples - torch.outer(mean, mean)
        return min(max(float(torch.linalg.eigvalsh(covariance)[-1]), 0.0), 1.0)

    def counts(self, name: str) -> NDArray[np.int64]:
        """The counts of that name as integers of NumPy."""
        return np.asarray(getattr(self, name), dtype=np.int64)
