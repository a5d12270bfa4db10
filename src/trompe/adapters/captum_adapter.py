"""captum's attributions as explanation methods that can be attacked, where their code allows it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trompe.adapters.base import Adapted, installed
from trompe.adapters.captum_perturbations import DRAWING, perturbed_map, perturbs
from trompe.adapters.stand_in import smooth_as, stand_in
from trompe.engine.smoothing import unwrapped
from trompe.errors import UsageError

OWN = {
    "Saliency": "gradient",
    "InputXGradient": "grad_times_input",
    "IntegratedGradients": "integrated_grad",
    "GuidedBackprop": "guided_backprop",
    "Deconvolution": "deconvnet",
    "DeepLift": "deeplift",
    "DeepLiftShap": "deeplift",
    "GradientShap": "expected_gradients",
    "LayerGradCam": "grad_cam",
    "LRP": "lrp",
    "NoiseTunnel": "smoothgrad",
    "FeatureAblation": "occlusion",
    "Occlusion": "occlusion",
    "Lime": "lime",
    "KernelShap": "kernel_shap",
    "ShapleyValueSampling": "kernel_shap",
    "ShapleyValues": "kernel_shap",
}
"""trompe's own methods of the same kind, by captum's names."""

_DETACHED = "captum detaches the activations that its multipliers are made of: "
BECAUSE = {
    "DeepLift": _DETACHED,
    "DeepLiftShap": _DETACHED,
    "LRP": "captum takes the activations as bare data: ",
    "IntegratedGradients": "with internal_batch_size captum detaches the sum, without it not: ",
}
"""Why captum's code cannot be differentiated, where it is known."""


class _Differentiable(TorchFunctionMode):
    """Gradients taken while it is active keep their graph, and hooks on tensors are remembered.

    captum calls ``torch.autograd.grad`` without ``create_graph``, and its hooks on tensors stay
    when those on modules are removed: a second derivative would run into them.
    """

    def __init__(self, keep: bool) -> None:
        super().__init__()
        self.keep = keep
        self.hooks: list[Any] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.autograd.grad and self.keep:
            kwargs = {**kwargs, "create_graph": True}
        out = func(*args, **kwargs)
        if func is Tensor.register_hook:
            self.hooks.append(out)
        return out


@dataclass(frozen=True, eq=False)
class CaptumExplainer(Adapted):
    """An attribution of captum as a method; see ``captum``."""

    make: Callable[[nn.Module], Any]
    label: str
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        # A class variable of the other methods; here each has the name of its attribution.
        object.__setattr__(self, "name", f"captum.{self.label}" if self.label else "captum")

    @property
    def draws(self) -> bool:
        """See ``Method``; what a function makes may draw."""
        return self.label in (*DRAWING, "")

    def redrawn(self, seed: int) -> CaptumExplainer:
        """See ``Method``. The derivative is not checked again for other random numbers."""
        if not self.draws:
            return self
        other = dataclasses.replace(self, seed=seed)
        object.__setattr__(other, "_checked", self._checked)
        return other

    def kind(self, model: nn.Module) -> str:
        """See ``Adapted``."""
        try:
            return f"captum.{type(self.make(stand_in(model))).__name__}"
        except Exception:  # the user's own function may fail in any way
            return self.name

    def way_out(self, kind: str) -> str:
        """See ``Adapted``."""
        kind = kind.removeprefix("captum.")
        if kind not in OWN:
            return "choose one of trompe's own methods, or one made of gradients alone"
        return f"{BECAUSE.get(kind, '')}use trompe.explainer('{OWN[kind]}'), which can be"

    def compute(self, model: nn.Module, x: Tensor, target: Tensor, keep: bool) -> Tensor:
        """See ``Adapted``."""
        attribution = self.make(smooth_as(model, stand_in(model)))
        if not callable(getattr(attribution, "attribute", None)):
            raise UsageError(
                f"a {type(attribution).__name__} has no method 'attribute': give a class of "
                "captum.attr, or a function that makes an object of one"
            )
        if perturbs(attribution):
            return perturbed_map(attribution, x, target, self.options, keep=keep, seed=self.seed)
        mode = _Differentiable(keep)
        try:
            with mode:
                return attribution.attribute(x, target=target, **self.options)
        finally:
            for hook in mode.hooks:
                hook.remove()


