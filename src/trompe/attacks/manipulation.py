"""The public attack: find an imperceptibly changed image whose explanation is another one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trompe.attacks.arguments import (
    check_choices,
    check_kinds,
    check_parts,
    checked_images,
    checked_objective,
    checked_space,
)
from trompe.attacks.batch_attack import BatchAttack
from trompe.attacks.batches import in_batches, out_of_memory
from trompe.attacks.channels import Channel
from trompe.attacks.constraints import Constraint
from trompe.attacks.keep import Keep, as_keep
from trompe.attacks.objectives import DEFAULT_OBJECTIVE, Objective
from trompe.attacks.parts import named, part_of
from trompe.attacks.presets import DEFAULT_PRESET, Preset, preset_for
from trompe.attacks.steps import Step
from trompe.engine import adapted, kinks
from trompe.engine.adapt import Given
from trompe.errors import MemoryLimitError, ModelError, UsageError
from trompe.explain import as_explainer
from trompe.explain.base import Method
from trompe.explain.meant import meant
from trompe.given import classes as given_classes
from trompe.outputs import Outputs, as_outputs
from trompe.progress import shown
from trompe.types import AttackResult, Explainer, Follow, InputSpace, LoadedModel, Progress
from trompe.version import __version__


@torch.inference_mode(False)
@torch.enable_grad()
def manipulate(
    model: Any,
    x: Any,
    target_map: Tensor | None = None,
    *,
    explainer: str | Explainer = "gradient",
    objective: str | Objective = DEFAULT_OBJECTIVE,
    constraint: Constraint | None = None,
    keep_output: Keep | str = "softmax",
    through: Sequence[Channel] = (),
    step: Step | None = None,
    target: Tensor | Sequence[int] | int | None = None,
    outputs: Outputs | str | None = None,
    input_space: InputSpace | None = None,
    preset: str | Preset = DEFAULT_PRESET,
    iterations: int | None = None,
    keep: Literal["best", "last"] = "best",
    start_noise: float = 0.0,
    redraw: bool | None = None,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
    capture: Literal["auto", "never", "graph", "compile", "cuda-graph"] = "auto",
    progress: Progress | bool | None = None,
    follow: Follow | None = None,
) -> AttackResult:
    """Change images so that their explanation becomes another one and the output stays.

    Each image is optimised as if it were alone. Results are judged on the original model, of the
    class it predicts on the original image, or ``target``. An interruption (Ctrl-C) or a loss that
    is no longer finite ends the attack early; what it had is returned.

    Args:
        model: any module or function [B, C, H, W] -> [B, K], or one with its input space and
            labels, from ``load_model``. Not changed; run in evaluation mode. It has to be a
            function of one image, which is checked once.
        x: the original images, normalised, [B, C, H, W].
        target_map: the maps aimed at, [B, H, W] or [H, W]; made positive, each divided by its sum.
            For objectives that aim at a map.
        explainer: the method attacked, a name or an object.
        objective: what becomes of the map, a name (``unlike:measure=cosine`` with an option) or
            an object; ``reach_map``: ``target_map``.
        constraint: where the images must stay, in place of the preset's.
        keep_output: what of the output stays: ``class``, ``softmax``, ``logits``, or a ``Keep``
            with a tolerance. An image whose predicted class has changed never counts as found.
        through: channels, such as a compression, after which the map must have changed, too; the
            loss is the mean over the image as it is and after each of them.
        step: how the images move, in place of the preset's.
        target: the class explained of each image, [B], or one for all; the predicted one if not
            given.
        outputs: what the model's outputs mean, and so when its answer is kept: ``classes``,
            ``binary``, ``labels``, ``probabilities``, ``value``, or an ``Outputs`` with a threshold
            or tolerance; found if not given: one output is binary, probabilities are refused.
        input_space: the model's normalisation; by default a ``LoadedModel``'s own, or ImageNet's.
        preset: a name, or settings: ``dataclasses.replace(preset_for("fast", "lrp", 224), ...)``.
        iterations: in place of the preset's.
        keep: per image the best iterate that keeps the output, or the last iterate.
        start_noise: the attack starts from uniform noise of at most this size, normalised units.
        redraw: whether a method that draws masks or noise draws others in every step, so that what
            is found does not fit its draws alone; it is judged by its own draws, which no step has
            used then. By default for methods made of masks (``rise``, ``lime``, ``kernel_shap``).
        generator: of that noise, and of the channels'.
        batch_size: how many images are attacked at once, all if not given. Where memory does not
            suffice it is halved, and a warning says so.
        capture: whether the differentiable part of a step is captured as one graph, kept with the
            model for other images of the shape. ``auto``: where measured to be faster, and never
            where the model has hooks; ``never``; or one way of running it: ``graph`` replays its
            calls, ``compile`` goes through ``torch.compile``, which may take minutes,
            ``cuda-graph`` launches them as one. Steps through channels that draw noise are never
            captured.
        progress: called after every step, of every batch; ``True`` for a bar, in notebooks too.
        follow: called after every step with the number of steps done and the batch's images as they
            are then, normalised, [B, C, H, W]; a ``KeyboardInterrupt`` that it raises ends the
            attack as Ctrl-C does.

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
    check_choices(keep, start_noise, batch_size, capture)
    check_kinds(
        preset=preset,
        iterations=iterations,
        through=through,
        generator=generator,
        input_space=input_space,
        redraw=redraw,
        progress=progress,
        follow=follow,
    )
    owner = model.model if isinstance(model, LoadedModel) else model
    labels = model.classes if isinstance(model, LoadedModel) else ()
    given = _adapted(model, x, as_outputs(outputs))
    if given.probabilities:
        raise ModelError(
            "the model returns probabilities, whose change an attack would understate: give the "
            "logits before its softmax or sigmoid, or outputs='probabilities' to attack and keep "
            "their logarithm (scores that merely stay within 0..1: outputs='classes' or 'value')"
        )
    x = checked_images(given.x, (3, 4, 5))
    space = checked_space(input_space or given.space, x)
    method = as_explainer(explainer, space)
    if given.space is not None and isinstance(method, Method):
        method = method.within(space)
    method = meant(method, given.outputs)
    settings = preset_for(preset, method, _height(x)) if isinstance(preset, str) else preset
    settings = _changed(settings, iterations, constraint, step)
    ways = tuple(part_of(Channel, channel, "through") for channel in through)
    aim = checked_objective(objective, target_map, x, settings.relative)
    settings.check_objective(aim)
    check_parts((aim, settings.constraint, settings.step, *ways), x)
    start = x
    if start_noise:
        noise = torch.rand(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        start = x + start_noise * (2 * noise - 1)
    attack = BatchAttack(
        judge=given.model,
        method=method,
        space=space,
        settings=settings,
        keep_output=dataclasses.replace(as_keep(keep_output), outputs=given.outputs),
        through=ways,
        keep=keep,
        progress=shown(progress, "attack"),
        capture=capture,
        owner=owner if isinstance(owner, nn.Module) else given.model,
        generator=generator,
        redraw=_redraws(method) if redraw is None else redraw,
        follow=follow,
    )
    classes = None if target is None else given_classes(target)

    def run(method: Explainer, part: slice) -> AttackResult:
        some = classes if classes is None or classes.dim() == 0 else classes[part]
        return dataclasses.replace(attack, method=method).run(
            x[part], start[part], sliced(aim, part), some
        )

    if classes is not None and classes.dim() > 0 and len(classes) != len(x):
        raise UsageError(
            f"target has the shape {tuple(classes.shape)} for {len(x)} images: give one class each"
        )
    result = in_batches(len(x), batch_size, method, run)
    return dataclasses.replace(
        result,
        input_space=space,
        classes=labels,
        provenance={
            "method": getattr(method, "name", type(method).__name__),
            "preset": preset if isinstance(preset, str) else "custom",
            **named(settings),
            "objective": named(aim),
            "keep_output": named(attack.keep_output),
            "outputs": given.outputs.meaning,
            "through": [named(channel) for channel in ways],
            "keep": keep,
            "start_noise": start_noise,
            "redraw": attack.redraw,
            "capture": capture,
            "remaining_kinks": unseen(given, x),
            **result.provenance,
            "device": str(x.device),
            "dtype": str(x.dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "trompe": __version__,
        },
    )


def _height(x: Tensor) -> int:
    """The height of images; of signals and volumes that of a square image of as many places."""
    return int(x.shape[-2]) if x.dim() == 4 else max(1, round(math.sqrt(math.prod(x.shape[2:]))))


def unseen(given: Given, x: Tensor) -> list[str]:
    """Where a gradient may see nothing: kinks that no smoothing covers, or itself, by name.

    An attack through one of them that moved nothing says nothing of how robust the map is.
    """
    places = [f"{kink.function} in {kink.place}" for kink in kinks(given.model, x).uncovered]
    return places + ["the gradient, which is not that of the output"] * bool(given.gradient_fault)


def _adapted(model: Any, x: Any, outputs: Outputs | None) -> Given:
    """What the caller gave, ready for work; the model is looked at by one or two images."""
    try:
        return adapted(model, x, outputs=outputs, evaluation=True)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise MemoryLimitError(
            f"memory does not suffice to attack one image ({error}): use a smaller image or network"
        ) from error


def sliced(objective: Objective, part: slice) -> Objective:
    """The objective of some of the images: its tensors have the batch first."""
    changes: dict[str, Any] = {
        field.name: value[part]
        for field in dataclasses.fields(objective)
        if isinstance(value := getattr(objective, field.name), Tensor)
    }
    return dataclasses.replace(objective, **changes)


def _redraws(method: Explainer) -> bool:
    """Whether a method's masks are drawn anew in every step where nobody says."""
    return isinstance(method, Method) and method.masked


def _changed(
    settings: Preset, iterations: int | None, constraint: Constraint | None, step: Step | None
) -> Preset:
    """The preset with the caller's own parts in place of its own."""
    changes: dict[str, Any] = {}
    if iterations is not None:
        changes["iterations"] = iterations
    if constraint is not None:
        changes["constraint"] = part_of(Constraint, constraint, "constraint")
    if step is not None:
        changes["step"] = part_of(Step, step, "step")
    return dataclasses.replace(settings, **changes)
