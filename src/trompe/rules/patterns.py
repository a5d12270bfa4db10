"""Patterns for pattern attribution: learned from data, saved, and read."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn

from trompe.atomic import atomic_path
from trompe.engine.frozen import frozen
from trompe.engine.recording import record
from trompe.engine.tape import OpCall, Tape
from trompe.errors import PatternError
from trompe.ordinary import refuse_odd
from trompe.rules.linear import LINEAR
from trompe.rules.passing import ACTIVATIONS


@dataclass
class _Moments:
    """Running sums of one linear operation: over places (rows) per neuron."""

    xy: Tensor
    x: Tensor
    y: Tensor
    places: int = 0
    active: Tensor = field(default_factory=lambda: torch.zeros(0))

    def pattern(self, weight: Tensor) -> Tensor:
        """``a = cov(x, y) / (w^T cov(x, y))``, with E[xy] and E[x] over the places where y > 0."""
        shape = (-1, *[1] * (weight.dim() - 1))
        count = self.active.clamp(min=1).view(shape)
        mean_y = (self.y / max(self.places, 1)).view(shape)
        covariance = self.xy / count - self.x / count * mean_y
        scale = (weight.double() * covariance).flatten(1).sum(dim=1).view(shape)
        return torch.where(scale == 0, torch.zeros_like(covariance), covariance / scale)


def _sums(op: OpCall, x: Tensor, signal: Tensor, weight: Tensor) -> Tensor:
    """Per weight: the sum over places of its input times ``signal`` (a weight gradient)."""
    probe = torch.zeros_like(weight).requires_grad_(True)
    with torch.enable_grad():
        args = list(op.args)
        args[0], args[1] = x, probe
        if len(args) > 2:
            args[2] = None
        out = op.func(*args, **{k: v for k, v in op.kwargs.items() if k != "bias"})
    return torch.autograd.grad(out, probe, signal)[0].double()


def _followed_by_activation(tape: Tape) -> set[int]:
    """Ids of the tensors that go straight into an activation."""
    return {id(t) for op in tape.calls if op.func in ACTIVATIONS for t, _ in op.edges}


def learn_patterns(
    model: nn.Module,
    batches: Iterable[Tensor],
    progress: Callable[[int], None] | None = None,
) -> dict[str, Tensor]:
    """Learn the pattern of every linear and convolutional layer from data.

    ``a = (E+[x y] - E+[x] E[y]) / (w^T (E+[x y] - E+[x] E[y]))`` per neuron, where E+ runs over
    the places with y > 0 if an activation follows, over all otherwise, x the patch and y the
    neuron's output (Kindermans et al. 2018, equation 10; so does the reference implementation).

    Args:
        model: of operations that pattern attribution covers.
        batches: normalised images [B, C, H, W]; some thousand in all.
        progress: called with the number of images seen so far.

    Returns:
        By parameter name, of the parameter's shape, float32.

    Raises:
        PatternError: if there is no image, or no weight, or a pattern is all zero.
    """
    model = frozen(model)
    names = {id(p): n for n, p in model.named_parameters()}
    moments: dict[str, _Moments] = {}
    weights: dict[str, Tensor] = {}
    seen = 0
    for batch in batches:
        with torch.enable_grad():
            tape, _ = record(model, batch.detach().clone().requires_grad_(True))
        active = _followed_by_activation(tape)
        for op in tape.calls:
            if op.func not in LINEAR:
                continue
            weight = op.argument(1, "weight")
            name = names.get(id(weight))
            if name is None or "transpose" in op.func.__name__:
                what = f"the weight of {op.name} at call {op.index} is no parameter of the model"
                if name is not None:
                    what = f"'{name}' is the weight of a transposed convolution"
                raise PatternError(f"{what}: pattern attribution is not defined for it")
            _add(moments, name, op, weight.detach(), id(op.out) in active)
            weights[name] = weight.detach()
        seen += batch.shape[0]
        if progress is not None:
            progress(seen)
    if not moments:
        raise PatternError("no patterns learned: there was no image, or no layer with weights")
    patterns = {n: m.pattern(weights[n]).float() for n, m in moments.items()}
    return dict(_checked(patterns, "the learned patterns"))


def _add(
    moments: dict[str, _Moments], name: str, op: OpCall, weight: Tensor, activated: bool
) -> None:
    x, y = op.edges[0][0].detach(), op.out.detach()
    mask = (y > 0).to(y.dtype) if activated else torch.ones_like(y)
    neurons = y.dim() - 1 if op.func is F.linear else y.dim() - weight.dim() + 1
    rows = tuple(d for d in range(y.dim()) if d != neurons)
    entry = moments.get(name)
    if entry is None:
        zero = torch.zeros(weight.shape, dtype=torch.float64, device=weight.device)
        per_neuron = torch.zeros(weight.shape[0], dtype=torch.float64, device=weight.device)
        entry = moments[name] = _Moments(zero, zero.clone(), per_neuron, 0, per_neuron.clone())
    entry.xy += _sums(op, x, mask * y, weight)
    entry.x += _sums(op, x, mask, weight)
    entry.y += y.double().sum(dim=rows)
    entry.active += mask.double().sum(dim=rows)
    entry.places += y.numel() // weight.shape[0]


def _checked(patterns: Mapping[str, Tensor], source: str) -> Mapping[str, Tensor]:
    for name, pattern in patterns.items():
        if not bool(torch.isfinite(pattern).all()):
            raise PatternError(f"{source}: the pattern of '{name}' is not finite; learn it anew")
        if not bool(pattern.any()):
            raise PatternError(
                f"{source}: the pattern of '{name}' is all zero; learn the patterns from more data"
            )
    return patterns


def given_patterns(patterns: Mapping[str, Tensor], method: str) -> Mapping[str, Tensor]:
    """The patterns that a method needs, if there are any.

    Raises:
        PatternError: if there are none.
    """
    if not patterns:
        raise PatternError(
            f"{method} needs patterns learned from data: run 'trompe patterns' and pass the file "
            "with --patterns"
        )
    return patterns


def save_patterns(path: str | Path, patterns: Mapping[str, Tensor]) -> None:
    """Write patterns as safetensors, whole or not at all."""
    plain = {n: p.detach().contiguous().cpu() for n, p in patterns.items()}
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(save(plain, metadata={"format": "trompe patterns"}))


def read_patterns(path: str | Path) -> Mapping[str, Tensor]:
    """Read tensors from a file of patterns, whatever model they are of.

    Raises:
        PatternError: if the file is missing or broken, or holds no tensors.
    """
    refuse_odd(path, PatternError, f"patterns file '{path}'")
    try:
        if str(path).endswith(".safetensors"):
            stored = load_file(str(path))
        else:
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise PatternError(f"no such patterns file: {path}") from None
    except Exception as error:  # a broken pickle raises almost anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # torch's own words advise to run its code
            reason = "it is no file of tensors alone"
        raise PatternError(f"{path} cannot be read as patterns ({reason})") from error
    if not isinstance(stored, Mapping):
        raise PatternError(f"{path} holds no patterns: expected tensors by parameter name")
    return stored


def load_patterns(path: str | Path, model: nn.Module) -> dict[str, Tensor]:
    """Read patterns for ``model``.

    Args:
        path: safetensors by parameter name, or a ``.pth`` file of the reference implementation
            (entries ``layers.N.pattern``, N counting the convolutions, poolings, dropouts and
            linear layers), which is matched to the model's layers in order.
        model: must have parameters of the patterns' names and shapes.

    Raises:
        PatternError: if the file is missing or broken, a pattern is all zero or does not fit, or
            a layer has none.
    """
    stored = read_patterns(path)
    weights = {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
    }
    if any(str(key).endswith(".pattern") for key in stored):
        stored = _reference_layout(stored, list(weights), path)
    for name, weight in weights.items():
        if name not in stored:
            raise PatternError(f"{path} has no pattern for '{name}': it is another model's")
        if not _is_pattern(stored[name]):
            raise PatternError(f"{path}: what it has for '{name}' is no pattern: learn it anew")
        if stored[name].shape != weight.shape:
            raise PatternError(
                f"{path}: the pattern of '{name}' has the shape {tuple(stored[name].shape)}, the "
                f"weight {tuple(weight.shape)}: it is another model's"
            )
    return dict(_checked({n: stored[n].float() for n in weights}, str(path)))


def _is_pattern(value: object) -> bool:
    """Whether it is a dense tensor of floating point numbers that are there."""
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_meta:
        return False
    return value.is_floating_point()


def _reference_layout(
    stored: Mapping[str, Tensor], names: list[str], path: str | Path
) -> dict[str, Tensor]:
    """Entries ``layers.N.pattern`` in the order of N, one for each weight in the model's order."""
    keys = [
        k
        for k in stored
        if str(k).endswith(".pattern") and _is_pattern(stored[k]) and stored[k].numel()
    ]
    numbers = {k: [int(part) for part in k.split(".") if part.isdigit()] for k in keys}
    keys.sort(key=lambda k: numbers[k])
    if len(keys) != len(names):
        raise PatternError(
            f"{path} has {len(keys)} patterns, the model {len(names)} layers with weights: it is "
            "another model's"
        )
    return {name: stored[key] for name, key in zip(names, keys, strict=True)}
