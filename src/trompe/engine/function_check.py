"""Is the model a function of one image? Tried on two images, whatever the model is made of.

An explanation, and far more an attack on one, means nothing for a model that answers by chance,
mixes the images of a batch, or changes while it runs. The check needs no list of layers: it
compares an image in a batch with the image alone, asks whether random numbers were drawn, and
whether a buffer was written, and whether the output rises along its gradient as that says. It costs
two forward passes of two images, two of one, and a backward pass.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trompe.engine.apart import kept
from trompe.engine.function_faults import (
    batch_statistics,
    equal,
    fixed_batch,
    mixing,
    named,
    ran_coarsely,
    random_run,
)
from trompe.engine.slope_check import slope_found
from trompe.engine.tape import depends
from trompe.errors import ModelError, TrompeError
from trompe.model_output import Path, find_logits, follow, in_same_form


class Tried(NamedTuple):
    """What two images showed.

    Args:
        path: where the logits are in what the model returns.
        logits: of the two images, with their graph, [2, K].
        plain: whether the model returns just them, [2, K], and does not write to its images.
        undifferentiable: why no gradient reaches the images; nothing if one does.
        slope: that of the output along its gradient, as a share of what the gradient says.
    """

    path: Path
    logits: Tensor
    plain: bool
    undifferentiable: str
    slope: float


def try_function(model: nn.Module, x: Tensor, by_chance: bool = False) -> Tried:
    """Run the model on two images together and on each alone.

    Args:
        model: any module; as it is after the check, its buffers are restored if it writes to them.
        x: images, [B, ...], floating point; the first one is used, and one made of it.
        by_chance: whether the model may answer by chance; then two runs are not compared.

    Raises:
        ModelError: if it fails, returns no logits or NaN, draws random numbers,
            mixes the images of a batch, or changes its buffers: the place is named.
    """
    pair = two_images(x)
    with torch.inference_mode(False), kept(), _random_state_kept(x), _buffers_kept(model):
        before = _random_state(x)
        start = pair.clone().requires_grad_(True)
        with torch.enable_grad():
            given = start.clone()  # which the model may write to
            out = _run(model, given)
        path, classes = find_logits(out, 2)
        logits = follow(out, path).reshape(2, classes)
        why = "" if depends(logits, start) else _undifferentiable(model)
        if not logits.is_meta and bool(logits[0].isnan().any()):
            raise ModelError(
                "the model returns logits that are not finite (NaN), of which there is no map: "
                "look in the model for a softmax over nothing but masked places, 0 / 0, or the "
                "logarithm or root of a negative number"
            )
        if by_chance:
            plain = isinstance(out, Tensor) and out.dim() == 2 and given._version == 0
            return Tried(path, logits, plain, why, 1.0)
        with torch.no_grad():
            try:
                alone = [follow(_run(model, pair[i : i + 1].clone()), path) for i in range(2)]
                single = torch.cat([one.reshape(1, classes) for one in alone])
            except (ModelError, RuntimeError, LookupError, AttributeError) as error:
                if fixed_batch(str(error.__cause__)):
                    raise
                raise ModelError(
                    f"{batch_statistics(model) or 'the model'} depends on the other images of a "
                    f"batch: two are answered, one alone is not ({error.__cause__ or error})"
                    f"{eval_first(model)}"
                ) from error
        drawn = not torch.equal(before, _random_state(x))
        if drawn:
            _refuse_random(model, pair)
        if not _agree(logits.detach(), single, model, pair):
            if why:  # integers, whose scale goes by the batch, are no question of training
                raise ModelError(why)
            _refuse_random(model, pair)
            raise ModelError(mixing(model, pair) + eval_first(model))
        slope = 1.0
        if not why:

            def again(images: Tensor) -> Tensor:
                return in_same_form(follow(_run(model, images), path), 2, classes)

            slope = slope_found(logits, start, again)
    plain = isinstance(out, Tensor) and all(t.dim() == 2 for t in (out, *alone))
    plain = plain and given._version == 0
    return Tried(path, logits, plain, why, slope)


def two_images(x: Tensor) -> Tensor:
    """The first image of ``x``, and one of the same kind that differs from it, [2, ...]."""
    image = x.detach()[:1].clone() if not x.is_inference() else x[:1].clone()
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    spread = torch.nan_to_num(image.float().std(correction=0)).clamp_min(1e-3).to(image)
    return torch.cat([image, image + spread * noise.to(image)])


def eval_first(model: nn.Module) -> str:
    """The way out for a model that is still in training mode."""
    return (
        ": it is in training mode, call model.eval() first"
        if any(m.training for m in model.modules())
        else ""
    )


def _run(model: nn.Module, x: Tensor) -> Any:
    """The model's output.

    Raises:
        ModelError: if it fails, for any reason but the lack of memory.
    """
    try:
        return model(x)
    except (TrompeError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # the model is the user's: anything can happen
        if "memory" in str(error):
            raise
        raise ModelError(_failure(model, x, error)) from error


def _failure(model: nn.Module, x: Tensor, error: Exception) -> str:
    """What a failing model means, in one line."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if told := fixed_batch(reason):
        return told
    if isinstance(error, TypeError) and "required positional argument" in reason:
        return (
            f"the model takes more than images ({reason}): wrap it in a function of the images "
            "alone, such as lambda x: model(x, other)"
        )
    if isinstance(error, TypeError) and (named := _by_name(model)):
        return (
            f"the model takes images by a name ({reason}): wrap it in a function that gives it, "
            f"such as lambda x: model({named}=x)"
        )
    way_out = "check the size, the channels and the type"
    devices = {one.device for one in (*model.parameters(), *model.buffers())}
    if devices - {x.device}:
        named = " and ".join(sorted(map(str, devices)))
        return (
            f"the model fails on images of shape {(1, *x.shape[1:])} ({reason[:200]}): the images "
            f"are on {x.device}, the weights on {named}: move them to one device"
            + (" (those on meta hold no numbers yet: load them)" if "meta" in named else "")
        )
    weights = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if weights and x.dtype not in weights and not torch.is_autocast_enabled(x.device.type):
        named = " and ".join(sorted(str(dtype) for dtype in weights))
        way_out = f"the images are {x.dtype}, the weights {named}: convert one of them"
    elif x.dim() == 4 and x.shape[-1] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        way_out = "channels come first: x.permute(0, 3, 1, 2)"
    shape = (1, *x.shape[1:])
    return f"the model fails on images of shape {shape} ({reason[:200]}): {way_out}"


