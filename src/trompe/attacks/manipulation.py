"""The public attack: find an imperceptibly changed image whose explanation is a given map."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

import trompe
from trompe.attacks.constraints import Constraint, LInfBall, ValidImage
from trompe.attacks.loop import Attack
from trompe.attacks.objectives import ReachMap
from trompe.attacks.observation import observe
from trompe.attacks.presets import Preset, preset_for
from trompe.attacks.steps import AdamStep, SignStep, Stepper
from trompe.engine import frozen, smooth
from trompe.errors import ModelError, TargetError, UsageError
from trompe.explain import explainer as explainer_by_name
from trompe.explain import explainers
from trompe.types import AttackResult, Explainer, InputSpace, Progress, heatmap

log = logging.getLogger("trompe")


@torch.inference_mode(False)
@torch.enable_grad()
def manipulate(
    model: nn.Module,
    x: Tensor,
    target_map: Tensor,
    *,
    explainer: str | Explainer = "gradient",
    input_space: InputSpace | None = None,
    preset: str | Preset = "paper",
    iterations: int | None = None,
    learning_rate: float | None = None,
    prefactors: tuple[float, float] | None = None,
    beta_growth: tuple[float, float] | Literal["preset"] | None = "preset",
    pooling: float | None = None,
    radius: float | None = None,
    output: Literal["softmax", "logits"] = "softmax",
    keep: Literal["best", "last"] = "best",
    start_noise: float = 0.0,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> AttackResult:
    """Change images so that their explanation becomes ``target_map`` and the output stays.

    Each image is optimised as if it were alone. Results are judged on the original model, for the
    class it predicts on the original image. An interruption (Ctrl-C) or a loss that is no longer
    finite ends the attack early; what it had is returned.

    Args:
        model: any module [B, C, H, W] -> [B, K]. Not changed; run in evaluation mode.
        x: the original images, normalised, [B, C, H, W].
        target_map: the maps aimed at, [B, H, W] or [H, W]; made positive, each divided by its sum.
        explainer: the method attacked, a name or an object.
        input_space: the model's normalisation; ImageNet's if not given.
        preset: a name (``paper``), or settings of your own.
        iterations: and all that follow: in place of the preset's.
        learning_rate: of Adam, normalised units.
        prefactors: c1 of the map's, c2 of the output's squared error.
        beta_growth: the surrogate's first and last beta; ``None``: attack the model itself.
        pooling: multiple of beta at which the surrogate's max pooling is smoothed; 0 leaves it.
        radius: of the ball in the maximum norm, pixel units 0..1, for signed momentum steps.
        output: whether the softmax or the logits are kept.
        keep: per image the best iterate that keeps the class, or the last iterate.
        start_noise: the attack starts from uniform noise of at most this size, normalised units.
        generator: of that noise.
        progress: called after every step.

    Returns:
        What was found; see ``AttackResult``.

    Raises:
        UsageError: if a setting is out of range.
        TargetError: if the target is all zero, not finite, or of another size than the images.
        ModelError: if the model does not behave as a classifier.
        ExplanationError: if an original image has no map.

    Example:
        >>> import torch, trompe
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4),
        ...                           torch.nn.ReLU(), torch.nn.Linear(4, 3))
        >>> result = trompe.manipulate(net, torch.zeros(1, 3, 2, 2), torch.rand(2, 2), iterations=2)
        >>> result.x_adv.shape
        torch.Size([1, 3, 2, 2])
    """
    _check_choices(output, keep, start_noise)
    space = input_space or InputSpace()
    method = _method(explainer, space)
    x = _checked_images(x)
    settings = preset_for(preset, method, x.shape[-2]) if isinstance(preset, str) else preset
    settings = _changed(
        settings, iterations, learning_rate, prefactors, beta_growth, pooling, radius
    )
    judge = frozen(model)
    target = _predicted(judge, x)
    with torch.no_grad():
        reference = observe(judge, method, x, target)
        if not bool(torch.isfinite(reference.map).all()):
            heatmap(method(judge, x, target))  # raises, and says which image has no map and why
    aim = _checked_target(target_map, reference.map)
    surrogate = None
    if settings.beta_start is not None:
        surrogate = smooth(judge, beta=settings.beta_start, pooling=settings.pooling)
    start = x
    if start_noise:
        noise = torch.rand(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        start = x + start_noise * (2 * noise - 1)
    attack = Attack(
        model=judge,
        surrogate=surrogate,
        explainer=method,
        objective=ReachMap(aim, settings.prefactors, output, settings.relative),
        constraint=_constraint(settings, space),
        stepper=_stepper(settings, space, x),
        beta=lambda iteration: settings.beta(iteration, settings.iterations),
        reference=reference,
        target=target,
        progress=progress,
    )
    attack.run(start, settings.iterations)
    found = attack.x.detach() if keep == "last" else attack.best.x
    with torch.no_grad():
        final = observe(judge, method, found, target)
    history = {
        key: torch.stack([row[key] for row in attack.history]).cpu()
        for key in (attack.history[0] if attack.history else ())
    }
    return AttackResult(
        x=x.cpu(),
        x_adv=found.cpu(),
        target_class=target.cpu(),
        map_original=reference.map.cpu(),
        map_target=aim.cpu(),
        map_adv=final.map.cpu(),
        logits_original=reference.logits.cpu(),
        logits_adv=final.logits.cpu(),
        history=history,
        iterations=attack.done,
        stopped=attack.stopped,
        provenance={
            "method": getattr(method, "name", type(method).__name__),
            "preset": preset if isinstance(preset, str) else "custom",
            **dataclasses.asdict(settings),
            "output": output,
            "keep": keep,
            "start_noise": start_noise,
            "vanishing_gradient": attack.vanished.tolist(),
            "device": str(x.device),
            "dtype": str(x.dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "trompe": trompe.__version__,
        },
    )


def _check_choices(output: str, keep: str, start_noise: float) -> None:
    if output not in ("softmax", "logits"):
        raise UsageError(f"unknown output '{output}': choose from softmax, logits")
    if keep not in ("best", "last"):
        raise UsageError(f"unknown keep '{keep}': choose from best, last")
    if not 0 <= start_noise < math.inf:
        raise UsageError(f"start_noise must not be negative, not {start_noise}")


def _method(explainer: str | Explainer, space: InputSpace) -> Explainer:
    """An explainer by name gets the input space, if it takes one."""
    if not isinstance(explainer, str):
        if not callable(explainer):
            raise UsageError(f"explainer must be a name or callable, not {explainer!r}")
        return explainer
    takes_space = "input_space" in inspect.signature(explainers[explainer]).parameters
    options: dict[str, Any] = {"input_space": space} if takes_space else {}
    return explainer_by_name(explainer, **options)


def _constraint(settings: Preset, space: InputSpace) -> Constraint:
    return ValidImage(space) if settings.radius is None else LInfBall(space, settings.radius)


def _stepper(settings: Preset, space: InputSpace, x: Tensor) -> Stepper:
    if settings.radius is None:
        return AdamStep(settings.learning_rate)
    return SignStep(space.scale(settings.step * settings.radius, x), settings.momentum)


def _changed(
    settings: Preset,
    iterations: int | None,
    learning_rate: float | None,
    prefactors: tuple[float, float] | None,
    beta_growth: tuple[float, float] | str | None,
    pooling: float | None,
    radius: float | None,
) -> Preset:
    """The preset with the caller's own settings in place of its own."""
    changes: dict[str, Any] = {}
    if iterations is not None:
        changes["iterations"] = iterations
    if learning_rate is not None:
        changes["learning_rate"] = learning_rate
    if prefactors is not None:
        changes["prefactors"] = (float(prefactors[0]), float(prefactors[1]))
    if pooling is not None:
        changes["pooling"] = float(pooling)
    if radius is not None:
        changes["radius"] = float(radius)
    if beta_growth is None:
        changes["beta_start"] = None
    elif not isinstance(beta_growth, str):
        changes["beta_start"], changes["beta_end"] = (float(b) for b in beta_growth)
    return dataclasses.replace(settings, **changes)


