"""``trompe animate``: contours that smoothing rounds off, and an attack at work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

import trompe
from trompe.cli.console import progress_bar
from trompe.cli.options import (
    COUNT,
    FRAMES,
    SECONDS,
    SEED,
    Command,
    ModelOptions,
    Number,
    make_method,
    method_option,
    model_options,
    quiet_option,
)
from trompe.cli.output_path import OutputPath
from trompe.cli.parts import preset_option
from trompe.cli.pictures import DEFAULT_IMAGE, read_images, read_target
from trompe.interruption import whole

if TYPE_CHECKING:
    pass

_FRAMES = click.option("--frames", type=FRAMES, default=24, show_default=True, help="How many.")
_SECONDS = click.option(
    "--seconds",
    type=SECONDS,
    default=5.0,
    show_default=True,
    help="How long it runs.",
)


def _output(default: str) -> Callable[[Command], Command]:
    return click.option(
        "--output",
        type=OutputPath(file=True),
        metavar="FILE",
        default=default,
        show_default=True,
        help="A .gif, or an .mp4 where imageio-ffmpeg is installed.",
    )


@click.group()
def animate() -> None:
    """Draw the theory, or an attack, as a moving picture."""


@animate.command()
@click.option("--first", type=Number(), default=20.0, show_default=True, help="beta at the start.")
@click.option("--last", type=Number(), default=0.8, show_default=True, help="beta at the end.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the network's weights.")
@_FRAMES
@_SECONDS
@_output("trompe-out/smoothing.gif")
@quiet_option
def smoothing(
    first: float, last: float, seed: int, frames: int, seconds: float, output: Path, quiet: bool
) -> None:
    """Contour lines of a two-layer network as beta falls: smoothing takes the curvature away."""
    from trompe.engine.smoothing import check_beta
    from trompe.report.animation import smoothing_frames, writer_for

    write = writer_for(output)
    check_beta(first)
    check_beta(last)
    output.parent.mkdir(parents=True, exist_ok=True)
    write(output, smoothing_frames(frames, first=first, last=last, seed=seed), seconds)
    if not quiet:
        click.echo(f"Animation: {output}")


@animate.command()
@click.argument("image", required=False)
@model_options
@method_option("--method", default="gradient", show_default=True, what="The method attacked.")
@click.option("--target", metavar="IMAGE", help="Whose explanation is aimed at.")
@click.option("--target-text", metavar="TEXT", help="A text to be shown instead.")
@preset_option("Of the attack:")
@click.option("--iterations", type=COUNT, help="Default: the preset's.")
@_FRAMES
@_SECONDS
@_output("trompe-out/attack.gif")
@quiet_option
def attack(
    image: str | None,
    network: ModelOptions,
    method: str,
    target: str | None,
    target_text: str | None,
    preset: str,
    iterations: int | None,
    frames: int,
    seconds: float,
    output: Path,
    quiet: bool,
) -> None:
    """IMAGE and its explanation while an attack moves the explanation to another one."""
    import torch

    from trompe.report.animation import attack_frames, writer_for

    write = writer_for(output)
    loaded = network.load()
    explainer = make_method(method, loaded)
    pictures = read_images([] if image is None else [image], loaded, DEFAULT_IMAGE)
    aim = read_target(target, target_text, None, loaded, explainer)
    seen = [pictures.x]
    with progress_bar("attack", unit="step", quiet=quiet) as bar:
        result = whole(
            trompe.manipulate(
                loaded.model,
                pictures.x,
                aim.map,
                explainer=explainer,
                input_space=loaded.input_space,
                preset=preset,
                iterations=iterations,
                progress=bar,
                follow=lambda _, x: seen.append(x),
            )
        )
    # The last frame is what the attack returned: its best iterate, not always its last.
    steps = sorted({round(i * (len(seen) - 1) / max(frames - 2, 1)) for i in range(frames - 1)})
    points = torch.cat([seen[step] for step in steps] + [result.x_adv])
    classes = result.target_class.expand(len(points))
    maps = trompe.heatmap(explainer(loaded.model, points, classes)).detach().cpu()
    shown = loaded.input_space.to_pixels(points).cpu()
    output.parent.mkdir(parents=True, exist_ok=True)
    captions = [*(f"step {step}" for step in steps), "as found"]
    pictured = attack_frames(list(shown), list(maps), result.aim[0], captions)
    write(output, pictured, seconds)
    if not quiet:
        click.echo(f"Animation: {output}")
