"""Recomputing a run from what it kept: arrays by checksum, numbers by the model itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from trompe.audit.flags import CLASS_CHANGED
from trompe.audit.judgement import metrics_of
from trompe.audit.results import Row, Run
from trompe.engine import frozen
from trompe.errors import StoreError
from trompe.geometry.smoothed_method import make_method
from trompe.metrics import linf
from trompe.types import LoadedModel, relative

#: Relative to the larger of the two numbers and 1: another machine rounds otherwise.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Checked:
    """What came of checking one cell.

    Args:
        row: the cell, with the recomputed metrics.
        problems: what does not agree, in words; empty if all does.
    """

    row: Row
    problems: tuple[str, ...]


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


class Verifier:
    """Checks the cells of a run.

    Args:
        run: to be checked.
        models: also run the models again on the images kept; else only the arrays are checked.
        device: where to compute.
    """

    def __init__(self, run: Run, *, models: bool = True, device: str = "cpu") -> None:
        self.run, self.models, self.device = run, models, device
        self._loaded: tuple[str, LoadedModel] | None = None

    def _load(self, name: str) -> LoadedModel:
        if self._loaded is None or self._loaded[0] != name:
            spec = next(m for m in self.run.settings.models if m.key == name)
            self._loaded = (name, spec.load(self.device))
        return self._loaded[1]

    def check(self, row: Row) -> Checked:
        """Check one finished cell."""
        try:
            arrays = self.run.arrays(row)
        except StoreError as error:
            return Checked(row, (str(error),))
        problems = []
        loaded = self._load(row.model)
        if self.models:
            explainer = make_method(
                row.method,
                loaded,
                smoothing=row.smoothing,
                patterns=self.run.settings.patterns,
                seed=self.run.settings.seed,
                chunk=self.run.settings.chunk,
            )
            model = frozen(loaded.model)
            winner = arrays["logits_original"].argmax(dim=1).to(self.device)
            images = {"original": arrays["x"], "adv": arrays["x_adv"], "target": arrays["target_x"]}
            for kind, x in images.items():
                x = x.to(self.device)
                with torch.no_grad():
                    found = model(x)
                    # What is aimed at explains the target image's own class.
                    explained = found.argmax(dim=1) if kind == "target" else winner
                    heat, logits = relative(explainer(model, x, explained)).cpu(), found.cpu()
                kept = arrays[f"map_{kind}"]
                away = float(linf(heat, kept)) / max(float(kept.max()), 1e-30)
                if not away <= 0.01:
                    problems.append(f"the {kind} map differs by {away:.2g} of its maximum")
                arrays[f"map_{kind}"] = heat
                if kind == "target":
                    continue  # its logits are not kept
                if not torch.allclose(
                    logits, arrays[f"logits_{kind}"], rtol=TOLERANCE, atol=TOLERANCE
                ):
                    problems.append(f"the {kind} logits differ")
                arrays[f"logits_{kind}"] = logits
        values = metrics_of(arrays["x"], arrays, loaded.input_space)
        for name, value in values.items():
            kept_value = row.values.get(name, math.nan)
            if math.isfinite(value) and not _same(value, kept_value):
                problems.append(f"{name} is {value:.6g}, not {kept_value:.6g}")
        if (CLASS_CHANGED in row.flags) == (values["class_kept"] == 1):
            problems.append(f"the flag '{CLASS_CHANGED}' is not what follows from the classes")
        return Checked(dataclasses.replace(row, values={**row.values, **values}), tuple(problems))

    def check_all(self) -> Iterator[Checked]:
        """Check every finished cell, in order."""
        for row in self.run.done:
            yield self.check(row)
