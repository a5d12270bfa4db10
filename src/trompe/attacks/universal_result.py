"""What one change for all images does, and to which images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trompe.types import InputSpace


@dataclass(frozen=True)
class Judged:
    """What one change does to images, [N] each, on the original model.

    Args:
        original: Pearson correlation of the changed image's map with the original one's.
        target: with the map that was aimed at; ``None`` where there is none.
        kept: whether the model's answer stays, bool.
    """

    original: Tensor
    target: Tensor | None
    kept: Tensor

    def mean(self) -> float:
        """The mean correlation with the original map where the answer stays; NaN if nowhere."""
        return float(self.original[self.kept].nanmean()) if bool(self.kept.any()) else float("nan")


@dataclass(frozen=True)
class Universal:
    """One change for all images, judged on images that it was not made from.

    Args:
        change: in normalised units, [C, H, W]; images are clamped to valid ones after adding it.
        seen: what it does to the images that it was made from.
        held_out: what it does to the others.
        noise: what a change of the same magnitudes with random signs does to those others.
        steps: how many were done.
        stopped: ``finished`` or ``interrupted``.
        input_space: the model's normalisation.
        remaining_kinks: what the search may not have seen past, by name; see
            ``AttackResult.provenance``. Maps that it left as they were prove nothing then.
    """

    change: Tensor
    seen: Judged
    held_out: Judged
    noise: Judged
    steps: int
    stopped: str
    input_space: InputSpace
    remaining_kinks: tuple[str, ...] = ()

    def apply(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] with the change, valid ones."""
        return self.input_space.clamp(x + self.change.to(x))

    def __repr__(self) -> str:
        """What it is and does, in two lines."""
        size = float((self.change / self.input_space.scale(1.0, self.change[None])[0]).abs().max())
        return (
            f"Universal: one change of at most {size * 255:.1f}/255, {self.steps} steps, "
            f"{self.stopped}\n  on {len(self.held_out.kept)} held-out images: correlation with the "
            f"original map {self.held_out.mean():.3f} (random signs: {self.noise.mean():.3f})"
            + (f"\n  {self._unseen()}" if self.remaining_kinks else "")
        )

    def _unseen(self) -> str:
        return (
            f"not seen past {', '.join(self.remaining_kinks)}: maps that did not change prove "
            "nothing"
        )

    def table(self) -> str:
        """The numbers as text: a line per set of images."""
        rows = (
            ("images it was made from", self.seen),
            ("held-out images", self.held_out),
            ("the same, random signs", self.noise),
        )
        lines = [f"{'':<24} images  answer kept  correlation with the original map"]
        for name, found in rows:
            mean = "-" if found.mean() != found.mean() else f"{found.mean():.3f}"
            lines.append(f"{name:<24} {len(found.kept):>6}  {int(found.kept.sum()):>11}  {mean:>8}")
        return "\n".join(lines)

    def summary(self) -> str:
        """The table, and what its numbers mean."""
        return (
            f"{self.table()}\ncorrelations are means over images whose answer is kept; random "
            "signs: noise with the same size at every pixel"
            + (f"\n{self._unseen()}" if self.remaining_kinks else "")
        )
