"""Images attacked batch by batch within one radius or several; what is done is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from trompe.attacks.observation import observe
from trompe.errors import TrompeError, UsageError
from trompe.robustness.controls import Control, floor
from trompe.robustness.ensemble import auto_attack, ball_of
from trompe.robustness.evaluation import Evaluation
from trompe.robustness.likeness import comparable
from trompe.robustness.result import RobustnessResult, joined
from trompe.types import Explainer, LoadedModel, Progress


def evaluate(
    loaded: LoadedModel,
    names: Sequence[str],
    pixels: Mapping[str, Tensor],
    failed: Mapping[str, str] | None = None,
    *,
    explainer: Explainer,
    radii: Sequence[float] = (8 / 255,),
    norm: Literal["linf", "l2"] = "linf",
    version: Literal["standard", "rand"] = "standard",
    budget: float = 1.0,
    seed: int = 0,
    batch_size: int = 4,
    progress: Progress | None = None,
) -> Evaluation:
    """Attack every image within every radius, and say how many explanations withstand.

    Args:
        loaded: the model.
        names: of all images drawn, in order.
        pixels: of those that could be read, by name: pixels 0..1, [C, H, W], of one size.
        failed: why the others could not, by name. They count, and never as robust.
        explainer: the method attacked.
        radii: of the balls, pixel units 0..1.
        norm: of the balls.
        version: see ``auto_attack``.
        budget: see ``auto_attack``.
        seed: of all random numbers.
        batch_size: how many images are attacked at once.
        progress: called after every step of every batch.

    Returns:
        What was found. After an interruption (Ctrl-C) it speaks of the images that are done.

    Raises:
        UsageError: if not one image could be attacked, or a setting is out of range.
    """
    sizes = sorted(set(radii))
    if not sizes or batch_size < 1:
        raise UsageError("give at least one radius, and at least one image at once")
    lost = dict(failed or {})
    readable = [name for name in names if name in pixels]
    work = _Work(loaded, explainer, sizes, norm, version, budget, seed, progress)
    work.steps = -(-len(readable) // batch_size) * len(sizes)
    finished: list[str] = []
    for number, start in enumerate(range(0, len(readable), batch_size)):
        part = [
            name for name in readable[start : start + batch_size] if work.able(name, pixels, lost)
        ]
        if not part:
            continue
        x = work.images([pixels[name] for name in part])
        if work.batch(x, number):
            finished += part
        if work.stopped != "finished":
            break
    if not finished:
        why = next(iter(lost.values()), "interrupted before the first image was done")
        raise UsageError(f"no image could be attacked: {why}")
    return Evaluation(
        [name for name in names if name in lost or name in finished],
        lost,
        {radius: joined(parts) for radius, parts in work.attempts.items()},
        {radius: _joined(parts) for radius, parts in work.floors.items()},
        work.stopped,
    )


@dataclass
class _Work:
    """What is done so far."""

    loaded: LoadedModel
    explainer: Explainer
    radii: Sequence[float]
    norm: Literal["linf", "l2"]
    version: Literal["standard", "rand"]
    budget: float
    seed: int
    progress: Progress | None
    steps: int = 0
    stopped: str = "finished"
    attempts: dict[float, list[RobustnessResult]] = field(default_factory=dict)
    floors: dict[float, list[Mapping[str, Control]]] = field(default_factory=dict)

    def images(self, pixels: Sequence[Tensor]) -> Tensor:
        """Normalised images on the model's device, [B, C, H, W]."""
        stacked = torch.stack(list(pixels))
        place = next(self.loaded.model.parameters(), stacked).device
        return self.loaded.input_space.from_pixels(stacked).to(place)

    def able(self, name: str, pixels: Mapping[str, Tensor], lost: dict[str, str]) -> bool:
        """Whether an image has a map; otherwise it has failed, with the reason."""
        try:
            x = self.images([pixels[name]])
            target = self.loaded.model(x).argmax(dim=1)
            if self.version == "rand":  # a model of chance is refused by the call below
                with torch.no_grad():
                    comparable(observe(self.loaded.model, self.explainer, x, target).relevance)
            else:
                comparable(self.explainer(self.loaded.model, x, target))
        except TrompeError as error:
            # It was looked at alone, as a batch of one: whoever reads this knows it by its name.
            lost[name] = str(error).replace("image 0", f"image '{name}'")
            return False
        return True

    def batch(self, x: Tensor, number: int) -> bool:
        """Attack images within every radius; whether what was found is kept."""
        found: dict[float, tuple[RobustnessResult, Mapping[str, Control]]] = {}
        for index, radius in enumerate(self.radii):
            before = number * len(self.radii) + index

            def tell(done: int, total: int, numbers: Mapping[str, float], at: int = before) -> None:
                if self.progress is not None:
                    self.progress(at * total + done, self.steps * total, numbers)

            result = auto_attack(
                self.loaded,
                x,
                explainer=self.explainer,
                radius=radius,
                norm=self.norm,
                version=self.version,
                budget=self.budget,
                generator=torch.Generator().manual_seed(self.seed + number),
                progress=tell,
            )
            if result.stopped != "finished":
                self.stopped = result.stopped
                # Images that were searched in part would pass for robust beside the others; alone
                # they are better than nothing.
                whole = index + 1 == len(self.radii) and len(result.x) == len(x)
                if self.attempts or not whole:
                    return False
            controls: Mapping[str, Control] = {}
            if self.version == "standard":
                controls = floor(
                    self.loaded,
                    x,
                    result.target,
                    explainer=self.explainer,
                    ball=ball_of(self.norm, radius),
                    input_space=self.loaded.input_space,
                )
            found[radius] = (result, controls)
        for radius, (result, controls) in found.items():
            self.attempts.setdefault(radius, []).append(result)
            self.floors.setdefault(radius, []).append(controls)
        return True


def _joined(parts: Sequence[Mapping[str, Control]]) -> dict[str, Control]:
    return {
        name: Control(
            {
                key: torch.cat([part[name].likeness[key] for part in parts])
                for key in parts[0][name].likeness
            },
            torch.cat([part[name].kept for part in parts]),
        )
        for name in parts[0]
    }
