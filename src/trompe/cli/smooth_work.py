"""The work of ``trompe smooth``: one network, some images, and three tools."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import trompe
from trompe.cli.console import progress_bar
from trompe.cli.options import ModelOptions, output_folder
from trompe.cli.pictures import (
    DEFAULT_IMAGE,
    DEFAULT_TARGET,
    explained_classes,
    read_images,
    with_folders,
)
from trompe.cli.smooth_report import attacked, compared, recovered, rows, words

if TYPE_CHECKING:
    from torch import Tensor

    from trompe.explain import Method
    from trompe.types import LoadedModel

#: Of the SmoothGrad that is attacked: the paper's.
SAMPLES = 10


@dataclass
class Work:
    """The network, the images and what the tools of ``trompe smooth`` found.

    Args:
        network: which one.
        images: as the user named them.
        target_class: explained; ``None`` for what the network answers.
    """

    network: ModelOptions
    images: tuple[str, ...]
    target_class: int | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loaded: LoadedModel = self.network.load()
        pictures = read_images(with_folders(self.images), self.loaded, DEFAULT_IMAGE)
        self.x: Tensor = pictures.x
        self.classes = explained_classes(self.loaded, self.x, self.target_class)
        self.report["run"] = {
            "model": self.loaded.name,
            "images": list(pictures.names),
            "version": trompe.__version__,
        }

    def choose(self, betas: tuple[float, ...], faithful: float, steps: int, name_it: bool) -> None:
        """What each beta costs and brings; with ``name_it`` the one to take."""
        from trompe.defences import choose_beta
        from trompe.defences.choose_beta import BETAS
        from trompe.geometry import distance_to_relu
        from trompe.report.smoothing import choice_figure, distance_figure

        model, x, classes = self.loaded.model, self.x, self.classes
        found = choose_beta(
            model, x, classes, betas=betas or BETAS, threshold=faithful, steps=steps
        )
        distance = distance_to_relu(model, x, classes, betas=found.betas, pooling=True)
        self.figures["smooth"] = choice_figure(found, self.loaded.name)
        self.figures["distance"] = distance_figure({"gradient": distance})
        self.report["run"]["faithful"] = faithful
        self.report["chosen"] = found.chosen if name_it else None
        self.report["rows"] = rows(found)

    def compare(self, beta: float) -> Method:
        """SmoothGrad beside beta-smoothing; returns the SmoothGrad of equal strength."""
        from trompe.explain import explainer
        from trompe.geometry import compare_smoothings
        from trompe.report.smoothing import comparison_figure

        beside = compare_smoothings(self.loaded.model, self.x, self.classes, beta=beta)
        self.figures["comparison"] = comparison_figure(beside)
        self.report["comparison"] = compared(beside)
        return explainer("smoothgrad", samples=SAMPLES, sigma=beside.sigma)

    def attack(
        self,
        beta: float,
        others: dict[str, Method],
        target: str | None,
        preset: str,
        iterations: int | None,
        betas: tuple[float, ...],
        quiet: bool,
    ) -> None:
        """Attack the plain and the smoothed explanations, and see what smoothing undoes."""
        from trompe.attacks import adaptive_attack
        from trompe.explain import explainer
        from trompe.geometry import recovery
        from trompe.report.smoothing import adaptive_figure, recovery_figure

        aim = read_images([target] if target else [], self.loaded, DEFAULT_TARGET)
        smoothings = {f"beta={beta:g}": explainer("beta_smoothing", beta=beta), **others}
        with progress_bar("attack", unit="step", quiet=quiet) as bar:
            attacks = adaptive_attack(
                self.loaded.model,
                self.x,
                target_x=aim.x,
                target=self.classes if self.target_class is not None else None,
                smoothings=smoothings,
                input_space=self.loaded.input_space,
                preset=preset,
                iterations=iterations,
                progress=bar,
            )
        result = attacks.plain.result
        undone = recovery(
            self.loaded.model,
            self.x,
            result.x_adv.to(self.x),
            self.classes,
            result.aim,
            betas=betas,
        )
        self.figures["attack"] = adaptive_figure(attacks)
        self.figures["recovery"] = recovery_figure(undone, self.loaded.name)
        self.report["attack"] = attacked(attacks)
        self.report["recovery"] = recovered(undone)

    def write(self, output: Path, as_json: bool, quiet: bool) -> None:
        """Write the figures and the report, and say what was found."""
        from trompe.atomic import atomic_path
        from trompe.report.style import save_figure

        with output_folder(output) as folder:
            for name, figure in self.figures.items():
                save_figure(figure, folder / f"{name}.png")
            with atomic_path(folder / "smooth.json") as temporary:
                temporary.write_text(f"{json.dumps(self.report, indent=2)}\n", encoding="utf-8")
        if as_json:
            click.echo(json.dumps(self.report, indent=2))
        elif not quiet:
            for line in words(self.report):
                click.echo(line)
            names = ", ".join(str(output / f"{name}.png") for name in self.figures)
            click.echo(f"Figures: {names}")
