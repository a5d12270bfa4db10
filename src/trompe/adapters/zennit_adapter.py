"""zennit's composites as explanation methods that can be attacked."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trompe.adapters.base import Adapted, installed
from trompe.adapters.stand_in import smooth_as, stand_in
from trompe.errors import UsageError
from trompe.explain.base import one_hot

OWN = {
    "EpsilonPlus": "'lrp', composite='epsilon_plus'",
    "EpsilonPlusFlat": "'lrp', composite='epsilon_plus_flat'",
    "EpsilonGammaBox": "'lrp', composite='epsilon_gamma_box'",
    "EpsilonAlpha2Beta1": "'lrp', composite='epsilon_alpha2_beta1'",
    "EpsilonAlpha2Beta1Flat": "'lrp', composite='epsilon_alpha2_beta1_flat'",
    "GuidedBackprop": "'guided_backprop'",
    "DeconvNet": "'deconvnet'",
    "ExcitationBackprop": "'excitation_backprop'",
    "BetaSmooth": "'beta_smoothing'",
}
"""trompe's own methods of the same kind, by zennit's names."""


@dataclass(frozen=True, eq=False)
class ZennitExplainer(Adapted):
    """A composite of zennit as a method; see ``zennit``."""

    composite: Any
    attributor: Callable[..., Any] | None = None
    output: Literal["one", "score"] = "one"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A class variable of the other methods; here each has the name of its composite.
        object.__setattr__(self, "name", f"zennit.{type(self.composite).__name__}")

    def kind(self, model: nn.Module) -> str:
        """See ``Adapted``."""
        return self.name

    def way_out(self, kind: str) -> str:
        """See ``Adapted``."""
        own = OWN.get(kind.removeprefix("zennit."))
        if own is None:
            return "compose trompe's rules: trompe.explainer('lrp', composite=...)"
        return f"use trompe.explainer({own}), which can be"

    def compute(self, model: nn.Module, x: Tensor, target: Tensor, keep: bool) -> Tensor:
        """See ``Adapted``."""
        modified = stand_in(model)
        for module in modified.modules():
            module.register_forward_hook(_single)
        composite = _fresh(self.composite)
        composite.register(modified)
        smooth_as(model, modified)  # after the canonisers, which may exchange forward functions

        def start(logits: Tensor) -> Tensor:
            if self.output == "score":
                return one_hot(logits, target)
            # zennit's rules are differentiable only where what reaches them requires grad.
            return one_hot(torch.ones_like(logits), target).requires_grad_(keep)

        try:
            if self.attributor is None:
                logits = modified(x)
                seed = start(logits)
                return torch.autograd.grad(logits, x, seed, create_graph=keep)[0]
            attribute = self.attributor(modified, composite, create_graph=keep, **self.options)
            return attribute(x, start)[1]
        finally:
            # The second derivative must meet no hook, but the weights as the canonisers left them:
            # so the hooks are removed, and the canonisers not, on this copy of the model.
            for hook in list(composite.hook_refs):
                hook.remove()


def zennit(
    composite: Any,
    /,
    *,
    output: Literal["one", "score"] = "one",
    attributor: Callable[..., Any] | None = None,
    **options: Any,
) -> ZennitExplainer:
    """A composite of zennit as a method that ``trompe.manipulate`` can attack.

    zennit's own rules compute the map, on a copy of whatever model is explained (the attack's
    smoothed stand-in too), canonisers included. Its hooks are removed before the map is
    differentiated, without which its derivative would be wrong. On first use for a model of one
    structure, that derivative is compared with finite differences in double precision.

    zennit's rules apply to modules: what a model computes by functions (``F.relu``, ``x + y``) is
    differentiated. trompe's ``lrp`` follows both.

    Args:
        composite: a composite, its class, or its name (``epsilon_plus``); it serves as a template
            and is not registered itself.
        output: what is propagated back: ``one`` for the class explained, as in zennit's examples,
            or its ``score``.
        attributor: a class of ``zennit.attribution`` such as ``IntegratedGradients``; the plain
            gradient if not given.
        options: of the attributor, such as ``n_iter=10``.

    Returns:
        A method: called with a model, images [B, C, H, W] and classes [B] it returns the map
        [B, C, H, W], twice differentiable with respect to the images (not to the weights).

    Raises:
        UsageError: if it is none of these, an option is unknown, or zennit is needed and not
            installed.
        ExplanationError: when called, if the map's derivative is not right; it says why.

    Example:
        >>> import torch, trompe
        >>> from zennit.composites import EpsilonPlus
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4),
        ...                           torch.nn.ReLU(), torch.nn.Linear(4, 3))
        >>> method = trompe.adapters.zennit(EpsilonPlus())
        >>> method(net, torch.ones(1, 3, 2, 2), torch.tensor([1])).shape
        torch.Size([1, 3, 2, 2])
    """
    if output not in ("one", "score"):
        raise UsageError(f"unknown output '{output}': choose from one, score")
    if options and attributor is None:
        raise UsageError(f"unknown option '{next(iter(options))}': an attributor takes options")
    if isinstance(composite, str):
        known = installed("zennit", "zennit.composites").COMPOSITES
        if composite not in known:
            raise UsageError(f"unknown composite '{composite}': choose from {', '.join(known)}")
        composite = known[composite]
    if isinstance(composite, type):
        try:
            composite = composite()
        except TypeError as error:
            raise UsageError(
                f"{composite.__name__} needs arguments ({error}): give zennit() an object"
            ) from error
    if not (hasattr(composite, "register") and hasattr(composite, "hook_refs")):
        raise UsageError(f"zennit() takes a composite of zennit, not {type(composite).__name__}")
    return ZennitExplainer(composite, attributor, output, options)


def _fresh(composite: Any) -> Any:
    """The same composite, registered nowhere: the user's own may be in use."""
    twin = copy.copy(composite)
    twin.handles = type(composite.handles)()
    twin.hook_refs = weakref.WeakSet()
    return twin


def _single(module: nn.Module, inputs: Any, output: Any) -> Any:
    """Give a module's output a node of its own in the graph, with one output.

    zennit's hooks sit on that node and count its outputs; trompe's softplus has two. A view would
    lose the hooks where the output is changed in place afterwards.
    """
    return output.clone() if isinstance(output, Tensor) and output.requires_grad else None
