"""Many images attacked batch by batch, as if it had been one attack."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from trompe.types import AttackResult

_PER_IMAGE = (
    "x",
    "x_adv",
    "target_class",
    "map_original",
    "map_target",
    "map_adv",
    "logits_original",
    "logits_adv",
)


def attack_all(
    x: Tensor, batch_size: int, attack: Callable[[Tensor, int, int], AttackResult]
) -> AttackResult:
    """Attack ``x`` [B, C, H, W] in batches; after an interruption the rest is left out.

    Args:
        x: the images.
        batch_size: how many at once.
        attack: called with a batch, its number and how many there are.
    """
    batches = x.split(batch_size)
    results: list[AttackResult] = []
    for number, batch in enumerate(batches):
        results.append(attack(batch, number, len(batches)))
        if results[-1].stopped == "interrupted":
            break
    return joined(results)


def joined(results: Sequence[AttackResult]) -> AttackResult:
    """The results of several batches as one; shorter histories are filled up with NaN."""
    import torch

    if len(results) == 1:
        return results[0]
    iterations = max(result.iterations for result in results)
    per_image: dict[str, Any] = {
        name: torch.cat([getattr(result, name) for result in results]) for name in _PER_IMAGE
    }
    keys = next((result.history for result in results if result.history), {})
    history = {
        key: torch.cat([_column(result, key, iterations) for result in results], dim=1)
        for key in keys
    }
    stopped = next((r.stopped for r in results if r.stopped != "finished"), "finished")
    return dataclasses.replace(
        results[0], **per_image, history=history, iterations=iterations, stopped=stopped
    )


def _column(result: AttackResult, key: str, iterations: int) -> Tensor:
    """One quantity of a history, [iterations, B], NaN where the attack had ended."""
    import torch

    column = torch.full((iterations, result.x.shape[0]), torch.nan)
    if key in result.history:
        column[: result.iterations] = result.history[key]
    return column
