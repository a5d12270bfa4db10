"""Attacks on a smoothed map and on the plain one, within l2 balls, judged on noise of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from trompe.attacks.constraints import L2Ball
from trompe.attacks.keep import Keep
from trompe.attacks.manipulation import manipulate
from trompe.attacks.presets import preset_for
from trompe.attacks.steps import Apgd
from trompe.certificates.methods.noise import SmoothedMap
from trompe.certificates.noisy_maps import Noise
from trompe.certificates.smoothed_squares import SmoothedSquares
from trompe.certificates.turning import Turning
from trompe.explain import Method
from trompe.interruption import whole
from trompe.types import InputSpace

JUDGED_ON = 300
"""Noisy copies, never seen by an attack, on which it is chosen, and as many on which it is told."""
_CHOICE, _REPORT = 12345, 54321
"""Seeds of the two draws."""


@dataclass(frozen=True)
class _Judged:
    """What the copies of one draw say of an image.

    Args:
        units: Mean standardised map of each half, [2, P].
        share: Mean heat map, [P].
        vote: How often each square was among the largest, [P].
    """

    units: Tensor
    share: Tensor
    vote: Tensor

    def kept(self, other: _Judged, top: int) -> tuple[float, float, float]:
        """What another image, on the same draw, leaves: correlation, minus l1 change, overlap."""
        held, now = (set(one.vote.topk(top).indices.tolist()) for one in (self, other))
        return (
            correlation(self.units, other.units),
            -float((other.share - self.share).abs().sum()),
            len(held & now) / top,
        )


class SmoothedAttack:
    """The attacks on one image, radius by radius; what a smaller ball held, a larger one holds.

    Args:
        model: The classifier.
        x: The image, [1, C, H, W], normalised.
        target: The class explained, [1].
        method: What is certified: explainer, noise, squares, denoiser.
        space: The model's normalisation.
        iterations: Steps of each attack.
        copies: Noisy copies that a step of an attack sees.
        top: How many squares count as the largest.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor,
        method: SmoothedMap,
        space: InputSpace,
        iterations: int,
        copies: int,
        top: int,
    ) -> None:
        self.model, self.x, self.target, self.space = model, x, target, space
        self.method, self.iterations, self.top = method, iterations, top
        self.denoise = method.denoise(space)
        self.map = SmoothedSquares(
            method.explainer, method.sigma, space, method.pool, copies, denoise=self.denoise
        )
        self.plain_map = SmoothedSquares(method.explainer, 0.0, space, method.pool)
        base = method.explainer if isinstance(method.explainer, Method) else "gradient"
        free = preset_for("fast", base, x.shape[-2])
        self.preset = replace(free, closeness=0.0, prefactors=(1.0, 0.0))
        self.turning = Turning(
            model, x, target, method, space, self.preset, copies * iterations, self.denoise
        )
        self.before, self.told_before = self._judged(x, _CHOICE), self._judged(x, _REPORT)
        self.plain_before = self._plain(x)
        self.least: list[tuple[float, Tensor]] = [(1.0, x), (0.0, x), (1.0, x)]
        self.plain_worst = 1.0

    def smoothed(self, radius: float) -> tuple[float, float, float]:
        """Correlation, l1 change and overlap that the strongest attacks so far leave.

        Which is the strongest is chosen, for each of the three, on one draw of noise; what is told
        of it comes from another. The least of several estimates is too low by chance: the same draw
        must not do both.
        """
        turned = self.turning(radius)
        attempts = self._attempts(self.map, radius)
        for found in attempts if turned is None else [*attempts, turned]:
            kept = self.before.kept(self._judged(found, _CHOICE), self.top)
            self.least = [
                (new, found) if new < old[0] else old
                for new, old in zip(kept, self.least, strict=True)
            ]
        told: dict[int, tuple[float, float, float]] = {}
        for _, found in self.least:
            if id(found) not in told:
                told[id(found)] = self.told_before.kept(self._judged(found, _REPORT), self.top)
        pcc, l1, overlap = (told[id(found)][i] for i, (_, found) in enumerate(self.least))
        return pcc, -l1, overlap

    def plain(self, radius: float) -> float:
        """The least correlation of the plain map found so far."""
        for found in self._attempts(self.plain_map, radius):
            self.plain_worst = min(self.plain_worst, float(self._plain(found) @ self.plain_before))
        return self.plain_worst

    def _attempts(self, explainer: SmoothedSquares, radius: float) -> list[Tensor]:
        """Two ascents: Adam's steps on noise drawn anew in each, APGD's on the same noise.

        The first cannot fit the noise, but sees the difference of two draws beside that of two
        images; the second is the other way round. Which is stronger depends on the network.
        """
        attempts = []
        for step, redraw in ((None, explainer.sigma > 0), (Apgd(radius, norm="l2"), False)):
            result = whole(
                manipulate(
                    self.model,
                    self.x,
                    explainer=explainer,
                    objective="unlike",
                    constraint=L2Ball(radius),
                    keep_output=Keep("class"),
                    step=step,
                    preset=self.preset,
                    target=self.target,
                    input_space=self.space,
                    iterations=self.iterations,
                    redraw=redraw,
                    keep="last" if redraw else "best",
                )
            )
            attempts.append(result.x_adv.to(self.x))
        return attempts

    def _noise(self, x: Tensor, seed: int) -> Noise:
        return Noise(
            model=self.model,
            explain=self.method.explainer,  # type: ignore[arg-type]  # a name was resolved
            x=x,
            target=self.target,
            sigma=self.method.sigma,
            input_space=self.space,
            pool=self.method.pool,
            batch_size=self.method.batch_size,
            generator=torch.Generator().manual_seed(seed),
            denoise=self.denoise,
        )

    def _judged(self, x: Tensor, seed: int) -> _Judged:
        """An image, [1, C, H, W], on the copies of one draw, the same for every image."""
        noise = self._noise(x, seed)
        u, share, vote = [], torch.zeros(()), torch.zeros(())
        for _ in range(2):
            half = list(noise.batches(JUDGED_ON // 2))
            u.append(torch.stack([batch.standardised.sum(0) for batch in half]).sum(0))
            share = share + torch.stack([batch.shares.sum(0) for batch in half]).sum(0)
            vote = vote + torch.stack([batch.top(self.top).double().sum(0) for batch in half]).sum(
                0
            )
        return _Judged(torch.stack(u), share / JUDGED_ON, vote / JUDGED_ON)

    def _plain(self, x: Tensor) -> Tensor:
        return self._noise(x, _REPORT).plain()[0].standardised[0]


def correlation(one: Tensor, other: Tensor) -> float:
    """The correlation of two expected standardised maps, from the means of two halves of each.

    The correlation of two means over the same copies takes what is left of their noise for a change
    of the map; products of halves that share no copy have the right expectations. Where the noise
    left outweighs what is expected, a quotient of such products can be anything: there the larger
    of the two counts, so that chance makes no attack.

    Args:
        one: The means of two halves, [2, P].
        other: Those of the other image, over the same noise half by half, [2, P].
    """
    whole, other_whole = one.mean(0), other.mean(0)
    lengths = (whole.norm() * other_whole.norm()).clamp(min=1e-300)
    plain = float(whole @ other_whole / lengths)
    sizes = [one[0] @ one[1], other[0] @ other[1]]
    if min(sizes) <= 0:  # nothing but noise
        return max(-1.0, min(1.0, plain))
    crossed = (one[0] @ other[1] + one[1] @ other[0]) / 2
    found = float(crossed / (sizes[0].sqrt() * sizes[1].sqrt()))
    if sizes[0] < whole @ whole / 2 or sizes[1] < other_whole @ other_whole / 2:
        found = max(found, plain)
    return max(-1.0, min(1.0, found))
