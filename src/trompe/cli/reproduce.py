"""``trompe reproduce``: the figures of the paper, redrawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trompe.cli.console import log, progress_bar
from trompe.cli.options import (
    COUNT,
    json_option,
    method_option,
    patterns_option,
    quiet_option,
)
from trompe.cli.output_path import OutputPath
from trompe.errors import UsageError

if TYPE_CHECKING:
    from trompe.audit import ModelSpec, Status


@click.command()
@click.argument("figure", metavar="FIGURE")
@click.option(
    "--scale",
    type=click.Choice(["smoke", "small", "paper"]),
    default="smoke",
    show_default=True,
    help="Embedded network; SqueezeNet; VGG-16.",
)
@click.option("--images", metavar="SOURCE", help="Photos; needed for the scales small and paper.")
@click.option("--model", metavar="NAME[=WEIGHTS]", help="Network, in place of the scale's.")
@click.option("--pairs", type=COUNT, help="Image pairs, in place of the scale's.")
@method_option(
    "--method",
    "methods",
    what="Explanations attacked; without it, the six of the paper.",
    multiple=True,
)
@click.option("--iterations", type=COUNT, help="Steps, in place of the preset's.")
@click.option("--preset", metavar="NAME", help="Settings of the attack, in place of the scale's.")
@click.option("--batch-size", type=COUNT, help="Images worked on at once.")
@click.option(
    "--cifar-model", metavar="NAME=WEIGHTS", help="Network for CIFAR-10, of figures 16 and 17."
)
@click.option("--cifar-images", metavar="SOURCE", help="Its images.")
@patterns_option
@click.option(
    "--device", metavar="[cpu|cuda|auto]", default="cpu", show_default=True, help="Where to work."
)
@click.option(
    "--output",
    type=OutputPath(),
    metavar="FOLDER",
    default="trompe-out/reproduce",
    show_default=True,
    help="Folder for the results; what was begun in it goes on.",
)
@json_option
@quiet_option
def reproduce(
    figure: str,
    scale: str,
    model: str | None,
    preset: str | None,
    device: str,
    output: Path,
    cifar_model: str | None,
    methods: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    **changes: Any,
) -> int:
    """Redraw FIGURE of the paper (a number, or 'all') from an experiment of our own.

    The numbers are compared with what the paper reports: medians with their 95 % intervals.
    AGREES: the whole interval is as the paper says; DIFFERS: nothing of it; OPEN: too few images
    to tell, as always at the scale smoke, whose two pairs only show that the drawing is right.
    """
    from trompe.report.paper import FIGURES, Context, NoStandIn, scaled
    from trompe.report.paper import reproduce as redraw

    if figure != "all" and not figure.isdigit():
        raise UsageError(f"'{figure}' is no figure: give its number, or all")
    if model is not None:
        changes["models"] = (_spec(model),)
    if cifar_model is not None:
        changes["cifar_model"] = _spec(cifar_model)
    if methods:
        changes["methods"] = methods
    if preset is not None:
        changes["presets"] = (preset,)
    numbers = list(FIGURES) if figure == "all" else [int(figure)]
    found, left_out = [], []
    with progress_bar("reproduce", unit="cell", quiet=quiet) as progress:

        def watch(now: Status) -> None:
            if progress is not None:
                progress(now.done + now.errors, now.cells, {})

        context = Context(scaled(scale, **changes), output / scale, device, watch)
        for number in numbers:
            try:
                found.append(redraw(number, context))
            except NoStandIn as error:
                if figure != "all":
                    raise
                left_out.append(f"Figure {number} is left out: {error}")
    for line in left_out:
        log.warning("%s", line)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif not quiet:
        for one in found:
            click.echo(in_words(one))
        click.echo(f"Figures: {output / scale}")
    return 0


def _spec(text: str) -> ModelSpec:
    from trompe.audit import ModelSpec

    name, _, weights = text.partition("=")
    return ModelSpec(name, weights or None)


def in_words(content: dict[str, Any]) -> str:
    """A figure's numbers next to the paper's."""
    lines = [f"Figure {content['figure']}: {content['made_with']}"]
    for claim in content["claims"]:
        lines.append(
            f"  {claim['agreement'].upper():8} {claim['what']}: {claim['ours']}, n = {claim['n']} "
            f"(paper: {claim['paper']})"
        )
    return "\n".join(lines)
