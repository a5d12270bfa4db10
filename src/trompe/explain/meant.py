"""A method as it suits what a model's outputs mean."""

from __future__ import annotations

import dataclasses
import functools
import logging
from typing import Any, TypeVar

from trompe.outputs import Outputs

log = logging.getLogger("trompe")

Some = TypeVar("Some")


def meant(method: Some, outputs: Outputs) -> Some:
    """The same method, explaining no softmax where the outputs have none.

    Values (a regression) and several labels share no softmax, nor is a value the logit of a
    sigmoid: a method that would explain one (``score="softmax"``), alone or within another, then
    explains the output as it is (``score="logit"``), which is said once.

    Args:
        method: an explanation method; any other explainer is returned as it is.
        outputs: what the model's outputs mean.
    """
    if outputs.meaning not in ("value", "labels") or not _is_method(method):
        return method
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(method):  # type: ignore[arg-type]  # methods are dataclasses
        value = getattr(method, field.name)
        if _is_method(value) and (one := meant(value, outputs)) is not value:
            changes[field.name] = one
        elif isinstance(value, tuple) and any(map(_is_method, value)):
            parts = tuple(meant(one, outputs) for one in value)
            if any(new is not old for new, old in zip(parts, value, strict=True)):
                changes[field.name] = parts
    if getattr(method, "score", "") == "softmax":
        changes["score"] = "logit"
        _say(getattr(method, "name", ""), outputs.meaning)
    return dataclasses.replace(method, **changes) if changes else method  # type: ignore[type-var]


def _is_method(value: Any) -> bool:
    return dataclasses.is_dataclass(type(value)) and hasattr(value, "check_outputs")


@functools.lru_cache(maxsize=64)
def _say(name: str, meaning: str) -> None:
    what = {"value": "values", "labels": "several labels"}[meaning]
    log.warning("%s explains the output as it is (score='logit'): %s have no softmax", name, what)
