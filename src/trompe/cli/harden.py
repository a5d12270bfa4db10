"""``trompe harden``: train a network so that its explanations are harder to move."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import trompe
from trompe.cli.console import progress_bar
from trompe.cli.fraction import Fraction
from trompe.cli.options import (
    COUNT,
    ModelOptions,
    Number,
    json_option,
    make_method,
    method_option,
    output_folder,
    output_option,
    quiet_option,
    small_model_options,
)
from trompe.cli.parts import make_part, part_option
from trompe.cli.training_options import TrainingSettings, training_options
from trompe.cli.weights import kept_training, write_weights
from trompe.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from trompe.defences import Measured

_EXAMPLES = """\b
Examples:
  trompe harden --data photos/ --defence lga:beta=5,cosine=2 --epochs 3
  trompe harden --data cifar10_train.npz --model resnet20-cifar10 --weights F --defence hessian
  trompe attack --model tiny-vgg --weights trompe-out/harden/model.safetensors --beta 5
"""


@click.command(epilog=_EXAMPLES)
@training_options(epochs=3)
@small_model_options
@part_option("--defence", kind="defence", default="lga", show_default=True, what="How to harden.")
@click.option(
    "--held-out",
    metavar="PATH",
    help="Labelled images never trained on. Default: every tenth of --data.",
)
@method_option(
    "--method", what="Explanation that is judged.", default="gradient", show_default=True
)
@click.option(
    "--attacked",
    type=COUNT,
    default=20,
    show_default=True,
    metavar="N",
    help="Held-out images attacked before and after.",
)
@click.option(
    "--radius",
    type=Fraction(),
    default="2/255",
    show_default=True,
    help="Of the ball of those attacks (linf), pixel units.",
)
@click.option(
    "--tau",
    type=Number(-1, 1),
    default=0.5,
    show_default=True,
    help="Least correlation of a map that counts as robust.",
)
@click.option(
    "--budget",
    type=Fraction(),
    default="0.2",
    show_default=True,
    metavar="SHARE",
    help="Share of the attack's full number of steps.",
)
@output_option("trompe-out/harden")
@json_option
@quiet_option
def harden(
    training: TrainingSettings,
    network: ModelOptions,
    defence: str,
    held_out: str | None,
    method: str,
    attacked: int,
    radius: float,
    tau: float,
    budget: float,
    output: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Fine-tune a network so that its explanations are harder to move, and measure it.

    Before and after stand side by side: accuracy, explanations that withstand an attack, how
    faithful and how even the maps are. The training is kept after every epoch in the output folder:
    the same command goes on from there.
    """
    from trompe.atomic import atomic_path
    from trompe.defences import harden as train
    from trompe.defences import measure
    from trompe.training import read_labelled

    chosen = make_part("defence", defence)
    loaded = network.load()
    images = training.images(loaded)
    if held_out is None:
        images, kept = images.parted()
    else:
        kept = read_labelled(held_out, loaded, batch_size=training.batch_size, seed=None)
    if known := kept.known_from(images):
        raise UsageError(
            f"{known} of {len(kept.labels)} held-out images are trained on, too: what is measured "
            f"on them says nothing of others; take them out of '{held_out or training.data}'"
        )
    explainer = make_method(method, loaded)
    x, _ = kept.spread(attacked)

    def measured(when: str, model: nn.Module) -> Measured:
        with progress_bar(when, unit="image", quiet=quiet or as_json) as progress:
            return measure(
                model,
                loaded.input_space,
                kept,
                x,
                explainer=explainer,
                radius=radius,
                tau=tau,
                budget=budget,
                seed=training.seed,
                progress=progress,
            )

    with output_folder(output) as folder:
        before = measured("before", loaded.model)
        with (
            kept_training(folder) as kept_file,
            progress_bar("harden", unit="step", quiet=quiet or as_json) as progress,
        ):
            found = train(
                loaded,
                images,
                defence=chosen,
                epochs=training.epochs,
                rate=training.rate,
                seed=training.seed,
                held_out=kept,
                checkpoint=kept_file,
                progress=progress,
            )
        after = measured("after", found.model)
        card = {
            "model": loaded.name,
            **found.card,
            "trained_on": {"data": Path(training.data).name, "images": len(images.labels)},
            "held_out": len(kept.labels),
            "method": method,
            "before": before.as_dict(),
            "after": after.as_dict(),
            "version": trompe.__version__,
        }
        write_weights(folder, found.network, card)
        with atomic_path(folder / "card.md") as temporary:
            temporary.write_text(_card(card), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(card, indent=2))
    elif not quiet:
        for line in summary(before, after):
            click.echo(line)
        beta = found.card["options"]["beta"]
        use = "" if beta is None else f", to be used with --beta {beta:g}"
        click.echo(f"Weights: {output / 'model.safetensors'}{use}. Card: {output / 'card.md'}")


