"""Grad-CAM (Selvaraju et al. 2017), and its relevance form (Lee et al. 2021)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.engine import explained, record, sweep
from trompe.engine.tape import OpCall, Tape
from trompe.errors import UnsupportedOp, UsageError
from trompe.explain.base import Method, explainers, one_hot, pick
from trompe.rules.composites import Composite, composite_rules
from trompe.types import Explanation, InputSpace


@explainers.register("grad_cam")
@dataclass(frozen=True)
class GradCAM(Method):
    """``relu(sum_k a_k A_k)`` of the feature maps A_k of one layer, scaled up to the image.

    Every channel of the map holds the same picture, divided by their number, so that its sum over
    the channels is the class activation map.

    Args:
        layer: name of the module whose output the feature maps are; by default the last operation
            that returns maps of more than one place.
        weights: ``gradient``: a_k is the mean gradient of the class score over map k;
            ``relevance``: the sum of its relevance (Relevance-CAM).
        composite: rules of the relevance.
        positive: whether the negative part is cut, as published.

    Raises:
        UsageError: if the weights are unknown, or when called, the layer.
        UnsupportedOp: when called, if the model has no feature maps [B, C, H, W].
    """

    name = "grad_cam"
    layer: str | None = None
    weights: Literal["gradient", "relevance"] = "gradient"
    composite: str | Composite = "epsilon_plus"
    positive: bool = True

    def __post_init__(self) -> None:
        if self.weights not in ("gradient", "relevance"):
            raise UsageError(f"unknown weights '{self.weights}': choose from gradient, relevance")
        composite_rules(self.composite, InputSpace())

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""

        def method(x: Tensor, keep: bool) -> Explanation:
            tape, logits = record(model, x, locate=self.layer is not None)
            op = self._features(tape, model)
            features = op.out
            if self.weights == "gradient":
                score = pick(logits, target).sum()
                (share,) = torch.autograd.grad(score, features, create_graph=True)
                scale = share.mean(dim=(2, 3), keepdim=True)
            else:
                share = self._relevance(tape, logits, one_hot(logits, target), op)
                scale = share.sum(dim=(2, 3), keepdim=True)
            cam = (scale * features).sum(dim=1, keepdim=True)
            if self.positive:
                cam = cam.clamp(min=0)
            cam = F.interpolate(cam, size=x.shape[2:], mode="bilinear", align_corners=False)
            return Explanation(cam.expand_as(x) / x.shape[1], logits)

        return explained(method, model, x)

    def _features(self, tape: Tape, model: nn.Module) -> OpCall:
        found = [op for op in tape.calls if op.out.dim() == 4 and min(op.out.shape[2:]) > 1]
        if self.layer is not None:
            known = {name for name, _ in model.named_modules()}
            found = [op for op in found if self._within(op)]
            if not found:
                close = "is not in the model" if self.layer not in known else "returns no maps"
                raise UsageError(
                    f"layer '{self.layer}' {close}: name one that returns [B, C, H, W]"
                )
        if not found:
            raise UnsupportedOp(
                type(model).__name__, "the model", "grad_cam", "has no feature maps [B, C, H, W]"
            )
        return found[-1]

    def _within(self, op: OpCall) -> bool:
        place = op.place.split("'")[1] if "'" in op.place else ""
        place = place.removeprefix("model.") if not str(self.layer).startswith("model.") else place
        return place == self.layer or place.startswith(f"{self.layer}.")

    def _relevance(self, tape: Tape, logits: Tensor, start: Tensor, op: OpCall) -> Tensor:
        rules = composite_rules(self.composite, InputSpace())
        if rules.prepare is not None:
            rules.prepare(tape)  # on the whole record, of which the sweep walks the upper part
        upper = Tape(op.out, nn.Identity())
        upper.calls = tape.calls[op.index + 1 :]
        return sweep(upper, logits, start, dataclasses.replace(rules, prepare=None))