def _by_name(model: nn.Module) -> str:
    """The first argument of a model that takes none but by their names; or nothing."""
    given = list(inspect.signature(model.forward).parameters.values())
    keywords = all(one.kind in (one.KEYWORD_ONLY, one.VAR_KEYWORD) for one in given)
    return given[0].name if keywords and given and given[0].kind is given[0].KEYWORD_ONLY else ""


def _agree(together: Tensor, alone: Tensor, model: nn.Module, pair: Tensor) -> bool:
    """Whether both are the same up to rounding, which is coarse where half precision was used."""
    error, size = _difference(together, alone)
    exact = max(torch.finfo(one.dtype).eps for one in (together, pair)) ** 0.5
    if error <= exact * size:
        return True
    return error <= 0.1 * size and ran_coarsely(model, pair)


def _difference(one: Tensor, other: Tensor) -> tuple[float, float]:
    """The largest difference of entries that are numbers in both, and the size of the entries."""
    numbers = torch.isfinite(one) & torch.isfinite(other)
    apart = torch.isfinite(one) != torch.isfinite(other)
    if bool(apart.any()):
        return float("inf"), 1.0
    first, second = one[numbers].double(), other[numbers].double()
    if not len(first):
        return 0.0, 0.0
    return float((first - second).abs().max()), float(first.abs().max())


def _refuse_random(model: nn.Module, pair: Tensor) -> None:
    """Refuse a model whose output is another one each time.

    Raises:
        ModelError: with the operation that draws random numbers, and its place.
    """
    with torch.no_grad():
        first, second = (random_run(model, pair) for _ in range(2))
    outputs = [follow(run.output, find_logits(run.output, 2)[0]) for run in (first, second)]
    way_out = eval_first(model) or (
        ": make it a function of the image; dropout has to be off in evaluation mode "
        "(F.dropout needs training=self.training)"
    )
    drawn = f" ({first.drawing[0]})" if first.drawing else ""
    if not equal(outputs[0], outputs[1]):
        raise ModelError(f"the model answers by chance, another output each time{drawn}{way_out}")
    if not all(map(equal, first.drawn, second.drawn)):  # they are not from a seed of its own
        raise ModelError(f"the model draws random numbers, its answer is chance{drawn}{way_out}")


def _undifferentiable(model: nn.Module) -> str:
    """Why no gradient reaches the image, as far as it can be told."""
    for name, module in model.named_modules():
        if ".quantized" in type(module).__module__:
            return (
                f"'{name}' ({type(module).__name__}) computes with integers and has no gradient: "
                "explain the floating point model that it was made of"
            )
    return (
        "the model's output does not depend differentiably on its input: remove torch.no_grad(), "
        "detach() and rounding on the way"
    )


def _random_state(x: Tensor) -> Tensor:
    state = torch.get_rng_state()
    return torch.cat([state, torch.cuda.get_rng_state(x.device)]) if x.is_cuda else state


@contextmanager
def _random_state_kept(x: Tensor) -> Iterator[None]:
    """The caller's random numbers are those that would have come without the check."""
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        yield


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Buffers that the model writes to are restored, and then it is refused.

    Raises:
        ModelError: with the name of the buffer.
    """
    held = [
        (place, owner, key, buffer, buffer.detach().clone())
        for place, owner, key, buffer in _buffers(model)
    ]
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:  # whatever ends the check, the model is restored
        failure = error
    written = ""
    for place, owner, key, buffer, copy in held:
        # By value: batch norm writes its statistics without counting that as a new version.
        now = owner._buffers.get(key)
        changed = now is None or not equal(now, copy) or not equal(buffer, copy)
        with torch.no_grad():
            owner._buffers[key] = buffer
            if not equal(buffer, copy):
                buffer.copy_(copy)
        if changed and not written:
            written = f"{place} writes to its buffer '{key}'"
    if written and (failure is None or isinstance(failure, ModelError)):
        raise ModelError(
            f"{written} as it runs, so the model is no function of the image"
            f"{eval_first(model) or ': remove what it remembers from one image to the next'}"
        ) from failure
    if failure is not None:
        raise failure


def _buffers(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    for prefix, module in model.named_modules():
        for key, buffer in list(getattr(module, "_buffers", {}).items()):
            if buffer is not None:
                yield named(prefix, module), module, key, buffer
