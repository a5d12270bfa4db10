"""``trompe smooth``: what beta-smoothing costs and brings, and which beta to take."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

import trompe
from trompe.cli.console import progress_bar
from trompe.cli.options import (
    ModelOptions,
    json_option,
    model_options,
    output_folder,
    output_option,
    quiet_option,
)
from trompe.cli.parts import preset_option
from trompe.cli.pictures import DEFAULT_IMAGE, DEFAULT_TARGET, read_images, with_folders
from trompe.cli.smooth_report import attacked, compared, recovered, rows, words

if TYPE_CHECKING:
    from torch import Tensor

    from trompe.explain import Method
    from trompe.types import LoadedModel

Command = TypeVar("Command", bound=Callable[..., Any])

_EXAMPLES = """\b
Examples:
  trompe smooth choose
  trompe smooth choose cat.jpg dog.jpg --model squeezenet1_1 --faithful 0.8
  trompe smooth compare cat.jpg --beta 0.8
  trompe smooth attack cat.jpg --target dog.jpg --iterations 100
"""
#: Of the SmoothGrad that is attacked: the paper's.
_SAMPLES = 10


class _Tools(click.Group):
    """Three tools; what names none of them is understood as it was when they were flags."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See ``click.Group``."""
        if not args or args[0] not in (*self.commands, "--help", "-h"):
            args = ["measure", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See ``click.Group``."""
        return [name for name, one in self.commands.items() if not one.hidden]


@click.group(cls=_Tools, epilog=_EXAMPLES)
def smooth() -> None:
    """Measure beta-smoothing: explanations of the network with softplus in place of its kinks."""


@dataclass
class _Work:
    """The network, the images and what was found.

    Args:
        network: which one.
        images: as the user named them.
    """

    network: ModelOptions
    images: tuple[str, ...]
    figures: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import torch

        from trompe.engine import frozen

        self.loaded: LoadedModel = self.network.load()
        pictures = read_images(with_folders(self.images), self.loaded, DEFAULT_IMAGE)
        self.x: Tensor = pictures.x
        with torch.no_grad():
            self.classes = frozen(self.loaded.model)(self.x).argmax(dim=1)
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
        return explainer("smoothgrad", samples=_SAMPLES, sigma=beside.sigma)

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


def _common(function: Command) -> Command:
    """What every tool takes."""
    for option in (
        quiet_option,
        json_option,
        output_option("trompe-out/smooth"),
        model_options,
        click.argument("images", nargs=-1, metavar="[IMAGES]..."),
    ):
        function = option(function)
    return function


_betas = click.option(
    "--beta", "betas", type=float, multiple=True, help="To be measured; repeat for several."
)
_faithful = click.option(
    "--faithful",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.7,
    show_default=True,
    help="Correlation with the plain map that counts as faithful.",
)
_steps = click.option(
    "--steps", type=click.IntRange(1), default=20, show_default=True, help="Lanczos steps."
)
_at = click.option(
    "--beta", "at", type=float, default=0.8, show_default=True, help="Of the smoothing."
)
_target = click.option("--target", metavar="IMAGE", help="Whose explanation the attack aims at.")
_iterations = click.option(
    "--iterations", type=click.IntRange(1), help="Of the attack, in place of the preset's."
)


def _checked(at: float, preset: str | None = None) -> None:
    """Refuse a beta or preset that is none before any work."""
    from trompe.attacks import preset_for
    from trompe.engine.smoothing import check_beta

    check_beta(at)
    if preset is not None:
        preset_for(preset)


@smooth.command()
@_common
@_betas
@_faithful
@_steps
def choose(
    images: tuple[str, ...],
    network: ModelOptions,
    betas: tuple[float, ...],
    faithful: float,
    steps: int,
    output: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Name the smallest beta whose maps of IMAGES are still faithful.

    Below it, more protection costs more of the explanation than it should. Max pooling is smoothed
    too.
    """
    work = _Work(network, images)
    work.choose(betas, faithful, steps, name_it=True)
    work.write(output, as_json, quiet)


@smooth.command()
@_common
@_at
def compare(
    images: tuple[str, ...],
    network: ModelOptions,
    at: float,
    output: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Set SmoothGrad of equal strength beside it: how alike the maps of IMAGES, and run times.

    Max pooling stays as it is, as in the paper.
    """
    _checked(at)
    work = _Work(network, images)
    work.compare(at)
    work.write(output, as_json, quiet)


@smooth.command()
@_common
@_at
@_target
@preset_option("Of the attack:")
@_iterations
@click.option("--smoothgrad", is_flag=True, help="Attack SmoothGrad of equal strength, too.")
def attack(
    images: tuple[str, ...],
    network: ModelOptions,
    at: float,
    target: str | None,
    preset: str,
    iterations: int | None,
    smoothgrad: bool,
    output: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Attack the plain and the smoothed explanation of IMAGES, and see what smoothing undoes.

    Each attack knows the explanation that it attacks. Max pooling stays as it is, as in the paper.
    """
    from trompe.defences.choose_beta import BETAS

    _checked(at, preset)
    work = _Work(network, images)
    others = {f"smoothgrad={_SAMPLES}": work.compare(at)} if smoothgrad else {}
    work.attack(at, others, target, preset, iterations, BETAS, quiet)
    work.write(output, as_json, quiet)


@smooth.command(hidden=True)
@_common
@click.option("--choose", is_flag=True)
@click.option("--compare", is_flag=True)
@click.option("--attack", is_flag=True)
@_betas
@click.option("--at", type=float, default=0.8)
@_target
@preset_option("Of the attack:")
@_iterations
@_faithful
@_steps
def measure(
    images: tuple[str, ...],
    network: ModelOptions,
    choose: bool,
    compare: bool,
    attack: bool,
    betas: tuple[float, ...],
    at: float,
    target: str | None,
    preset: str,
    iterations: int | None,
    faithful: float,
    steps: int,
    output: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """The tools as flags of one command, as they once were."""
    from trompe.defences.choose_beta import BETAS

    _checked(at, preset)
    work = _Work(network, images)
    work.choose(betas, faithful, steps, name_it=choose)
    others = {f"smoothgrad={_SAMPLES}": work.compare(at)} if compare else {}
    if attack:
        order = tuple(sorted(betas or BETAS, reverse=True))
        work.attack(at, others, target, preset, iterations, order, quiet)
    work.write(output, as_json, quiet)
