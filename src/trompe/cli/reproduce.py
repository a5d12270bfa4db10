"""``trompe reproduce``: the figures of the paper, redrawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trompe.cli.console import progress_bar
from trompe.cli.options import (
    COUNT,
    json_option,
    quiet_option,
)
from trompe.errors import UsageError

if TYPE_CHECKING:
    from trompe.audit import Status


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
@click.option("--iterations", type=COUNT, help="Steps, in place of the preset's.")
@click.option("--preset", metavar="NAME", help="Settings of the attack, in place of the scale's.")
@click.option("--batch-size", type=COUNT, help="Images worked on at once.")
@click.option("--patterns", metavar="FILE", help="Learned patterns, for pattern_attribution.")
@click.option(
    "--device", metavar="[cpu|cuda|auto]", default="cpu", show_default=True, help="Where to work."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
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
    as_json: bool,
    quiet: bool,
    **changes: Any,
) -> int:
    """Redraw FIGURE of the paper (a number, or 'all') from an experiment of our own.

    The numbers are compared with what the paper reports. At the scale smoke they come from small
    networks, few pairs and few steps: the drawing is right, the agreement is not to be expected.
    """
    from trompe.audit import ModelSpec
    from trompe.report.paper import FIGURES, Context, scaled
    from trompe.report.paper import reproduce as redraw

    if figure != "all" and not figure.isdigit():
        raise UsageError(f"'{figure}' is no figure: give its number, or all")
    if model is not None:
        name, _, weights = model.partition("=")
        changes["models"] = (ModelSpec(name, weights or None),)
    if preset is not None:
        changes["presets"] = (preset,)
    numbers = list(FIGURES) if figure == "all" else [int(figure)]
    found = []
    with progress_bar("reproduce", unit="cell", quiet=quiet) as progress:

        def watch(now: Status) -> None:
            if progress is not None:
                progress(now.done + now.errors, now.cells, {})

        context = Context(scaled(scale, **changes), output / scale, device, watch)
        for number in numbers:
            found.append(redraw(number, context))
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif not quiet:
        for one in found:
            click.echo(in_words(one))
        click.echo(f"Figures: {output / scale}")
    return 0


def in_words(content: dict[str, Any]) -> str:
    """A figure's numbers next to the paper's."""
    lines = [f"Figure {content['figure']}: {content['made_with']}"]
    for claim in content["claims"]:
        mark = "agrees" if claim["holds"] else "DIFFERS"
        lines.append(f"  {mark:8} {claim['what']}: {claim['ours']} (paper: {claim['paper']})")
    return "\n".join(lines)
