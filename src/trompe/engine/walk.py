"""The modules of a model, looked through before every map, and therefore quickly.

``nn.Module.modules`` and ``parameters`` name all that they find, one generator within another; on a
small network that took as long as a convolution.
"""

from __future__ import annotations

from torch import nn


def modules_of(model: nn.Module) -> list[nn.Module]:
    """All modules that a model is made of, itself first, each once, in their own order."""
    found: list[nn.Module] = []
    seen: set[int] = set()
    waiting: list[nn.Module | None] = [model]
    while waiting:
        module = waiting.pop()
        if module is None or id(module) in seen:
            continue
        seen.add(id(module))
        found.append(module)
        children = module._modules
        if children:
            waiting.extend(reversed(list(children.values())))
    return found


def trainable(modules: list[nn.Module]) -> bool:
    """Whether a parameter of these modules, each without its children, requires grad."""
    for module in modules:
        parameters = module._parameters
        if parameters:
            for parameter in parameters.values():
                if parameter is not None and parameter.requires_grad:
                    return True
    return False


def is_wrapper(module: nn.Module) -> bool:
    """Whether trompe made this module around a model, which it has as ``model``."""
    return getattr(type(module), "wraps", None) is True


def names_of(model: nn.Module) -> dict[int, str]:
    """The name of every module, by its id, as whoever gave the model calls it.

    What trompe wraps a model in (its classes with ``wraps = True``, whose model is ``model``) is
    not named: its names would mean nothing to him.
    """
    prefix, inner = "", model
    while is_wrapper(inner):
        prefix, inner = f"{prefix}model.", inner.get_submodule("model")
    return {id(one): f"{name}.".removeprefix(prefix)[:-1] for name, one in model.named_modules()}
