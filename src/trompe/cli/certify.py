"""``trompe certify``: how far an explanation can be moved at most."""

from __future__ import annotations

import json
from typing import Any

import click

import trompe
from trompe.cli.options import ModelOptions, json_option, small_model_options
from trompe.cli.pictures import DEFAULT_IMAGE, read_images

_EXAMPLES = """\b
Examples:
  trompe certify --beta 0.8 --radius 1e-6
  trompe certify dog.jpg --model squeezenet1_1 --method smoothgrad --radius 0.1
"""


def _registered(context: click.Context, option: click.Parameter, name: str) -> str:
    """Refuse a name that is no certificate's; torch is imported here, not with the commands."""
    from trompe.certificates import certificates

    if name not in certificates:
        choices = ", ".join(certificates)
        raise click.BadParameter(f"unknown certificate '{name}': choose from {choices}")
    return name


class _CertificateOption(click.Option):
    """An option whose help lists the registered certificates."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """See ``click.Option``."""
        from trompe.certificates import certificates

        self.help = f"One of {', '.join(certificates)}."
        return super().get_help_record(ctx)


@click.command(epilog=_EXAMPLES)
@click.argument("image", required=False)
@small_model_options
@click.option("--radius", type=float, default=0.01, show_default=True, help="Of the ball.")
@click.option("--norm", type=click.Choice(["l2", "linf"]), default="l2", show_default=True)
@click.option("--beta", type=float, help="Certify the softplus network, pooling smoothed too.")
@click.option(
    "--method",
    metavar="NAME",
    callback=_registered,
    cls=_CertificateOption,
    default="best",
    show_default=True,
)
@click.option("-k", "top", type=click.IntRange(1), default=100, show_default=True,
              help="The largest pixels whose overlap is guaranteed.")  # fmt: skip
@click.option("--samples", type=click.IntRange(1), default=200, show_default=True,
              help="Of 'smoothgrad'.")  # fmt: skip
@click.option("--sigma", type=float, default=0.5, show_default=True,
              help="Noise of 'smoothgrad', in normalised units.")  # fmt: skip
@click.option("--block", type=click.IntRange(1), default=8, show_default=True,
              help="Side of the squares of pixels that 'smoothgrad' counts as one.")  # fmt: skip
@json_option
def certify(
    image: str | None,
    network: ModelOptions,
    radius: float,
    norm: str,
    beta: float | None,
    method: str,
    top: int,
    samples: int,
    sigma: float,
    block: int,
    as_json: bool,
) -> None:
    """Bound the change of IMAGE's gradient explanation over all inputs within a radius.

    The radius is in normalised units. The bounds are proved, for every point of the ball;
    'smoothgrad' holds for any network, with 99 % confidence where samples enter.
    """
    loaded = network.load()
    pictures = read_images([] if image is None else [image], loaded, DEFAULT_IMAGE)
    model = loaded.model if beta is None else trompe.smooth(loaded.model, beta=beta, pooling=True)
    options: dict[str, Any] = {}
    if method == "smoothgrad":
        options = {"samples": samples, "sigma": sigma, "block": block}
    found = trompe.certify(model, pictures.x, radius=radius, norm=norm, method=method, **options)
    overlap = float(found.topk_overlap(min(top, found.pixels))[0])
    report = {
        "model": loaded.name,
        "image": pictures.names[0],
        "class": int(found.target[0]),
        "label": loaded.label(int(found.target[0])),
        "beta": beta,
        "radius": radius,
        "norm": norm,
        "method": method,
        "confidence": found.confidence,
        "gradient_l2": float(found.gradient_l2[0]),
        "normal_l2": float(found.normal_l2[0]),
        "heatmap_l1": float(found.heatmap_l1[0]),
        "curvature": float(found.curvature[0]) if found.curvature[0].isfinite() else None,
        "topk": min(top, found.pixels),
        "topk_overlap": overlap,
        "given_by": found.winners[0],
        "version": trompe.__version__,
    }
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    click.echo(f"{loaded.name}, {report['label']}: within {norm} radius {radius:g}")
    for name, what, most in (
        ("gradient_l2", "gradient (l2)", ""),
        ("normal_l2", "normalised gradient (l2)", " of 2"),
        ("heatmap_l1", "heat map (l1)", " of 2"),
    ):
        given = found.winners[0][name]
        click.echo(f"  {what:<26} changes by at most {report[name]:.4g}{most}  [{given}]")
    click.echo(f"  {'top ' + str(report['topk']) + ' pixels':<26} at least {overlap:.0%} stay")