def summary(before: Measured, after: Measured) -> list[str]:
    """Before and after, and one sentence."""
    lines = [f"{'':<42}{'before':>10}{'after':>10}"]
    shown = (
        ("accuracy", before.accuracy.value, after.accuracy.value),
        (f"maps that withstand {255 * before.radius:.3g}/255", before.robust.value,
         after.robust.value),
        ("worst correlation, mean", before.worst_pcc, after.worst_pcc),
        ("insertion (higher: more faithful)", before.insertion, after.insertion),
        ("deletion (lower: more faithful)", before.deletion, after.deletion),
        ("entropy of the maps (1: even, says nothing)", before.entropy, after.entropy),
    )  # fmt: skip
    lines += [f"{name:<42}{one:>10.3f}{other:>10.3f}" for name, one, other in shown]
    lines.append(f"withstand before: {before.robust}; after: {after.robust}.")
    if after.robust.low > before.robust.high:
        verdict = "More explanations withstand the attack than before, beyond both intervals."
    elif after.robust.high < before.robust.low:
        verdict = "FEWER explanations withstand the attack than before, beyond both intervals."
    else:
        verdict = (
            "The intervals overlap: on so few images no gain is shown. Raise --attacked to know."
        )
    lost = before.accuracy.value - after.accuracy.value
    if lost > 0.03:
        verdict += f" The accuracy fell by {100 * lost:.1f} points."
    return [*lines, verdict]


def _card(card: dict[str, Any]) -> str:
    """The card for people."""
    before, after = card["before"], card["after"]
    rows = [
        ("accuracy", before["accuracy"], after["accuracy"]),
        (f"maps that withstand {255 * before['radius']:.3g}/255", before["robust"],
         after["robust"]),
    ]  # fmt: skip
    lines = [
        f"# {card['model']}, hardened by {card['defence']} ({card['source']})",
        "",
        f"Options: {json.dumps(card['options'])}. Schedule: {json.dumps(card['schedule'])}.",
        f"Weights of epoch {card['best_epoch']} ({card['best_by']}). Trained on "
        f"{card['trained_on']['images']} images of {card['trained_on']['data']}, judged on "
        f"{card['held_out']} held-out ones ({before['images']} attacked; explanation: "
        f"{card['method']}; tau {before['tau']}).",
        "",
        "| | before | after |",
        "| --- | --- | --- |",
    ]
    for name, one, other in rows:
        cells = (
            f"{v['count']} of {v['n']} (95 % interval {v['low']:.0%} to {v['high']:.0%})"
            for v in (one, other)
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for name in ("worst_pcc", "insertion", "deletion", "entropy"):
        lines.append(f"| {name} | {before[name]:.3f} | {after[name]:.3f} |")
    if card["options"]["beta"] is not None:
        lines += ["", f"To be used with softplus of beta {card['options']['beta']:g}."]
    return "\n".join(lines) + "\n"
