"""One batch of cells: attack, control, measure. Nothing here reads or writes a file of the run."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trompe.attacks import manipulate
from trompe.attacks.observation import observe
from trompe.audit.batches import Cell, Pixels, in_words
from trompe.audit.flags import flags
from trompe.audit.measures import curve, measured
from trompe.audit.methods import make_explainer
from trompe.audit.settings import Settings
from trompe.engine import frozen, smooth
from trompe.explain import Method
from trompe.metrics import pcc
from trompe.types import AttackResult, LoadedModel, Progress, heatmap

log = logging.getLogger("trompe")

#: Quantities of an attack's history that are kept.
CURVES = ("loss", "map_mse", "map_pcc", "output_mse", "image_mse", "beta")


@dataclass(frozen=True)
class Finding:
    """What came of a cell: tensors, numbers and flags; or why it failed.

    Args:
        cell: its number.
        message: why it failed.
        x: the normalised image [1, C, H, W].
        target_x: the normalised image whose map was the target.
        arrays: everything else that is kept of it.
        values: metrics by name.
        flags: what makes it doubtful.
    """

    cell: int
    message: str | None = None
    x: Tensor | None = None
    target_x: Tensor | None = None
    arrays: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    flags: Sequence[str] = ()


class Worker:
    """Works on the batches of one model, method, smoothing and preset.

    It holds all it needs but the images, so that it can be sent to another machine.

    Args:
        settings: of the run.
        loaded: the model.
        kind: method, smoothing and preset.
        progress: called after every step.
    """

    def __init__(
        self,
        settings: Settings,
        loaded: LoadedModel,
        kind: tuple[str, str, str],
        progress: Progress | None = None,
    ) -> None:
        self.settings, self.loaded, self.progress = settings, loaded, progress
        method, self.smoothing, self.preset = kind
        self.explainer: Method | None = None
        self.problem: str | None = None
        try:
            self.explainer = make_explainer(
                *(method, self.smoothing, loaded),
                patterns=settings.patterns,
                seed=settings.seed,
                chunk=settings.chunk,
            )
        except Exception as error:  # not the run's fault but that of all cells of this kind
            self.problem = in_words(error)
        self.place = next(loaded.model.parameters(), torch.empty(0)).device

    def move(self, place: torch.device) -> None:
        """Compute on another device from now on."""
        self.loaded = dataclasses.replace(self.loaded, model=self.loaded.model.to(place))
        self.place = place

    def batch(self, cells: Sequence[Cell], pixels: Pixels) -> list[Finding]:
        """Attack some cells at once; if that fails one by one, and say which failed and why.

        Args:
            cells: to be attacked.
            pixels: of their images, or why an image cannot be had.
        """
        findings, able = [], []
        for cell in cells:
            wrong = [
                found for i in (cell.image, cell.target) if isinstance(found := pixels[i], str)
            ]
            if problem := self.problem or next(iter(wrong), None):
                findings.append(Finding(cell.id, message=problem))
            else:
                able.append(cell)
        return findings + (self._tried(able, pixels) if able else [])

    def _tried(self, cells: Sequence[Cell], pixels: Pixels) -> list[Finding]:
        try:
            return self._attacked(cells, pixels)
        except Exception as error:
            if len(cells) == 1:
                log.info("cell %d failed: %s", cells[0].id, error)
                return [Finding(cells[0].id, message=in_words(error))]
        return [finding for cell in cells for finding in self._tried([cell], pixels)]

    def _images(self, numbers: Sequence[int], pixels: Pixels) -> Tensor:
        stacked = torch.stack([torch.as_tensor(pixels[i]) for i in numbers])
        return self.loaded.input_space.from_pixels(stacked).to(self.place)

    def _attacked(self, cells: Sequence[Cell], pixels: Pixels) -> list[Finding]:
        began = time.perf_counter()
        explainer = self.explainer
        assert explainer is not None, "batch() sees to it"
        x = self._images([cell.image for cell in cells], pixels)
        aims = self._images([cell.target for cell in cells], pixels)
        model = frozen(self.loaded.model)
        with torch.no_grad():
            aim = heatmap(explainer(model, aims, model(aims).argmax(dim=1)))
        result = manipulate(
            self.loaded.model,
            x,
            aim,
            explainer=explainer,
            input_space=self.loaded.input_space,
            preset=self.preset,
            iterations=self.settings.iterations,
            progress=self.progress,
        )
        if result.stopped == "interrupted":
            raise KeyboardInterrupt
        seconds = (time.perf_counter() - began) / len(cells)
        extra = self._control(model, explainer, result, cells)
        if self.smoothing == "none":
            extra |= self._recovery(model, explainer, result)
        extra["seconds"] = torch.full((len(cells),), seconds)
        extra["iterations"] = torch.full((len(cells),), float(result.iterations))
        return [
            self._finding(cell, i, result, aims[i : i + 1].cpu(), extra)
            for i, cell in enumerate(cells)
        ]

    def _control(
        self, model: nn.Module, explainer: Method, result: AttackResult, cells: Sequence[Cell]
    ) -> dict[str, Tensor]:
        """What random noise of the same Euclidean size does to the maps, per image [B]."""
        noise = torch.stack(
            [
                torch.randn(
                    result.x.shape[1:],
                    generator=torch.Generator().manual_seed(
                        (self.settings.seed * 1_009 + cell.image) * 1_000_003 + cell.target
                    ),
                )
                for cell in cells
            ]
        ).to(result.x.dtype)
        size = (result.x_adv - result.x).flatten(1).norm(dim=1)
        unit = noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        noisy = self.loaded.input_space.clamp(result.x + size.view(-1, 1, 1, 1) * unit)
        with torch.no_grad():
            seen = observe(
                model, explainer, noisy.to(self.place), result.target_class.to(self.place)
            ).map.cpu()
        return {
            "noise_target_pcc": pcc(seen, result.aim),
            "noise_original_pcc": pcc(seen, result.map_original),
        }

    def _recovery(
        self, model: nn.Module, explainer: Method, result: AttackResult
    ) -> dict[str, Tensor]:
        """Figure 4: how near the smoothed map of the manipulated image is to the two maps, [B]."""
        found: dict[str, Tensor] = {}
        target = result.target_class.to(self.place)
        for beta in self.settings.recovery:
            smoothed = smooth(model, beta=beta)
            with torch.no_grad():
                adv, clean = (
                    observe(smoothed, explainer, x.to(self.place), target).map.cpu()
                    for x in (result.x_adv, result.x)
                )
            found[f"beta_{beta:g}_target_pcc"] = pcc(adv, result.aim)
            found[f"beta_{beta:g}_original_pcc"] = pcc(adv, result.map_original)
            found[f"beta_{beta:g}_same_pcc"] = pcc(adv, clean)
        return found

    def _finding(
        self,
        cell: Cell,
        index: int,
        result: AttackResult,
        target_x: Tensor,
        extra: Mapping[str, Tensor],
    ) -> Finding:
        one = slice(index, index + 1)
        x = result.x[one]
        arrays = {
            "x_adv": result.x_adv[one],
            "map_original": result.map_original[one],
            "map_target": result.aim[one],
            "map_adv": result.map_adv[one],
            "logits_original": result.logits_original[one],
            "logits_adv": result.logits_adv[one],
        }
        history = {k: result.history[k][:, index] for k in CURVES if k in result.history}
        values = measured(x, arrays, self.loaded.input_space)
        values |= {name: float(column[index]) for name, column in extra.items()}
        found = flags(
            values,
            history,
            zero=bool(result.provenance["vanishing_gradient"][index]),
            stopped=result.stopped,
        )
        if history:
            arrays |= {f"history_{name}": curve(column) for name, column in history.items()}
            steps = torch.arange(next(iter(history.values())).shape[0])
            arrays["history_iteration"] = curve(steps)
        return Finding(
            cell.id,
            x=x.clone(),
            target_x=target_x.clone(),
            # Copies: a part of a batch would travel with the whole of it.
            arrays={name: tensor.clone() for name, tensor in arrays.items()},
            values=values,
            flags=found,
        )
