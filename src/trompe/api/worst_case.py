"""``trompe.robustness``: how many explanations withstand the worst case within a radius."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from trompe.api.inputs import Images, loaded_model, named_images
from trompe.cli.options import make_method
from trompe.cli.robustness import belongs, drawn
from trompe.progress import shown
from trompe.robustness import evaluate
from trompe.robustness.evaluation import Evaluation
from trompe.types import LoadedModel, Progress


def robustness(
    images: Images = None,
    *,
    count: int | None = None,
    model: str | LoadedModel | None = None,
    method: str = "gradient",
    beta: float | None = None,
    smoothgrad: int | None = None,
    radii: float | Sequence[float] = 8 / 255,
    norm: Literal["linf", "l2"] = "linf",
    version: Literal["standard", "rand"] = "standard",
    budget: float = 1.0,
    seed: int = 0,
    batch_size: int = 4,
    checkpoint: str | Path | None = None,
    progress: Progress | bool | None = True,
) -> Evaluation:
    """Say how many explanations withstand the worst case within a radius.

    It is ``trompe robustness`` without its files: every image is attacked by an ensemble without
    parameters, and what counts is the least alike map that keeps the answer.

    Args:
        images: files, a folder, an .npz or a .csv; by default three photos.
        count: draw so many of them; by default all.
        model: a name that ``trompe.models()`` lists, or a loaded model; by default
            ``efficientnet-lite0``.
        method: explanation attacked.
        beta: attack the explanation smoothed with this beta.
        smoothgrad: attack the mean over this number of noisy copies.
        radii: of the balls, pixel units 0..1.
        norm: of the balls.
        version: ``rand`` for methods that answer by chance.
        budget: share of the ensemble's 100 steps and 5,000 queries.
        seed: of everything random.
        batch_size: images worked on at once.
        checkpoint: a folder in which every batch is kept when it is done; the same call goes on
            from there.
        progress: a bar, a function that is told, or ``False`` for none.

    Returns:
        What was found; ``.report(tau)`` has the shares and their intervals.

    Raises:
        TrompeError: if a name is unknown, no image can be used, or the ``checkpoint`` was begun
            with other settings.

    Example:
        >>> found = trompe.robustness("cat", model="tiny-vgg", budget=0.05)  # doctest: +SKIP
        >>> found.report(0.5)["radii"][0]["status"]  # doctest: +SKIP
    """
    loaded = loaded_model(model)
    chosen = make_method(method, loaded, beta=beta, smoothgrad=smoothgrad, seed=seed)
    names, pixels, failed = drawn(named_images(images), count, seed, loaded)
    return evaluate(
        loaded,
        names,
        pixels,
        failed,
        explainer=chosen,
        radii=[radii] if isinstance(radii, int | float) else list(radii),
        norm=norm,
        version=version,
        budget=budget,
        seed=seed,
        batch_size=batch_size,
        checkpoint=checkpoint,
        belongs=belongs(loaded.name, method, beta, smoothgrad),
        progress=shown(progress, "robustness"),
    )
