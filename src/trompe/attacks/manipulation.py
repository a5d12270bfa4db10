"""The public attack: find an imperceptibly changed image whose explanation is a given map."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, Literal

import torch
from torch import Tensor, nn

import trompe
from trompe.attacks.arguments import check_choices, checked_images, checked_target
from trompe.attacks.batches import in_batches
from trompe.attacks.plan import Plan
from trompe.attacks.presets import Preset, preset_for
from trompe.engine import frozen
from trompe.errors import UsageError
from trompe.explain import explainer as explainer_by_name
from trompe.explain import explainers
from trompe.types import AttackResult, Explainer, InputSpace, Progress


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
    batch_size: int | None = None,
    capture: Literal["auto", "never", "graph", "compile", "cuda-graph"] = "auto",
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
        batch_size: how many images are attacked at once, all if not given. Where memory does not
            suffice it is halved, and a warning says so.
        capture: whether the differentiable part of a step is captured as one graph, kept with the
            model for other images of the shape. ``auto``: where measured to be faster, and never
            where the model has hooks; ``never``; or one way of running it: ``graph`` replays its
            calls, ``compile`` goes through ``torch.compile``, which may take minutes,
            ``cuda-graph`` launches them as one.
        progress: called after every step, of every batch.

    Returns:
        What was found; see ``AttackResult``.

    Raises:
        UsageError: if a setting is out of range.
        TargetError: if the target is all zero, not finite, or of another size than the images.
        ModelError: if the model does not behave as a classifier.
        ExplanationError: if an original image has no map.
        MemoryLimitError: if memory does not suffice for one image.
        CaptureError: if the step cannot be run as ``capture`` says; ``auto`` goes on eagerly.

    Example:
        >>> import torch, trompe
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4),
        ...                           torch.nn.ReLU(), torch.nn.Linear(4, 3))
        >>> result = trompe.manipulate(net, torch.zeros(1, 3, 2, 2), torch.rand(2, 2), iterations=2)
        >>> result.x_adv.shape
        torch.Size([1, 3, 2, 2])
    """
    check_choices(output, keep, start_noise, batch_size, capture)
    space = input_space or InputSpace()
    method = _method(explainer, space)
    x = checked_images(x)
    settings = preset_for(preset, method, x.shape[-2]) if isinstance(preset, str) else preset
    settings = _changed(
        settings, iterations, learning_rate, prefactors, beta_growth, pooling, radius
    )
    start = x
    if start_noise:
        noise = torch.rand(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        start = x + start_noise * (2 * noise - 1)
    plan = Plan(
        *(frozen(model), method, space, settings, output, keep, progress),
        capture=capture,
        owner=model,
    )
    aims = checked_target(target_map, x)

    def attack(method: Explainer, part: slice) -> AttackResult:
        return dataclasses.replace(plan, method=method).run(x[part], start[part], aims[part])

    result = in_batches(len(x), batch_size, method, attack)
    return dataclasses.replace(
        result,
        provenance={
            "method": getattr(method, "name", type(method).__name__),
            "preset": preset if isinstance(preset, str) else "custom",
            **dataclasses.asdict(settings),
            "output": output,
            "keep": keep,
            "start_noise": start_noise,
            "capture": capture,
            **result.provenance,
            "device": str(x.device),
            "dtype": str(x.dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "trompe": trompe.__version__,
        },
    )


def _method(explainer: str | Explainer, space: InputSpace) -> Explainer:
    """An explainer by name gets the input space, if it takes one."""
    if not isinstance(explainer, str):
        if not callable(explainer):
            raise UsageError(f"explainer must be a name or callable, not {explainer!r}")
        return explainer
    takes_space = "input_space" in inspect.signature(explainers[explainer]).parameters
    options: dict[str, Any] = {"input_space": space} if takes_space else {}
    return explainer_by_name(explainer, **options)


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
