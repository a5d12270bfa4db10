"""Grad-CAM (Selvaraju et al. 2017), and its relevance form (Lee et al. 2021)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.engine import explained, record, sweep
from trompe.engine.axes import channel_axis, matches
from trompe.engine.tape import OpCall, Tape
from trompe.errors import UnsupportedOp, UsageError
from trompe.explain.base import Method, explainers, one_hot, pick
from trompe.rules.composites import Composite, composite_rules
from trompe.rules.products import SOFTMAX
from trompe.types import Explanation, InputSpace

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def _places(maps: Tensor, channels: int) -> list[int]:
    """The size of maps [B, ...] in each direction, without that of their channels."""
    return [size for axis, size in enumerate(maps.shape) if axis not in (0, channels)]


@explainers.register("grad_cam")
@dataclass(frozen=True)
class GradCAM(Method):
    """``relu(sum_k a_k A_k)`` of the feature maps A_k of one layer, scaled up to the image.

    The maps may be [B, C, H, W] or [B, H, W, C]: the operations around them tell which
    (``trompe.engine.axes``). Signals [B, C, T] and volumes are explained alike. Every channel of
    the map holds the same picture, divided by their number, so that its sum over the channels is
    the class activation map.

    Args:
        layer: name of the module whose output the feature maps are; by default the last operation
            that returns maps of more than one place.
        channels_last: whether the maps are [B, H, W, C], where nothing tells or something else is
            known.
        weights: ``gradient``: a_k is the mean gradient of the class score over map k;
            ``relevance``: the sum of its relevance (Relevance-CAM).
        composite: rules of the relevance.
        positive: whether the negative part is cut, as published.

    Raises:
        UsageError: if the weights are unknown, or when called, the layer, or if nothing tells which
            axis of the maps holds the channels.
        UnsupportedOp: when called, if the model has no feature maps [B, C, H, W].
    """

    name = "grad_cam"
    layer: str | None = None
    weights: Literal["gradient", "relevance"] = "gradient"
    composite: str | Composite = "epsilon_plus"
    positive: bool = True
    channels_last: bool | None = None

    def __post_init__(self) -> None:
        if self.weights not in ("gradient", "relevance"):
            raise UsageError(f"unknown weights '{self.weights}': choose from gradient, relevance")
        composite_rules(self.composite, InputSpace())

    def explain(self, model: nn.Module, x: Tensor, target: Tensor) -> Explanation:
        """See ``Method``."""

        def method(x: Tensor, keep: bool) -> Explanation:
            tape, logits = record(model, x, locate=self.layer is not None)
            op, channels = self._features(tape, model, logits)
            features = op.out.movedim(channels, 1)
            places = tuple(range(2, features.dim()))
            if self.weights == "gradient":
                score = pick(logits, target).sum()
                (share,) = torch.autograd.grad(score, op.out, create_graph=True)
                scale = share.movedim(channels, 1).mean(dim=places, keepdim=True)
            else:
                share = self._relevance(tape, logits, one_hot(logits, target), op)
                scale = share.movedim(channels, 1).sum(dim=places, keepdim=True)
            cam = (scale * features).sum(dim=1, keepdim=True)
            if self.positive:
                cam = cam.clamp(min=0)
            cam = F.interpolate(
                cam, size=x.shape[2:], mode=_MODES[len(places)], align_corners=False
            )
            return Explanation(cam.expand_as(x) / x.shape[1], logits)

        return explained(method, model, x)

    def _features(self, tape: Tape, model: nn.Module, logits: Tensor) -> tuple[OpCall, int]:
        """The operation whose output the feature maps are, and the axis of their channels."""
        used = {id(logits)}  # a second head has maps that the class is not read from
        for op in reversed(tape.calls):
            if any(id(tensor) in used for tensor in op.outputs):
                used.update(id(tensor) for tensor, _ in op.edges)
        image, found, dims = tape.input.shape, [], tape.input.dim()
        whole, tokens = {id(tape.input)}, {id(tape.input)}
        for op in tape.calls:
            taken = {id(tensor) for tensor, _ in op.edges}
            made = {id(tensor) for tensor in op.outputs}
            # Cut into windows or groups of channels, maps have more axes for a while; in a row, as
            # tokens, one less.
            if taken & whole and op.out.dim() >= dims > 2:
                whole |= made
            if taken & tokens and op.out.dim() >= min(dims, 3) > 2:
                tokens |= made
            if made & used & tokens and op.out.dim() == dims and op.out.shape[0] == image[0]:
                found.append(op)
            if op.func in SOFTMAX and op.out.dim() > 2 and not made & whole and self.layer is None:
                found = []  # attention: the maps before it are not what the class is read from
        if self.layer is not None:
            found = [op for op in found if self._within(op)]
        for op in reversed(found):
            if sum(size > 1 for size in op.out.shape[1:]) < 2:  # a number per channel, or a gate
                continue
            channels = self._channels(tape, op)
            if channels is None:
                if not whole.isdisjoint(id(tensor) for tensor in op.outputs):
                    raise self._unknown(op)
                continue  # made of tokens, as the queries of attention are
            if min(_places(op.out, channels)) > 1:
                return op, channels
        raise self._none(model)

    def _none(self, model: nn.Module) -> Exception:
        """There are no maps."""
        if self.layer is None:
            name = type(model).__name__
            what = "has no feature maps [B, C, H, W]"
            return UnsupportedOp(name, "the model", "grad_cam", what)
        known = {name for name, _ in model.named_modules()}
        close = "is not in the model" if self.layer not in known else "returns no maps"
        return UsageError(
            f"layer '{self.layer}' {close}: name one that returns [B, C, H, W] or [B, H, W, C]"
        )

    def _channels(self, tape: Tape, op: OpCall) -> int | None:
        """The axis of the channels of one operation's output; ``None`` if nothing tells."""
        last = op.out.dim() - 1
        if self.channels_last is not None:
            return last if self.channels_last else 1
        found = channel_axis(tape, op)
        # Axes read off a linear layer or a layer norm may be those of windows, not of the image.
        fits = found == last and matches(_places(op.out, last), tape.input.shape[2:])
        return found if found == 1 or fits else None

    def _unknown(self, op: OpCall) -> UsageError:
        """Nothing tells where the channels are."""
        layer = "its last maps" if self.layer is None else f"the maps of layer '{self.layer}'"
        return UsageError(
            f"grad_cam cannot tell which axis of {layer}, of the shape {tuple(op.out.shape)} "
            f"({op.name}), holds the channels: say so by channels_last=True or False, or name "
            "another layer"
        )

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
