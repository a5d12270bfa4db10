"""Images attacked batch by batch within one radius or several; what is done is kept."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from trompe.attacks.batches import out_of_memory
from trompe.attacks.observation import observe
from trompe.engine import frozen
from trompe.errors import TrompeError, UsageError
from trompe.explain.base import Method
from trompe.explain.meant import meant
from trompe.kept import tensors_checksum
from trompe.robustness.controls import Control, floor
from trompe.robustness.ensemble import auto_attack, ball_of
from trompe.robustness.evaluation import Evaluation
from trompe.robustness.kept_batches import Done, KeptBatches, checksum_of, refuse_other_map
from trompe.robustness.likeness import comparable
from trompe.robustness.result import RobustnessResult, joined
from trompe.said import known, reason
from trompe.types import Explainer, LoadedModel, Progress

log = logging.getLogger("trompe")


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
    checkpoint: str | Path | None = None,
    belongs: Mapping[str, str] | None = None,
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
        checkpoint: a folder in which every batch is kept when it is done; the same call goes on
            from there, and one with other settings is refused. What lies in it stays.
        belongs: more settings by which the same call is known, by name.
        progress: called after every step of every batch.

    Returns:
        What was found. After an interruption (Ctrl-C) it speaks of the images that are done; images
        whose attack failed are ``failed``, too, and tried again by the same call.

    Raises:
        UsageError: if not one image could be attacked, a setting is out of range, or the
            ``checkpoint`` was begun with others.
        OutputError: if the ``checkpoint`` cannot be written.
    """
    sizes = sorted(set(radii))
    if not sizes or batch_size < 1:
        raise UsageError("give at least one radius, and at least one image at once")
    lost = dict(failed or {})
    readable = [name for name in names if name in pixels]
    work = _Work(loaded, explainer, sizes, norm, version, budget, seed, progress)
    batches = -(-len(readable) // batch_size)
    work.steps = batches * len(sizes)
    kept = None
    if checkpoint is not None:
        own = {
            "images": checksum_of({name: pixels[name] for name in readable}),
            "radius": ", ".join(f"{radius:g}" for radius in sizes),
            "norm": norm,
            "version": version,
            "budget": f"{budget:g}",
            "seed": str(seed),
            "batch size": str(batch_size),
            "normalisation": repr(loaded.input_space),
            "outputs": repr(loaded.outputs),
            "weights": tensors_checksum(loaded.model),
        }
        kept = KeptBatches(Path(checkpoint), {**dict(belongs or {}), **own})
        if before := kept.check():
            log.info("going on: %d of %d batches were done before", before, batches)
    all_done: list[Done] = []
    finished: list[str] = []
    looked_at = False
    try:
        for number, start in enumerate(range(0, len(readable), batch_size)):
            part = readable[start : start + batch_size]
            done = None if kept is None else kept.load(number)
            if done is None:
                done = work.done(part, pixels, number)
                if kept is not None and done.attempts and work.stopped == "finished":
                    kept.save(number, done)
            elif done.attempts and not looked_at:
                work.compare(next(name for name in part if name not in done.lost), pixels, done)
                looked_at = True
            lost |= done.lost
            all_done += [done] if done.attempts else []
            finished += [name for name in part if name not in done.lost] if done.attempts else []
            if work.stopped != "finished":
                break
    except KeyboardInterrupt:
        work.stopped = "interrupted"
    if not finished:
        why = next(iter(lost.values()), "interrupted before the first image was done")
        raise UsageError(f"no image could be attacked: {why}")
    return Evaluation(
        [name for name in names if name in lost or name in finished],
        lost,
        {radius: joined([done.attempts[radius] for done in all_done]) for radius in sizes},
        {radius: _joined([done.floors[radius] for done in all_done]) for radius in sizes},
        work.stopped,
        work.again,
    )


@dataclass
class _Work:
    """What every batch is attacked with."""

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
    any_before: bool = False
    again: bool = False

    def done(self, part: Sequence[str], pixels: Mapping[str, Tensor], number: int) -> Done:
        """Attack the images of a batch that have a map; say why others have none."""
        lost: dict[str, str] = {}
        able = [name for name in part if self.able(name, pixels, lost)]
        if not able:
            return Done(lost)
        try:
            found = self.batch(self.images([pixels[name] for name in able]), number)
        except UsageError:
            raise
        except Exception as error:  # the model and the method are the user's: anything can happen
            self.refuse_or_note(error)
            text = str(error) if isinstance(error, TrompeError) else reason(error)
            return Done(lost | dict.fromkeys(able, known(error) or text))
        self.any_before |= bool(found.attempts)
        return Done(lost, found.attempts, found.floors)

    def refuse_or_note(self, error: Exception) -> None:
        """Note that something failed that may not fail again; full memory ends it all."""
        if out_of_memory(error):
            raise error
        log.debug("an attack failed", exc_info=True)
        self.again = True

    def compare(self, name: str, pixels: Mapping[str, Tensor], done: Done) -> None:
        """Refuse to go on where the map of an image is another one than was kept.

        Raises:
            UsageError: if it is.
        """
        if self.version == "rand":
            return
        method = self.explainer
        if isinstance(method, Method):
            method = method.within(self.loaded.input_space)
        model, x = frozen(self.loaded.model), self.images([pixels[name]])
        kept = next(iter(done.attempts.values()))
        with torch.no_grad():
            target = kept.target[:1].to(x.device)
            fresh = observe(model, meant(method, self.loaded.outputs), x, target)
        refuse_other_map(kept, fresh.map[0])

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
        except Exception as error:  # the code of the model or the method
            self.refuse_or_note(error)
            lost[name] = known(error) or reason(error)
            return False
        return True

    def batch(self, x: Tensor, number: int) -> Done:
        """Attack images within every radius; nothing if that was interrupted half way."""
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
                if self.any_before or not whole:
                    return Done()
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
        return Done(
            attempts={radius: result for radius, (result, _) in found.items()},
            floors={radius: controls for radius, (_, controls) in found.items()},
        )


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