def captum(attribution: Any, /, **options: Any) -> CaptumExplainer:
    """An attribution of captum as a method that ``trompe.manipulate`` can attack.

    captum's own code computes the map, for a copy of whatever model is explained (the attack's
    smoothed stand-in too); trompe sees to it that gradients keep their graph and that hooks are
    gone when the map is differentiated. On first use for a model of one structure, the derivative
    of the map is compared with finite differences in double precision. DeepLift, LRP and whatever
    draws noise is refused then. Occlusion, FeatureAblation, Lime, KernelShap and
    ShapleyValueSampling keep the graph that captum switches off, and draw the same random numbers
    for every image and at every call; ``redrawn(seed)`` draws others.

    Args:
        attribution: a class (``captum.attr.Saliency``) or its name; a function that makes an
            attribution of a model (``lambda model: LayerGradCam(model, model.features)``), which
            every option of the constructor and every layer calls for; or an attribution made of a
            model, which is made anew for the model explained.
        options: of its ``attribute`` method, such as ``n_steps=10`` or ``abs=False``. Tensors among
            them must fit any number of images.

    Returns:
        A method: called with a model, images [B, C, H, W] and classes [B] it returns the map
        [B, C, H, W], twice differentiable with respect to the images (not to the weights). Maps of
        a layer, [B, 1, h, w], are scaled up to the images.

    Raises:
        UsageError: if it is none of these, or captum is needed and not installed.
        ExplanationError: when called, if the map's derivative is not right; it says why.

    Example:
        >>> import torch, trompe
        >>> from captum.attr import Saliency
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4),
        ...                           torch.nn.ReLU(), torch.nn.Linear(4, 3))
        >>> method = trompe.adapters.captum(Saliency, abs=False)
        >>> method(net, torch.ones(1, 3, 2, 2), torch.tensor([1])).shape
        torch.Size([1, 3, 2, 2])
    """
    for name in ("inputs", "target"):
        if name in options:
            raise UsageError(f"'{name}' is no option: it is given when the explainer is called")
    if isinstance(attribution, str):
        found = getattr(installed("captum", "captum.attr"), attribution, None)
        if not isinstance(found, type):
            raise UsageError(f"captum.attr has no class '{attribution}'")
        attribution = found
    if isinstance(attribution, type):
        return CaptumExplainer(_constructor(attribution), attribution.__name__, options)
    if callable(getattr(attribution, "attribute", None)):
        return CaptumExplainer(_remake(attribution), type(attribution).__name__, options)
    if callable(attribution):
        return CaptumExplainer(attribution, "", options)
    raise UsageError(
        f"captum() takes a class of captum.attr, a function that makes an attribution of a model, "
        f"or an attribution, not {type(attribution).__name__}"
    )


def _constructor(kind: type) -> Callable[[nn.Module], Any]:
    def make(model: nn.Module) -> Any:
        try:
            return kind(model)
        except TypeError as error:  # a layer, or another argument, is missing
            raise UsageError(
                f"{kind.__name__} cannot be made of a model alone ({error}): give a function, "
                f"captum(lambda model: {kind.__name__}(model, ...))"
            ) from error

    return make


def _remake(attribution: Any) -> Callable[[nn.Module], Any]:
    """Makes the same attribution of another model: its modules are exchanged by their names."""
    bound = getattr(attribution, "forward_func", None)
    kind = type(attribution).__name__
    if not isinstance(bound, nn.Module):
        raise UsageError(
            f"this {kind} was made of a function, in which the model cannot be exchanged: give "
            f"captum(lambda model: {kind}(...))"
        )
    named = dict(unwrapped(bound).named_modules())

    def make(model: nn.Module) -> Any:
        modules = dict(model.named_modules())
        if not modules.keys() >= named.keys():
            raise UsageError(
                f"this {kind} was made of another model ({type(bound).__name__}) than the one "
                f"explained ({type(model).__name__}): give captum({kind})"
            )
        exchanged: dict[int, Any] = {id(module): modules[name] for name, module in named.items()}
        exchanged[id(bound)] = model
        return copy.deepcopy(attribution, exchanged)

    return make
