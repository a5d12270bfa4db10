"""One batch of cells: attack, control, measure, write down."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trompe.attacks import manipulate
from trompe.attacks.observation import observe
from trompe.audit.flags import flags
from trompe.audit.measures import curve, measured, storable
from trompe.audit.methods import make_explainer
from trompe.audit.settings import Settings
from trompe.audit.sources import Source
from trompe.audit.store import Store
from trompe.engine import frozen, smooth
from trompe.errors import OutputError, StoreError
from trompe.explain import Method
from trompe.metrics import pcc
from trompe.types import AttackResult, LoadedModel, Progress, heatmap

log = logging.getLogger("trompe")

#: Quantities of an attack's history that are kept.
CURVES = ("loss", "map_mse", "map_pcc", "output_mse", "image_mse", "beta")


@dataclass(frozen=True)
class Cell:
    """One pair under one model, method, smoothing and preset."""

    id: int
    image: int
    target: int


@dataclass(frozen=True)
class Finding:
    """What is written down of a cell: arrays by checksum, numbers, flags; or why it failed."""

    cell: int
    message: str | None = None
    x: str | None = None
    target_x: str | None = None
    arrays: str | None = None
    values: Mapping[str, float] | None = None
    flags: Sequence[str] = ()


class Worker:
    """Works on the batches of one model, method, smoothing and preset.

    Args:
        store: of the run.
        settings: of the run.
        source: of the images.
        loaded: the model.
        kind: method, smoothing and preset.
        progress: called after every step.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        source: Source,
        loaded: LoadedModel,
        kind: tuple[str, str, str],
        progress: Progress | None = None,
    ) -> None:
        self.store, self.settings, self.source, self.loaded = store, settings, source, loaded
        self.method, self.smoothing, self.preset = kind
        self.progress = progress
        self.place = next(loaded.model.parameters(), torch.empty(0)).device

    def batch(self, cells: Sequence[Cell]) -> list[Finding]:
        """Attack some cells at once; if that fails one by one, and say which failed and why.

        Raises:
            OutputError: if nothing can be written: not the cells' fault.
            StoreError: if the run is damaged.
        """
        try:
            return self._attacked(cells)
        except (OutputError, StoreError):
            raise
        except Exception as error:
            if len(cells) == 1:
                log.info("cell %d failed: %s", cells[0].id, error)
                text = " ".join(f"{type(error).__name__}: {error}".split())
                return [Finding(cells[0].id, message=text)]
        return [finding for cell in cells for finding in self.batch([cell])]

    def _images(self, numbers: Sequence[int]) -> Tensor:
        pixels = torch.stack(
            [self.source.pixels(i, self.loaded.size, self.loaded.resize) for i in numbers]
        )
        return self.loaded.input_space.from_pixels(pixels).to(self.place)

    def _attacked(self, cells: Sequence[Cell]) -> list[Finding]:
        began = time.perf_counter()
        explainer = make_explainer(
            self.method,
            self.smoothing,
            self.loaded,
            patterns=self.settings.patterns,
            seed=self.settings.seed,
        )
        x, aims = (self._images([getattr(c, k) for c in cells]) for k in ("image", "target"))
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
            "noise_target_pcc": pcc(seen, result.map_target),
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
            found[f"beta_{beta:g}_target_pcc"] = pcc(adv, result.map_target)
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
            "map_target": result.map_target[one],
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
        put = self.store.arrays.put
        return Finding(
            cell.id,
            x=put({"x": x}),
            target_x=put({"x": target_x}),
            arrays=put(arrays),
            values=values,
            flags=found,
        )


def write_down(db: Any, batch: int, findings: Sequence[Finding]) -> None:
    """Enter the findings of a whole batch; within a transaction."""
    now = time.time()
    for finding in findings:
        db.execute(
            "UPDATE cells SET status = ?, message = ?, flags = ?, x = ?, target_x = ?, arrays = ?, "
            "finished = ? WHERE id = ?",
            (
                "done" if finding.message is None else "error",
                finding.message,
                json.dumps(list(finding.flags)),
                finding.x,
                finding.target_x,
                finding.arrays,
                now,
                finding.cell,
            ),
        )
        db.executemany(
            "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?)",
            ((finding.cell, k, storable(v)) for k, v in (finding.values or {}).items()),
        )
    db.execute("UPDATE batches SET done = 1 WHERE id = ?", (batch,))
