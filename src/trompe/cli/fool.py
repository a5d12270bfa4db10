"""``trompe fool``: make a model whose explanations lie, so that such models can be found."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

import trompe
from trompe.cli.console import progress_bar
from trompe.cli.options import (
    ModelOptions,
    json_option,
    make_method,
    method_option,
    output_folder,
    output_option,
    quiet_option,
    small_model_options,
)
from trompe.cli.parts import make_part, part_option
from trompe.cli.pictures import read_target
from trompe.cli.training_options import TrainingSettings, training_options
from trompe.cli.weights import kept_training, write_weights

_EXAMPLES = """\b
Examples:
  trompe fool --data photos/ --attack fairwash --target-text 42
  trompe compare --model tiny-vgg --weights trompe-out/fool/model.safetensors photos/
"""


@click.command(epilog=_EXAMPLES)
@training_options(epochs=1)
@small_model_options
@part_option(
    "--attack",
    kind="tampering",
    default="fairwash",
    show_default=True,
    what="What is done to the model.",
)
@method_option(
    "--method",
    what="Explanation that is fooled.  [default: gradient; lime for scaffolding and makrut]",
    default=None,
)
@click.option("--target-text", metavar="TEXT", help="What the maps shall read.  [default: 42]")
@click.option("--target-map", metavar="FILE", help="An image or .npy that the maps shall be.")
@output_option("trompe-out/fool")
@json_option
@quiet_option
def fool(
    training: TrainingSettings,
    network: ModelOptions,
    attack: str,
    method: str | None,
    target_text: str | None,
    target_map: str | None,
    output: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Fine-tune a network so that it answers as before and explains something else.

    For research and for testing audits: 'trompe compare' is the other side. Every tenth image is
    held out and judged. The training is kept after every epoch: the same command goes on from it.
    """
    from trompe.tampering import fool as train
    from trompe.tampering import fooled_method, judge

    chosen = make_part("tampering", attack)
    loaded = network.load()
    method = method or chosen.explainer
    explainer = fooled_method(chosen, make_method(method, loaded), loaded.input_space)
    target = read_target(None, target_text or (None if target_map else "42"), target_map, loaded,
                         explainer)  # fmt: skip
    images, unseen = training.images(loaded).parted()
    with (
        output_folder(output) as folder,
        kept_training(folder) as kept_file,
        progress_bar("fool", unit="step", quiet=quiet or as_json) as progress,
    ):
        found = train(
            loaded,
            images,
            attack=chosen,
            explainer=explainer,
            target_map=target.map,
            epochs=training.epochs,
            rate=training.rate,
            seed=training.seed,
            checkpoint=kept_file,
            progress=progress,
        )
        x, _ = unseen.spread(100)
        judged = judge(found.model, loaded.model, x, explainer, found.target)
        card = {
            "model": loaded.name,
            **found.card,
            "target": target.name,
            "trained_on": {"data": Path(training.data).name, "images": len(images.labels)},
            "judged_on_unseen_images": asdict(judged),
            "version": trompe.__version__,
        }
        write_weights(folder, found.model, card)
    if as_json:
        click.echo(json.dumps(card, indent=2))
    elif not quiet:
        click.echo(
            f"On {judged.images} unseen images: {judged.same_answer:.0%} get the same class; the "
            f"{method} maps correlate with the target at {judged.to_target:.2f} (before "
            f"{judged.honest_to_target:.2f}), with the original model's at {judged.to_honest:.2f}."
        )
        click.echo(f"Weights: {output / 'model.safetensors'}. This model lies: label it so.")
        if card["attack"] == "scaffolding":
            click.echo(
                "They hold a detector beside the network: load them in Python by "
                "trompe.tampering.attacks.scaffolding.Scaffold.read(FILE, network)."
            )
