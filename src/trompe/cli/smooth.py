"""``trompe smooth``: what beta-smoothing costs and brings, and which beta to take."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

import trompe
from trompe.cli.options import (
    ModelOptions,
    json_option,
    model_options,
    output_folder,
    output_option,
    quiet_option,
)
from trompe.cli.pictures import DEFAULT_IMAGE, read_images

_EXAMPLES = """\b
Examples:
  trompe smooth --choose
  trompe smooth --choose cat.jpg dog.jpg --model squeezenet1_1 --faithful 0.8
"""


@click.command(epilog=_EXAMPLES)
@click.argument("images", nargs=-1, metavar="[IMAGES]...")
@model_options
@click.option(
    "--choose", is_flag=True, help="Name the smallest beta whose maps are still faithful."
)
@click.option(
    "--beta", "betas", type=float, multiple=True, help="To be measured; repeat for several."
)
@click.option(
    "--faithful",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.7,
    show_default=True,
    help="Correlation with the plain map that counts as faithful.",
)
@click.option(
    "--steps", type=click.IntRange(1), default=20, show_default=True, help="Lanczos steps."
)
@output_option("trompe-out/smooth")
@json_option
@quiet_option
def smooth(
    images: tuple[str, ...],
    network: ModelOptions,
    choose: bool,
    betas: tuple[float, ...],
    faithful: float,
    steps: int,
    output: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure beta-smoothing on IMAGES: how faithful the maps stay, how flat the surface becomes.

    Max pooling is smoothed too. With --choose, the smallest beta whose maps are still faithful is
    named; below it, more protection costs more of the explanation than it should.
    """
    from trompe.atomic import atomic_path
    from trompe.geometry.noise import sigma_of_beta
    from trompe.geometry.smoothing import BETAS, choose_beta
    from trompe.report.smoothing import save_choice

    loaded = network.load()
    pictures = read_images(images, loaded, DEFAULT_IMAGE)
    found = choose_beta(
        loaded.model, pictures.x, betas=betas or BETAS, threshold=faithful, steps=steps
    )
    rows = [
        {
            "beta": beta,
            "pcc_to_plain_map": found.faithful[i],
            "curvature": found.curvature[i] if math.isfinite(found.curvature[i]) else None,
            "curvature_bound": found.bound[i] if math.isfinite(found.bound[i]) else None,
            "sigma_per_unit_weight": sigma_of_beta(beta),
        }
        for i, beta in enumerate(found.betas)
    ]
    report = {
        "run": {
            "model": loaded.name,
            "images": list(pictures.names),
            "faithful": faithful,
            "version": trompe.__version__,
        },
        "chosen": found.chosen if choose else None,
        "rows": rows,
    }
    with output_folder(output) as folder:
        save_choice(folder / "smooth.png", found, loaded.name)
        with atomic_path(folder / "smooth.json") as temporary:
            temporary.write_text(f"{json.dumps(report, indent=2)}\n", encoding="utf-8")
    if as_json:
        click.echo(json.dumps(report, indent=2))
    elif not quiet:
        click.echo(f"{'beta':>8}{'correlation':>13}{'curvature':>12}{'proved':>12}")
        for row in rows:
            numbers = (row["curvature"], row["curvature_bound"])
            shown = "".join(f"{'-' if n is None else f'{n:.3g}':>12}" for n in numbers)
            click.echo(f"{row['beta']:>8g}{row['pcc_to_plain_map']:>13.3f}{shown}")
        if choose:
            click.echo(f"Chosen: beta = {found.chosen:g} (correlation at least {faithful:g})")
        click.echo(f"Figure: {output / 'smooth.png'}")
