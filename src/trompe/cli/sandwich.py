"""``trompe sandwich``: the strongest attack below, every certificate above."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import click

import trompe
from trompe.cli.console import log, progress_bar
from trompe.cli.ignored import refuse_ignored
from trompe.cli.options import (
    COUNT,
    SEED,
    ModelOptions,
    Number,
    json_option,
    output_folder,
    output_option,
    quiet_option,
    small_model_options,
    target_class_option,
)
from trompe.cli.pictures import DEFAULT_IMAGE, explained_classes, read_images
from trompe.cli.sandwich_noise import Enclosed, NoiseSettings, enclose_noise, noise_options
from trompe.errors import UsageError

_QUANTITIES = ("gradient_l2", "normal_l2", "heatmap_l1")
_EXAMPLES = """\b
Examples:
  trompe sandwich --method noise --model tiny-vgg-noise --explainer lrp --pool 8
  trompe sandwich dog.jpg --method noise --smallest 0.01 --largest 0.1 --radii 3
  trompe sandwich --beta 0.8 --smallest 1e-4 --largest 1e-3 --radii 2 --patient
"""


@click.command(epilog=_EXAMPLES)
@click.argument("image", required=False)
@small_model_options
@click.option(
    "--method",
    type=click.Choice(["proof", "noise"]),
    default="proof",
    show_default=True,
    help="proof: of the gradient explanation as it is; noise: of the smoothed map of any method.",
)
@click.option(
    "--smallest",
    type=Number(0, above=True),
    help="Radius, pixel units.  [default: 1e-6; noise: a quarter of sigma]",
)
@click.option(
    "--largest",
    type=Number(0, above=True),
    help="Radius, pixel units.  [default: 0.1; noise: sigma]",
)
@click.option("--radii", type=COUNT, default=4, show_default=True, help="How many.")
@click.option("--norm", type=click.Choice(["l1", "l2", "linf"]), default="l2", show_default=True)
@click.option(
    "--beta",
    "betas",
    type=Number(),
    multiple=True,
    help="Of the softplus network; 0 is ReLU; repeat.  [default: 0, 10, 1, 0.8]",
)
@click.option(
    "--quantity",
    "quantities",
    type=click.Choice(_QUANTITIES),
    multiple=True,
    help="Repeat for several. Default: all.",
)
@click.option("--steps", type=COUNT, default=10, show_default=True, help="Of each ascent.")
@click.option("--restarts", type=COUNT, default=2, show_default=True, help="Of it.")
@click.option(
    "--patient",
    is_flag=True,
    help="Also the bound from exact Jacobians where it takes long (tiny-vgg: 15 minutes per beta).",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the random points.")
@target_class_option
@noise_options
@output_option("trompe-out/sandwich")
@json_option
@quiet_option
def sandwich(
    image: str | None,
    network: ModelOptions,
    method: str,
    smallest: float | None,
    largest: float | None,
    radii: int,
    norm: str,
    betas: tuple[float, ...],
    quantities: tuple[str, ...],
    steps: int,
    restarts: int,
    patient: bool,
    seed: int,
    target_class: int | None,
    noise: NoiseSettings,
    output: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Enclose the worst possible change of IMAGE's explanation, for rising radii.

    Below: the strongest attack found. Above: what is proved or certified. The truth lies between.
    With --method proof that is the gradient explanation of the network as it is; with --method
    noise the mean map of any explanation method over noisy copies, beside an attack of the plain
    map. Radii are in pixel units (0..1).
    """
    import torch

    from trompe.atomic import atomic_path
    from trompe.certificates import sandwich as enclose
    from trompe.report.geometry import save_sandwich

    if method == "proof":
        refuse_ignored((field.name for field in fields(NoiseSettings)), "--method noise")
    else:
        names = ("betas", "quantities", "patient", "restarts")
        refuse_ignored(names if norm == "l2" else ("norm", *names), "--method proof")
    own = (noise.sigma / 4, noise.sigma) if method == "noise" else (1e-6, 0.1)
    smallest, largest = smallest or own[0], largest or own[1]
    if smallest > largest or (radii > 1 and smallest == largest):
        raise UsageError(f"--smallest ({smallest:g}) must be below --largest ({largest:g})")
    if any(beta < 0 for beta in betas):
        raise UsageError("--beta must be positive, or 0 for ReLU")
    loaded = network.load()
    pictures = read_images([] if image is None else [image], loaded, DEFAULT_IMAGE)
    target = explained_classes(loaded, pictures.x, target_class)
    ratio = (largest / smallest) ** (1 / max(1, radii - 1))
    grid = [smallest * ratio**i for i in range(radii)]
    if method == "noise":
        settings = Enclosed(loaded, pictures, target, grid, steps, seed, noise)
        enclose_noise(settings, output, as_json=as_json, quiet=quiet)
        return
    with progress_bar("sandwich", unit="radius", quiet=quiet or as_json) as progress:
        found = enclose(
            loaded.model.double(),
            pictures.x.double(),
            radii=grid,
            betas=[beta or None for beta in betas or (0.0, 10.0, 1.0, 0.8)],
            norm=norm,
            target=target,
            quantities=quantities or _QUANTITIES,
            steps=steps,
            restarts=restarts,
            samples=8,
            patient=patient,
            input_space=loaded.input_space,
            generator=torch.Generator().manual_seed(seed),
            progress=progress,
        )
    if found.refused is not None:
        log.warning("no certificates: %s", found.refused)
    report = {
        "run": {
            "model": loaded.name,
            "image": pictures.names[0],
            "class": found.target[0],
            "norm": norm,
            "seed": seed,
            "refused": found.refused,
            "version": trompe.__version__,
        },
        "rows": [
            {**row, "upper": {k: v if v < float("inf") else None for k, v in row["upper"].items()}}
            for row in found.rows()
        ],
    }
    with output_folder(output) as folder:
        title = f"{loaded.name}, {loaded.label(found.target[0])}"
        save_sandwich(folder / "sandwich.png", found, title)
        with atomic_path(folder / "sandwich.json") as temporary:
            temporary.write_text(f"{json.dumps(report, indent=2)}\n", encoding="utf-8")
    if as_json:
        click.echo(json.dumps(report, indent=2))
    elif not quiet:
        click.echo(
            f"{'quantity':<12}{'beta':>6}{'radius':>10}{'attack':>12}{'bound':>12}{'ratio':>10}  by"
        )
        for one in found.layers:
            by = min(one.upper, key=lambda name: one.upper[name]) if one.upper else "-"
            shown = "-" if one.ratio is None else f"{one.ratio:.3g}"
            click.echo(
                f"{one.quantity:<12}{'ReLU' if one.beta is None else f'{one.beta:g}':>6}"
                f"{one.radius:>10.2e}{one.lower:>12.4g}{one.best:>12.4g}{shown:>10}  "
                f"{'VOID' if one.void else by}"
            )
        if any(one.void for one in found.layers):
            click.echo(
                "VOID: nothing is proved there, for no two maps differ by more. A smaller radius, "
                "--patient, or --method noise (of the smoothed map) may help."
            )
        click.echo(f"Figure: {output / 'sandwich.png'}")
