"""``trompe smooth``: what beta-smoothing costs and brings, and which beta to take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from trompe.cli.options import (
    COUNT,
    PROBABILITY,
    ModelOptions,
    Number,
    json_option,
    model_options,
    output_option,
    quiet_option,
    target_class_option,
)
from trompe.cli.parts import preset_option
from trompe.cli.smooth_work import SAMPLES, Work

Command = TypeVar("Command", bound=Callable[..., Any])

_EXAMPLES = """\b
Examples:
  trompe smooth choose
  trompe smooth choose cat.jpg dog.jpg --model squeezenet1_1 --faithful 0.8
  trompe smooth compare cat.jpg --beta 0.8
  trompe smooth attack cat.jpg --target dog.jpg --iterations 100
"""


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


def _common(function: Command) -> Command:
    """What every tool takes."""
    for option in (
        quiet_option,
        json_option,
        output_option("trompe-out/smooth"),
        target_class_option,
        model_options,
        click.argument("images", nargs=-1, metavar="[IMAGES]..."),
    ):
        function = option(function)
    return function


_betas = click.option(
    "--beta", "betas", type=Number(), multiple=True, help="To be measured; repeat for several."
)
_faithful = click.option(
    "--faithful",
    type=PROBABILITY,
    default=0.7,
    show_default=True,
    help="Correlation with the plain map that counts as faithful.",
)
_steps = click.option("--steps", type=COUNT, default=20, show_default=True, help="Lanczos steps.")
_at = click.option(
    "--beta", "at", type=Number(), default=0.8, show_default=True, help="Of the smoothing."
)
_target = click.option("--target", metavar="IMAGE", help="Whose explanation the attack aims at.")
_iterations = click.option(
    "--iterations", type=COUNT, help="Of the attack, in place of the preset's."
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
    target_class: int | None,
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
    work = Work(network, images, target_class)
    work.choose(betas, faithful, steps, name_it=True)
    work.write(output, as_json, quiet)


@smooth.command()
@_common
@_at
def compare(
    images: tuple[str, ...],
    network: ModelOptions,
    target_class: int | None,
    at: float,
    output: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Set SmoothGrad of equal strength beside it: how alike the maps of IMAGES, and run times.

    Max pooling stays as it is, as in the paper.
    """
    _checked(at)
    work = Work(network, images, target_class)
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
    target_class: int | None,
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
    work = Work(network, images, target_class)
    others = {f"smoothgrad={SAMPLES}": work.compare(at)} if smoothgrad else {}
    work.attack(at, others, target, preset, iterations, BETAS, quiet)
    work.write(output, as_json, quiet)


@smooth.command(hidden=True)
@_common
@click.option("--choose", is_flag=True)
@click.option("--compare", is_flag=True)
@click.option("--attack", is_flag=True)
@_betas
@click.option("--at", type=Number(), default=0.8)
@_target
@preset_option("Of the attack:")
@_iterations
@_faithful
@_steps
def measure(
    images: tuple[str, ...],
    network: ModelOptions,
    target_class: int | None,
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
    work = Work(network, images, target_class)
    work.choose(betas, faithful, steps, name_it=choose)
    others = {f"smoothgrad={SAMPLES}": work.compare(at)} if compare else {}
    if attack:
        order = tuple(sorted(betas or BETAS, reverse=True))
        work.attack(at, others, target, preset, iterations, order, quiet)
    work.write(output, as_json, quiet)
