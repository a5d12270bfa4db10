"""``trompe compare``: does a model explain itself differently from the one it claims to be?"""

from __future__ import annotations

import json
from dataclasses import replace

import click

import trompe
from trompe.cli.options import (
    ModelOptions,
    json_option,
    make_method,
    method_option,
    quiet_option,
    small_model_options,
)
from trompe.cli.pictures import DEFAULT_IMAGE, read_images, with_folders
from trompe.errors import UsageError

ALIKE, SUSPECT = 0, 3
"""Exit codes."""

_EXAMPLES = """\b
Examples:
  trompe compare --weights delivered.safetensors --model tiny-vgg photos/
  trompe compare --model resnet50 --weights delivered.pt --reference-weights ours.pt photos/
"""


@click.command(epilog=_EXAMPLES)
@click.argument("images", nargs=-1)
@small_model_options
@click.option(
    "--reference",
    metavar="NAME",
    help="The model that it claims to be. Default: the same as --model.",
)
@click.option("--reference-weights", metavar="FILE", help="Its weights. Default: the model's own.")
@method_option(
    "--method",
    "methods",
    multiple=True,
    show_default=True,
    default=("gradient", "grad_times_input", "lrp"),
    what="Explanations compared; repeat for several.",
)
@json_option
@quiet_option
def compare(
    images: tuple[str, ...],
    network: ModelOptions,
    reference: str | None,
    reference_weights: str | None,
    methods: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare a model's answers and explanations with those of the model it claims to be.

    Equal answers and unlike explanations are the mark of a model that was tampered with. Exit code
    3: suspect. Give 20 images or more.
    """
    from trompe.tampering import compare as run

    loaded = network.load()
    other = replace(
        network,
        spec=replace(network.spec, name=reference or network.spec.name, weights=reference_weights),
    )
    claimed = other.load()
    if other.spec == network.spec:
        raise UsageError(
            "model and reference are the same: give --weights, --reference or --reference-weights"
        )
    pictures = read_images(with_folders(images), loaded, DEFAULT_IMAGE)
    found = run(
        loaded, claimed, pictures.x, methods=[make_method(name, loaded) for name in methods]
    )
    report = {
        "model": network.spec.key,
        "reference": other.spec.key,
        "images": found.images,
        "same_answer": found.same_answer,
        "softmax_l2": found.softmax_l2,
        "outputs": found.outputs,
        "maps": {name: found.median(name) for name in found.maps},
        "off_the_data": found.off_the_data,
        "suspicion": found.suspicion,
        "suspect": found.suspect,
        "verdict": found.verdict(),
        "version": trompe.__version__,
    }
    if as_json:
        click.echo(json.dumps(report, indent=2))
    elif not quiet:
        for name in found.maps:
            click.echo(f"  {name:<20} maps correlate at {found.median(name):.3f} (median)")
        click.echo(f"  outputs differ by {found.outputs:.3f} of their spread")
        click.echo(found.verdict())
        if found.images < 20:
            click.echo("On so few images this says little: give 20 or more.")
    raise click.exceptions.Exit(SUSPECT if found.suspect else ALIKE)
