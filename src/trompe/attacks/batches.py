"""Many images attacked batch by batch, as if it had been one attack; smaller where memory ends."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trompe.attack_result import AfterChannel
from trompe.errors import MemoryLimitError
from trompe.explain.base import Method
from trompe.types import AttackResult, Explainer

log = logging.getLogger("trompe")

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


def in_batches(
    count: int,
    batch_size: int | None,
    method: Explainer,
    attack: Callable[[Explainer, slice], AttackResult],
) -> AttackResult:
    """Attack ``count`` images, ``batch_size`` at a time; after an interruption the rest is left.

    A batch for which memory does not suffice is tried again at half its size, and so are those
    after it. Where one image is too much, the method holds fewer copies of it at once.

    Args:
        count: of the images.
        batch_size: all at once if ``None``.
        method: the explanation method attacked.
        attack: attacks a method on a part of the images.

    Raises:
        MemoryLimitError: if memory does not suffice for one image.
    """
    size = min(batch_size or count, count)
    results: list[AttackResult] = []
    first = 0
    while first < count:
        part = slice(first, min(first + size, count))
        failure: str | None = None
        try:
            results.append(attack(method, part))
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            failure = str(error).splitlines()[0] if str(error) else type(error).__name__
        if failure is not None:  # out of the handler, which keeps the tensors of the attempt alive
            size = (part.stop - part.start) // 2
            if size == 0:
                size, method = 1, _lighter(method, failure)
            else:
                log.warning("memory does not suffice: going on with %d images at once", size)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        first = part.stop
        if results[-1].stopped == "interrupted":
            break
    return joined(results)


def _lighter(method: Explainer, failure: str) -> Explainer:
    """The method holding half as many copies of an image; a notice says so."""
    less = method.lighter() if isinstance(method, Method) else None
    if less is None:
        raise MemoryLimitError(
            f"memory does not suffice to attack one image ({failure}): use a smaller image "
            "or network"
        )
    log.warning(
        "memory does not suffice for one image: going on with half as many copies of it at once"
    )
    return less


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whichever device."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    message = str(error).lower()
    return any(
        words in message
        for words in ("out of memory", "not enough memory", "can't allocate memory")
    )


def joined(results: Sequence[AttackResult]) -> AttackResult:
    """The results of several batches as one; shorter histories are filled up with NaN."""
    if len(results) == 1:
        return results[0]
    iterations = max(result.iterations for result in results)
    per_image: dict[str, Any] = {
        name: torch.cat([getattr(result, name) for result in results])
        for name in _PER_IMAGE
        if getattr(results[0], name) is not None
    }
    keys = next((result.history for result in results if result.history), {})
    history = {
        key: torch.cat([_column(result, key, iterations) for result in results], dim=1)
        for key in keys
    }
    after = {
        key: AfterChannel(
            *[
                torch.cat([getattr(result.after[key], field.name) for result in results])
                for field in dataclasses.fields(AfterChannel)
            ]
        )
        for key in results[0].after
    }
    stopped = next((r.stopped for r in results if r.stopped != "finished"), "finished")
    noted = {
        name: [image for r in results for image in r.provenance[name]]
        for name in ("vanishing_gradient", "unmoved")
    }
    return dataclasses.replace(
        results[0],
        **per_image,
        history=history,
        after=after,
        iterations=iterations,
        stopped=stopped,
        provenance={**results[0].provenance, **noted},
    )


def _column(result: AttackResult, key: str, iterations: int) -> Tensor:
    """One quantity of a history, [iterations, B], NaN where the attack had ended."""
    column = torch.full((iterations, result.x.shape[0]), torch.nan)
    if key in result.history:
        column[: result.iterations] = result.history[key]
    return column
