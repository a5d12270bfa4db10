"""``trompe certify``: how far an explanation can be moved at most."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

import trompe
from trompe.cli.certify_words import noise_in_words, proof_in_words
from trompe.cli.console import progress_bar
from trompe.cli.ignored import refuse_ignored
from trompe.cli.options import (
    CLASS,
    COUNT,
    PROBABILITY,
    SEED,
    ModelOptions,
    Number,
    json_option,
    quiet_option,
    small_model_options,
)
from trompe.cli.parts import PartName, shipped
from trompe.cli.pictures import DEFAULT_IMAGE, classes_of, read_images
from trompe.errors import UsageError

_EXAMPLES = """\b
Examples:
  trompe certify --method noise --model tiny-vgg-noise --sigma 0.25 --radius 0.125
  trompe certify --method noise --model efficientnet-lite0 --denoiser --sigma 0.25 --radius 0.125
  trompe certify dog.jpg --method noise --explainer gradient --radius 0.05 --radius 0.1
"""


def _samples(
    context: click.Context, option: click.Parameter, value: str | None
) -> int | str | None:
    """A number of noisy copies, or ``auto``."""
    if value is None or value == "auto":
        return value
    if not value.isdigit():
        raise click.BadParameter(f"'{value}' is neither a number of copies nor auto")
    return int(COUNT.convert(int(value), option, context))


@click.command(epilog=_EXAMPLES)
@click.argument("image", required=False)
@small_model_options
@click.option("--radius", "radii", type=Number(), multiple=True, default=(0.01,), show_default=True,
              help="Of the ball, in pixel units; repeat for several with 'noise'.")  # fmt: skip
@click.option("--norm", type=click.Choice(["l1", "l2", "linf"]), default="l2", show_default=True)
@click.option("--beta", type=Number(), help="Certify the softplus network, pooling smoothed too.")
@click.option("--method", type=PartName("certificate"), default="best", show_default=True,
              metavar="NAME", help=f"One of {', '.join(shipped('certificate'))}.")  # fmt: skip
@click.option("--explainer", type=PartName("method"), default="lrp", show_default=True,
              metavar="NAME", help="Whose smoothed map 'noise' certifies.")  # fmt: skip
@click.option("--target-class", type=CLASS, metavar="K",
              help="Class explained. Default: the predicted one.")  # fmt: skip
@click.option("-k", "top", type=COUNT, default=100, show_default=True,
              help="The largest pixels whose overlap a proof guarantees.")  # fmt: skip
@click.option(
    "--samples",
    callback=_samples,
    metavar="N|auto",
    help="Noisy copies; auto: until a correlation of 0.9 is certain.  [default: 1000]",
)
@click.option("--sigma", type=Number(),
              help="Standard deviation of the noise: of 'noise' in pixel units [default: 0.1], of "
              "'smoothgrad' in normalised ones.")  # fmt: skip
@click.option("--pool", "--block", "pool", type=COUNT, default=8, show_default=True,
              help="Side of the squares of pixels that count as one with noise.")  # fmt: skip
@click.option("--confidence", type=PROBABILITY,
              default=0.99, show_default=True, help="Of statements from samples.")  # fmt: skip
@click.option("--denoiser", is_flag=True,
              help="Take the noise away before the network sees a copy, with 'noise': for networks "
              "not trained with noise; sigma up to 0.25.")  # fmt: skip
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Keep the samples of 'noise' there; the same command goes on from them.",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the noise.")
@json_option
@quiet_option
def certify(
    image: str | None,
    network: ModelOptions,
    radii: tuple[float, ...],
    norm: str,
    beta: float | None,
    method: str,
    explainer: str,
    target_class: int | None,
    top: int,
    samples: int | str | None,
    sigma: float | None,
    pool: int,
    confidence: float,
    denoiser: bool,
    resume: Path | None,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Bound the change of IMAGE's explanation over all inputs within a radius.

    Most methods prove a bound of the gradient explanation of the network as it is; 'noise' bounds
    the mean map of any explanation method over noisy copies, from samples, at radii where attacks
    work.
    """
    import torch

    from trompe.explain import fitted

    if method not in ("noise", "smoothgrad"):
        names = ("samples", "sigma", "pool", "confidence")
        refuse_ignored(names, "--method noise and smoothgrad")
    if method != "noise":
        refuse_ignored(("explainer", "denoiser", "resume"), "--method noise")
    else:
        refuse_ignored(("top",), "the other methods than 'noise'")
    loaded = network.load()
    pictures = read_images([] if image is None else [image], loaded, DEFAULT_IMAGE)
    model = loaded.model if beta is None else trompe.smooth(loaded.model, beta=beta, pooling=True)
    with torch.no_grad():
        logits = loaded.model(pictures.x)
    target = classes_of(logits, target_class)  # of the model itself, with --beta too
    options: dict[str, Any] = {}
    if method in ("noise", "smoothgrad"):
        given = {"samples": samples, "sigma": sigma, "confidence": confidence}
        options = {name: value for name, value in given.items() if value is not None}
        options["generator"] = torch.Generator().manual_seed(seed)
        options["pool" if method == "noise" else "block"] = pool
    if method != "noise" and samples == "auto":
        raise UsageError("--samples auto is for --method noise")
    if method == "noise":
        options |= {"denoiser": denoiser, "checkpoint": resume}
        options["explainer"] = fitted(explainer, loaded)
    elif len(radii) > 1:
        raise UsageError(f"--method {method} takes one --radius; several are for 'noise'")
    with progress_bar("certify", unit="sample", quiet=quiet or as_json) as progress:
        if method == "noise":
            options["progress"] = progress
        found: Any = trompe.certify(
            model,
            pictures.x,
            radius=list(radii) if method == "noise" else radii[0],  # type: ignore[arg-type]
            norm=norm,
            method=method,
            target=target,
            input_space=loaded.input_space,
            **options,
        )
    report = {
        "model": loaded.name,
        "image": pictures.names[0],
        "class": int(found.target[0]),
        "label": loaded.label(int(found.target[0])),
        "beta": beta,
        "norm": norm,
        "method": method,
        "confidence": found.confidence,
    }
    if method == "noise":
        rows, lines = noise_in_words(found, loaded, explainer)
    else:
        rows, lines = proof_in_words(found, min(top, found.pixels))
    report |= {**rows, "verdict": lines[-1], "version": trompe.__version__}
    if as_json:
        click.echo(json.dumps(report, indent=2))
    elif not quiet:
        click.echo(f"{loaded.name}, {report['label']}:")
        for line in lines:
            click.echo(line)
