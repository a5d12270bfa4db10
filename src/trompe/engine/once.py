"""What is found out about a model once: by its structure and the shape of what it is given."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

import torch
from torch import nn

from trompe.engine.pytree import swapped, tensors_in
from trompe.engine.walk import modules_of
from trompe.engine.watching import Watched, watch
from trompe.errors import TrompeError

Found = TypeVar("Found")


_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def structure(modules: Iterable[nn.Module], *, training: bool | None = None) -> Any:
    """A key of the modules that a model is made of, quick to make.

    It is another one as soon as a module is exchanged, parametrised, put in another mode, given or
    rid of a hook, or its ``forward`` is replaced.

    Args:
        modules: each without its children.
        training: the mode that all of them will be in; by default, each in its own.
    """
    return tuple(
        [
            (
                id(module),
                type(module),
                getattr(module, "training", False) if training is None else training,
                getattr(type(module), "forward", None),
                additions(module),
            )
            for module in modules
        ]
    )


def additions(module: nn.Module) -> tuple[Any, ...]:
    """A key of the hooks on a module, whose numbers never come again, and of a forward of its own.

    Empty for a module that is as its class is.
    """
    held = module.__dict__
    found: tuple[Any, ...] = ()
    for name in _HOOKS:
        hooks = held.get(name)
        if hooks:
            found += (name, *hooks)
    if "forward" in held:
        found += ("forward", id(held["forward"]))
    return found


def forwards(modules: Iterable[nn.Module]) -> list[Any]:
    """The replaced ``forward`` of modules, by whose ids ``structure`` goes."""
    return [module.__dict__["forward"] for module in modules if "forward" in module.__dict__]


class Answers(dict[Hashable, Found]):
    """What was found out, by a key that holds the ids of objects.

    An answer is forgotten as soon as one of its objects is gone, since another may get its id.
    """

    def keep(self, key: Hashable, found: Found, objects: Iterable[Any]) -> None:
        """Remember what was found as long as all of these objects live."""

        def forget(_: object) -> None:
            self.pop(key, None)
            self._watched.pop(key, None)

        self[key] = found
        self._watched[key] = [weakref.ref(one, forget) for one in objects]

    def __init__(self) -> None:
        super().__init__()
        self._watched: dict[Hashable, list[weakref.ref[Any]]] = {}


_KNOWN: weakref.WeakKeyDictionary[nn.Module, Answers[Any]] = weakref.WeakKeyDictionary()


def shapes(args: Any, kwargs: Any) -> Any:
    """A key of all of the tensors among the arguments but their numbers and the batch size."""
    with torch._C.DisableTorchFunction():  # modes that are active would see each look
        return tuple([(t.shape[1:], t.dtype, t.device) for t in tensors_in(args, kwargs)])


def once(
    model: nn.Module, question: Any, args: Any, kwargs: Any, find: Callable[[], Found]
) -> Found:
    """What ``find()`` says, asked once per question, structure of the model and shape.

    Args:
        model: the answer is kept as long as it lives.
        question: a key.
        args: what the model is called with.
        kwargs: likewise.
        find: finds the answer; if it raises, it is asked again.
    """
    known = _KNOWN.get(model)
    if known is None:
        known = _KNOWN[model] = Answers()
    modules = modules_of(model)
    key = (question, structure(modules), shapes(args, kwargs))
    if key in known:
        found: Found = known[key]
        return found
    found = find()
    known.keep(key, found, [*modules, *forwards(modules)])
    return found


def first_image(args: Any, kwargs: Any) -> Any:
    """The arguments with the first image alone, where a single batch is given."""
    tensors = tensors_in(args, kwargs)
    if len(tensors) != 1 or tensors[0].dim() < 2 or len(tensors[0]) < 2:
        return args, kwargs
    return swapped((args, kwargs), lambda t: t[:1])


def watched(model: nn.Module, args: Any, kwargs: Any) -> Watched:
    """The model watched on its first image, once per structure and shape.

    Args:
        model: any module.
        args: its arguments.
        kwargs: likewise.
    """

    def find() -> Watched:
        try:
            return watch(model, *first_image(args, kwargs))
        except TrompeError:
            raise
        except Exception:  # such as the guards of an exported model, for one size of batch
            return dataclasses.replace(watch(model, args, kwargs), whole=True)

    return once(model, "kinks", args, kwargs, find)