def _checked_images(x: Tensor) -> Tensor:
    if x.dim() != 4 or not x.is_floating_point() or x.shape[0] == 0:
        raise UsageError(
            f"x has the shape {tuple(x.shape)} and type {x.dtype}: give normalised images, "
            "floating point, [B, C, H, W]"
        )
    if not bool(torch.isfinite(x).all()):
        raise UsageError("x holds values that are not finite")
    return x.detach().clone()


def _predicted(model: nn.Module, x: Tensor) -> Tensor:
    """The class of each image."""
    try:
        with torch.no_grad():
            logits = model(x.clone())
    except RuntimeError as error:  # the wrong number of channels, size or type
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"the model fails on images of shape {tuple(x.shape)}: {reason}"
        ) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[0] != x.shape[0]:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"the model returns {found}: a classifier returns logits [B, K]")
    if not bool(torch.isfinite(logits).all()):
        raise ModelError("the model returns logits that are not finite on the original images")
    return logits.argmax(dim=1)


def _checked_target(target_map: Tensor, like: Tensor) -> Tensor:
    """The target as heat maps of the shape of ``like``, [B, H, W]."""
    aim = target_map.detach().to(like.device, like.dtype)
    if aim.dim() == like.dim() - 1:
        aim = aim.unsqueeze(0)
    if aim.dim() != like.dim() or aim.shape[1:] != like.shape[1:]:
        raise TargetError(
            f"the target map has the shape {tuple(target_map.shape)}, the images' maps "
            f"{tuple(like.shape)}: resize it first"
        )
    if aim.shape[0] not in (1, like.shape[0]):
        raise TargetError(f"{aim.shape[0]} target maps for {like.shape[0]} images: give one each")
    if not bool(torch.isfinite(aim).all()):
        raise TargetError("the target map holds values that are not finite")
    if not bool(aim.flatten(1).any(dim=1).all()):
        raise TargetError("the target map is all zero")
    aim = aim.abs().expand_as(like)
    return aim / aim.flatten(1).sum(dim=1).view(-1, *[1] * (aim.dim() - 1))
