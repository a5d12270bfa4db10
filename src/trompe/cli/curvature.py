"""``trompe curvature``: the principal curvatures of the surface of constant score against beta."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

import trompe
from trompe.cli.console import log
from trompe.cli.options import (
    COUNT,
    ModelOptions,
    Number,
    json_option,
    model_options,
    output_folder,
    output_option,
    quiet_option,
    target_class_option,
)
from trompe.cli.pictures import DEFAULT_IMAGE, explained_classes, read_images

DEFAULT_BETAS = (100.0, 30.0, 10.0, 3.0, 1.0, 0.8)

_EXAMPLES = """\b
Examples:
  trompe curvature
  trompe curvature dog.jpg --beta 10 --beta 1 -k 3
"""


@click.command(epilog=_EXAMPLES)
@click.argument("image", required=False)
@model_options
@click.option(
    "--beta",
    "betas",
    type=Number(),
    multiple=True,
    help="Of the softplus network; repeat for several.  [default: 100, 30, 10, 3, 1, 0.8]",
)
@click.option(
    "-k",
    "count",
    type=COUNT,
    default=5,
    show_default=True,
    help="How many curvatures, of largest magnitude.",
)
@click.option(
    "--steps",
    type=click.IntRange(2, 10_000_000),
    default=100,
    show_default=True,
    help="Lanczos steps at most.",
)
@click.option(
    "--tolerance", type=Number(), default=1e-4, show_default=True, help="Of the residuals."
)
@target_class_option
@output_option("trompe-out/curvature")
@json_option
@quiet_option
def curvature(
    image: str | None,
    network: ModelOptions,
    betas: tuple[float, ...],
    count: int,
    steps: int,
    tolerance: float,
    target_class: int | None,
    output: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Show how strongly the surface of constant score bends at IMAGE, against beta.

    The principal curvatures bound how fast the normal turns, and with it the explanation
    (Theorem 1 of Dombrowski et al. 2019). Max pooling is smoothed together with ReLU.
    """
    from trompe.atomic import atomic_path
    from trompe.geometry import principal_curvatures
    from trompe.report.geometry import save_curvature

    loaded = network.load()
    pictures = read_images([] if image is None else [image], loaded, DEFAULT_IMAGE)
    target = explained_classes(loaded, pictures.x, target_class)
    model, x = loaded.model.double(), pictures.x.double()
    strengths = sorted(betas or DEFAULT_BETAS, reverse=True)
    rows: list[dict[str, Any]] = []
    for beta in strengths:
        found = principal_curvatures(
            model, x, target, k=count, beta=beta, steps=max(steps, count), tolerance=tolerance
        )
        if not bool(found.converged.all()):
            log.warning("beta %g: not converged; raise --steps", beta)
        rows.append(
            {
                "beta": beta,
                "curvatures": found.values[0].tolist(),
                "residuals": found.residuals[0].tolist(),
                "gradient_norm": float(found.gradient_norm[0]),
                "hessian_products": found.products,
                "converged": bool(found.converged[0]),
            }
        )
    label = loaded.label(int(target[0]))
    report = {
        "run": {
            "model": loaded.name,
            "image": pictures.names[0],
            "class": int(target[0]),
            "label": label,
            "version": trompe.__version__,
        },
        "rows": rows,
    }
    with output_folder(output) as folder:
        title = f"{loaded.name}, {label}"
        save_curvature(
            folder / "curvature.png", strengths, [row["curvatures"] for row in rows], title
        )
        with atomic_path(folder / "curvature.json") as temporary:
            temporary.write_text(f"{json.dumps(report, indent=2)}\n", encoding="utf-8")
    if as_json:
        click.echo(json.dumps(report, indent=2))
    elif not quiet:
        click.echo(f"{'beta':>8}  {'|grad g|':>10}  principal curvatures (residual of the first)")
        for row in rows:
            values = "  ".join(f"{value:+.3e}" for value in row["curvatures"])
            click.echo(
                f"{row['beta']:>8g}  {row['gradient_norm']:>10.3e}  {values}  "
                f"({row['residuals'][0]:.0e})"
            )
        click.echo(f"Figure: {output / 'curvature.png'}")
