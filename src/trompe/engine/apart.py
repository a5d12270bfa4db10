"""Running a model apart from everything that watches or changes what runs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode
from torch.utils._python_dispatch import _disable_current_modes


@contextmanager
def apart() -> Iterator[None]:
    """While active, no mode sees what runs: not the record of a pass, nor a captured step's."""
    modes = [_pop_mode() for _ in _get_current_function_mode_stack()]
    try:
        with _disable_current_modes():
            yield
    finally:
        for mode in reversed(modes):
            _push_mode(mode)


class _Plainly:
    """Stands for ``torch.utils.checkpoint``'s reentrant function: it calls and keeps."""

    @staticmethod
    def apply(function: Any, preserve: bool, *args: Any) -> Any:
        return function(*args)


def _keeping(*args: Any, **kwargs: Any) -> Iterator[None]:
    """Stands for its other form: a generator that is resumed once the function has run."""
    yield


_STAND_INS: dict[str, Any] = {
    "_checkpoint_without_reentrant_generator_impl": _keeping,
    "_checkpoint_without_reentrant_generator": _keeping,
    "CheckpointFunction": _Plainly,
}
_lock = threading.Lock()
_before: dict[str, Any] = {}
_depth = 0


class _Kept:
    """Stands in for the functions of ``torch.utils.checkpoint`` while anybody is within."""

    def __enter__(self) -> None:
        global _depth
        module = sys.modules["torch.utils.checkpoint"]
        with _lock:
            _depth += 1
            if _depth == 1:
                _before.update((k, getattr(module, k)) for k in _STAND_INS if hasattr(module, k))
                for name in _before:
                    setattr(module, name, _STAND_INS[name])

    def __exit__(self, *_: object) -> None:
        global _depth
        module = sys.modules["torch.utils.checkpoint"]
        with _lock:
            _depth -= 1
            if _depth == 0:
                for name, value in _before.items():
                    setattr(module, name, value)
                _before.clear()


_KEPT, _NOTHING = _Kept(), nullcontext()


def kept() -> AbstractContextManager[None]:
    """While active, models that save memory by recomputing their activations keep them.

    ``torch.utils.checkpoint`` runs parts of a model again in the backward pass. By then it is no
    longer smoothed, recorded or decomposed, so that the gradient would belong to another function.
    """
    return _KEPT if "torch.utils.checkpoint" in sys.modules else _NOTHING


def as_written() -> AbstractContextManager[Any]:
    """While active, parts of a model that ``torch.compile`` has compiled run as they are written.

    Compiled code has no second derivative: PyTorch refuses it, or it is missing where a stand-in's
    own function was compiled, and no attack would be seen to go astray.
    """
    if "torch._dynamo" not in sys.modules or torch.compiler.is_compiling():
        return _NOTHING
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
