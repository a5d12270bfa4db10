"""Grad-CAM (Selvaraju et al. 2017), and its relevance form (Lee et al. 2021)."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.engine import explained, record, sweep
from trompe.engine.axes import channel_axis, matches
from trompe.engine.once import once
from trompe.engine.tape import OpCall, Tape
from trompe.errors import UnsupportedOp, UsageError
from trompe.explain.base import Method, explainers, one_hot, pick
from trompe.rules.composites import Composite, composite_rules
from trompe.rules.products import SOFTMAX
from trompe.types import Explanation, InputSpace

log = logging.getLogger("trompe")
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
        layer: name of the module whose output the feature maps are, of its last call if it is
            called several times; by default the last operation that returns maps of more than one
            place.
        channels_last: whether the maps are [B, H, W, C], where nothing tells or something else is
            known; where the model reads them otherwise, a warning says so.
        weights: ``gradient``: a_k is the mean gradient of the class score over map k;
            ``relevance``: the sum of its relevance (Relevance-CAM).
        composite: rules of the relevance.
        positive: whether the negative part is cut, as published.

    Raises:
        UsageError: if the weights are unknown, or when called, the layer, or if it returns several
            maps, or nothing tells which axis of the maps holds the channels.
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
            tape, logits = record(model, x, module=self._module(model))
            op, maps, channels = self._features(tape, model, logits)
            features = maps.movedim(channels, 1)
            places = tuple(range(2, features.dim()))
            if self.weights == "gradient":
                score = pick(logits, target).sum()
                (share,) = torch.autograd.grad(score, maps, create_graph=True)
                once(model, f"grad_cam {self.layer}", (x,), {}, lambda: self._hear(share))
                scale = share.movedim(channels, 1).mean(dim=places, keepdim=True)
            else:
                share = self._relevance(tape, logits, one_hot(logits, target), op, maps)
                scale = share.movedim(channels, 1).sum(dim=places, keepdim=True)
            cam = (scale * features).sum(dim=1, keepdim=True)
            if self.positive:
                cam = cam.clamp(min=0)
            cam = F.interpolate(
                cam, size=x.shape[2:], mode=_MODES[len(places)], align_corners=False
            )
            return Explanation(cam.expand_as(x) / x.shape[1], logits)

        return explained(method, model, x)

    def _hear(self, share: Tensor) -> bool:
        """Say where the class of an image does not depend on the maps, so that its own is zero."""
        if not share.is_meta and not bool(share.flatten(1).any(dim=1).all()):
            layer = "the last maps" if self.layer is None else f"layer '{self.layer}'"
            log.warning(
                f"grad_cam: the class of an image does not depend on {layer} (its gradient there "
                "is zero): so is its map, which says nothing of the model"
            )
        return True

    def _features(self, tape: Tape, model: nn.Module, logits: Tensor) -> tuple[OpCall, Tensor, int]:
        """The operation that returns the feature maps, these, and the axis of their channels."""
        used = {id(logits)}  # a second head has maps that the class is not read from
        for op in reversed(tape.calls):
            if any(id(tensor) in used for tensor in op.outputs):
                used.update(id(tensor) for tensor, _ in op.edges)
        image, found, dims = tape.input.shape, [], tape.input.dim()
        parts: list[OpCall] = []  # of fewer images than are explained
        sizes: set[torch.Size] = set()  # of the maps that convolutions return
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
            if made & used & tokens and op.out.dim() == dims:
                if op.out.shape[0] == image[0]:
                    found.append(op)
                elif op.out.shape[0] < image[0]:
                    parts.append(op)
            if op.func.__name__.startswith("conv"):
                sizes.add(op.out.shape[2:])
            if op.func in SOFTMAX and op.out.dim() > 2 and not made & whole and self.layer is None:
                found = []  # attention: the maps before it are not what the class is read from
        if self.layer is not None:
            return self._of_layer(tape, model, found, parts, used)
        for op in reversed(found):
            if sum(size > 1 for size in op.out.shape[1:]) < 2:  # a number per channel, or a gate
                continue
            channels = self._channels(tape, op, model)
            if channels is None:
                if not whole.isdisjoint(id(tensor) for tensor in op.outputs):
                    raise self._unknown(op)
                continue  # made of tokens, as the queries of attention are
            if min(_places(op.out, channels)) > 1 or (channels == 1 and op.out.shape[2:] in sizes):
                self._check_whole(op, parts)
                return op, op.out, channels
        raise self._none(model)

    def _check_whole(self, op: OpCall, parts: list[OpCall]) -> None:
        """Refuse maps after which the batch is taken apart, and its images go on by themselves."""
        memory = op.out.untyped_storage()._cdata
        for part in parts:
            apart = part.out.untyped_storage()._cdata != memory  # no view of them: a transposition
            if part.index > op.index and apart and sum(n > 1 for n in part.out.shape[2:]):
                raise self._one_by_one()

    def _one_by_one(self) -> UsageError:
        return UsageError(
            "grad_cam: the model computes its last maps one image at a time, or in parts of the "
            "batch, so that no tensor holds those of all images: explain one image at a time"
        )

    def _module(self, model: nn.Module) -> nn.Module | None:
        """The module that ``layer`` names, in the model or in the one that is wrapped."""
        if self.layer is None:
            return None
        modules = dict(model.named_modules(remove_duplicate=False))
        names = [
            f"{wrapped}{self.layer}"
            for wrapped in ("", "model.", "model.model.", "model.model.model.")
        ]
        found = next((modules[name] for name in names if name in modules), None)
        if found is None:
            raise self._none(model)
        return found

    def _of_layer(
        self,
        tape: Tape,
        model: nn.Module,
        found: list[OpCall],
        parts: list[OpCall],
        used: set[int],
    ) -> tuple[OpCall, Tensor, int]:
        """What the layer itself returns, never what is computed within it."""
        makers = {id(tensor): op for op in found for tensor in op.outputs}
        for returned in reversed(tape.returned):
            made = {id(tensor): tensor for tensor in returned if id(tensor) in makers}
            maps = [t for t in made.values() if sum(size > 1 for size in t.shape[1:]) > 1]
            if len(maps) > 1:
                shapes = ", ".join(str(tuple(t.shape)) for t in maps)
                raise UsageError(
                    f"layer '{self.layer}' returns {len(maps)} maps ({shapes}): name the layer "
                    "within it that makes those which are meant"
                )
            for tensor in maps:
                op = makers[id(tensor)]
                channels = self._channels(tape, op, model)
                if channels is None:
                    raise self._unknown(op)
                if max(_places(tensor, channels)) > 1:
                    return op, tensor, channels
        returned = [tensor for call in tape.returned for tensor in call]
        if any(tensor is out for tensor in returned for op in parts for out in op.outputs):
            raise self._one_by_one()
        if returned and not any(id(tensor) in used for tensor in returned):
            raise UsageError(
                f"the class is not read from layer '{self.layer}': no gradient comes from the "
                "output to what it returns; name another layer"
            )
        raise self._none(model)

    def _none(self, model: nn.Module) -> Exception:
        """There are no maps."""
        if self.layer is None:
            name = type(model).__name__
            what = "has no feature maps [B, C, H, W]"
            return UnsupportedOp(name, "the model", "grad_cam", what)
        known = {name.removeprefix("model.") for name, _ in model.named_modules()}
        close = "is not in the model" if self.layer not in known else "returns no maps"
        return UsageError(
            f"layer '{self.layer}' {close}: name one that returns [B, C, H, W] or [B, H, W, C]"
        )

    def _channels(self, tape: Tape, op: OpCall, model: nn.Module) -> int | None:
        """The axis of the channels of one operation's output; ``None`` if nothing tells."""
        last = op.out.dim() - 1
        found = channel_axis(tape, op)
        # Axes read off a linear layer or a layer norm may be those of windows, not of the image.
        fits = found == last and matches(_places(op.out, last), tape.input.shape[2:])
        read = found if found == 1 or fits else None
        if self.channels_last is None:
            return read
        told = last if self.channels_last else 1
        if read is not None and read != told:
            said = (
                f"channels_last={self.channels_last} contradicts the model, which reads the maps "
                f"{tuple(op.out.shape)} ({op.name}) with their channels on axis {read}"
            )
            once(model, said, (), {}, lambda: log.warning(said))
        return told

    def _unknown(self, op: OpCall) -> UsageError:
        """Nothing tells where the channels are."""
        layer = "its last maps" if self.layer is None else f"the maps of layer '{self.layer}'"
        return UsageError(
            f"grad_cam cannot tell which axis of {layer}, of the shape {tuple(op.out.shape)} "
            f"({op.name}), holds the channels: say so by channels_last=True or False, or name "
            "another layer"
        )

    def _relevance(
        self, tape: Tape, logits: Tensor, start: Tensor, op: OpCall, maps: Tensor
    ) -> Tensor:
        rules = composite_rules(self.composite, InputSpace())
        if rules.prepare is not None:
            rules.prepare(tape)  # on the whole record, of which the sweep walks the upper part
        upper = Tape(maps, nn.Identity())
        upper.calls = tape.calls[op.index + 1 :]
        return sweep(upper, logits, start, dataclasses.replace(rules, prepare=None))
