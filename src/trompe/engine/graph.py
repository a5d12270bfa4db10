"""The contract of every explainer: a graph when one is wanted, none left behind otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from trompe.engine.apart import as_written, kept
from trompe.engine.lean import Lean, Once
from trompe.engine.walk import modules_of, trainable
from trompe.errors import ModelError
from trompe.types import Explanation

_LARGE = 2**16  # in smaller batches no pool is large enough for what the mode costs per call


def _mode(x: Tensor, keep: bool) -> AbstractContextManager[Any]:
    """What the model runs in: it depends on whether its derivative is differentiated again."""
    if keep:
        return Lean()
    return Once() if x.numel() >= _LARGE else nullcontext()


@contextmanager
def _switched() -> Iterator[None]:
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _differentiating() -> AbstractContextManager[None]:
    """Gradients enabled: they mostly are already, and to enable them takes as long as a layer."""
    if torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
        return nullcontext()
    return _switched()


def _name(module: nn.Module, model: nn.Module) -> str:
    return next(name for name, other in model.named_modules() if other is module)


def explained(
    method: Callable[[Tensor, bool], Explanation], model: nn.Module, x: Tensor
) -> Explanation:
    """Run ``method(x, keep)`` on an ``x`` that requires grad, whatever the caller's grad mode.

    Args:
        method: computes a map from x; ``keep`` says whether the map must carry a graph.
        model: the model explained; the map carries a graph if one of its parameters requires grad.
        x: [B, C, H, W]; the map carries a graph if it requires grad. It is never changed.

    Returns:
        Map and logits, detached unless a graph is wanted.

    Raises:
        ModelError: if a batch norm is in training mode: it would mix the images of a batch, and
            running the model would change it; or if PyTorch lacks a derivative.
    """
    modules = modules_of(model)
    for module in modules:
        if module.training and isinstance(module, nn.modules.batchnorm._NormBase):
            raise ModelError(
                f"the batch norm '{_name(module, model)}' is in training mode, so explaining would "
                "change the model: call model.eval() first"
            )
    with torch._C.DisableTorchFunction():
        wanted = x.requires_grad or trainable(modules)
    keep = torch.is_grad_enabled() and wanted
    with _differentiating():
        start = x
        if not x.requires_grad or not keep:
            start = (x.clone() if x.is_inference() else x.detach()).requires_grad_(True)
        try:
            written = as_written() if keep else nullcontext()
            with kept(), written, _mode(start, keep):
                relevance, logits = method(start, keep)
        except RuntimeError as error:
            missing = "derivative" in str(error) and "is not implemented" in str(error)
            if missing or "is not differentiable with respect to" in str(error):
                raise ModelError(
                    f"PyTorch cannot differentiate the model ({str(error).splitlines()[0]}): write "
                    "it without this operation"
                ) from error
            raise
        if keep:
            return Explanation(relevance, logits)
        return Explanation(relevance.detach(), logits.detach())
