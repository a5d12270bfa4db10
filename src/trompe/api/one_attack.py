"""``trompe.attack``: make the explanation of an image become another one."""

from __future__ import annotations

import os
from typing import Any, Literal

import torch

from trompe.api.inputs import Images, loaded_model, named_images
from trompe.attacks import manipulate
from trompe.attacks.objectives import takes_target
from trompe.cli.attack_settings import attack_options
from trompe.cli.options import make_method
from trompe.cli.pictures import DEFAULT_IMAGE, read_images, read_target, with_folders
from trompe.errors import UsageError
from trompe.given import of_kind
from trompe.progress import shown
from trompe.types import AttackResult, LoadedModel, Progress


def attack(
    images: Images = None,
    *,
    target: str | os.PathLike[str] | None = None,
    target_text: str | None = None,
    target_map: str | os.PathLike[str] | None = None,
    model: str | LoadedModel | None = None,
    method: str = "gradient",
    beta: float | None = None,
    smoothgrad: int | None = None,
    objective: str = "reach_map",
    constraint: str | None = None,
    step: str | None = None,
    through: tuple[str, ...] = (),
    preset: str = "fast",
    iterations: int | None = None,
    keep_output: Literal["class", "softmax", "logits"] = "softmax",
    tolerance: float | None = None,
    explained: int | None = None,
    seed: int = 0,
    batch_size: int = 4,
    progress: Progress | bool | None = True,
) -> AttackResult:
    """Change images imperceptibly, so that their explanation becomes another one.

    It is ``trompe attack`` without its files; ``result.save`` writes what was found. Where the
    model and the images are tensors and modules already, ``trompe.manipulate`` is the function.

    Args:
        images: files, folders, or ``cat``, ``coffee``, ``rocket``; by default the cat.
        target: image whose explanation is to be copied; by default the rocket.
        target_text: text that the explanation is to show, in place of an image's.
        target_map: file of a map that it is to show: .npy or .png.
        model: a name that ``trompe.models()`` lists, ``timm:NAME``, ``package.module:function``, or
            a loaded model; by default ``efficientnet-lite0``.
        method: explanation attacked; a name that ``trompe.methods()`` lists.
        beta: attack the explanation smoothed with this beta.
        smoothgrad: attack the mean over this number of noisy copies.
        objective: what becomes of the explanation, such as ``unlike:measure=cosine``.
        constraint: where the images must stay, such as ``linf:8/255``; by default the preset's.
        step: how they move; by default the preset's.
        through: channels that the manipulation must survive, such as ``jpeg:75``.
        preset: ``fast``, ``thorough`` or ``paper``.
        iterations: steps, in place of the preset's.
        keep_output: output that is to stay.
        tolerance: largest change of a softmax or logit that a result may have.
        explained: number of the class explained; by default the predicted one.
        seed: of everything random.
        batch_size: images worked on at once.
        progress: a bar, a function that is told, or ``False`` for none.

    Returns:
        What was found, judged on the original network.

    Raises:
        TrompeError: if a name is unknown, a file cannot be used, or options do not go together.

    Example:
        >>> trompe.attack("coffee", target_text="fooled").plot()  # doctest: +SKIP
    """
    of_kind("objective", objective, str)
    for name, value in (("constraint", constraint), ("step", step)):
        if value is not None:
            of_kind(name, value, str)
    loaded = loaded_model(model)
    chosen = make_method(method, loaded, beta=beta, smoothgrad=smoothgrad, seed=seed)
    pictures = read_images(with_folders(named_images(images)), loaded, DEFAULT_IMAGE)
    options: dict[str, Any] = attack_options(
        method=chosen,
        height=pictures.x.shape[-2],
        preset=preset,
        objective=objective,
        constraint=constraint,
        step=step,
        through=through,
        explained=explained,
        iterations=iterations,
        keep_output=keep_output,
        tolerance=tolerance,
        lr=None,
        prefactors=None,
        beta_growth=None,
        no_beta_growth=False,
        smooth_pooling=None,
        redraw=None,
        capture="auto",
    )
    aims = [None if path is None else os.fspath(path) for path in (target, target_map)]
    aim = None
    if takes_target(options["objective"]):
        aim = read_target(aims[0], target_text, aims[1], loaded, chosen).map
    elif any(one is not None for one in (*aims, target_text)):
        raise UsageError(f"the objective {objective} aims at no map: leave the target out")
    return manipulate(
        loaded,
        pictures.x,
        None if aim is None else aim.expand(len(pictures.x), -1, -1),
        explainer=chosen,
        generator=torch.Generator().manual_seed(seed),
        batch_size=batch_size,
        progress=shown(progress, "attack"),
        **options,
    )
