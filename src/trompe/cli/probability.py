"""``trompe probability``: how likely a random change misleads an explanation."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import click

import trompe
from trompe.cli.console import progress_bar
from trompe.cli.options import (
    COUNT,
    SEED,
    ModelOptions,
    Number,
    json_option,
    make_method,
    method_option,
    quiet_option,
    small_model_options,
    target_class_option,
)
from trompe.cli.pictures import DEFAULT_IMAGE, explained_classes, read_images, with_folders

_EXAMPLES = """\b
Examples:
  trompe probability --amount 0.1
  trompe probability photos/ --model efficientnet-lite0 --amount 2 --change l2 --tau 0.9
"""


@click.command(epilog=_EXAMPLES)
@click.argument("images", nargs=-1)
@small_model_options
@method_option("--method", what="Explanation judged.", default="gradient", show_default=True)
@click.option("--amount", "amount", type=Number(0, above=True), default=0.1, show_default=True,
              help="Of the random change, pixel units.")  # fmt: skip
@click.option("--change", type=click.Choice(["gaussian", "l2", "linf"]), default="gaussian",
              show_default=True, help="Noise of that standard deviation, of that Euclidean norm, "
              "or evenly within plus and minus that size.")  # fmt: skip
@click.option("--tau", type=Number(-1, 1), default=0.5, show_default=True,
              help="A map below this correlation with the original one is misleading.")  # fmt: skip
@click.option("--monte-carlo", is_flag=True,
              help="Plain sampling, with --samples maps in all.")  # fmt: skip
@click.option("--samples", type=COUNT, default=200, show_default=True,
              help="Maps per level and run of subset simulation.")  # fmt: skip
@click.option("--runs", type=click.IntRange(3, 1000), default=5, show_default=True,
              help="Independent runs of subset simulation.")  # fmt: skip
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the random changes.")
@target_class_option
@json_option
@quiet_option
def probability(
    images: tuple[str, ...],
    network: ModelOptions,
    method: str,
    amount: float,
    change: str,
    tau: float,
    monte_carlo: bool,
    samples: int,
    runs: int,
    seed: int,
    target_class: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Estimate how likely a RANDOM change of IMAGES moves the explanation below --tau.

    Not the worst case (that is 'trompe robustness'): nature draws at random, an attacker does not.
    Subset simulation reaches probabilities far below what plain sampling can see.
    """
    import torch

    from trompe.robustness import misleading_probability

    loaded = network.load()
    pictures = read_images(with_folders(images), loaded, DEFAULT_IMAGE)
    target = explained_classes(loaded, pictures.x, target_class)
    explainer = make_method(method, loaded)
    rows = []
    with progress_bar("probability", unit="image", quiet=quiet or as_json) as progress:
        for index, name in enumerate(pictures.names):
            (found,) = misleading_probability(
                loaded,
                pictures.x[index : index + 1],
                explainer=explainer,
                size=amount,
                tau=tau,
                change=change,  # type: ignore[arg-type]  # one of the choices
                method="monte-carlo" if monte_carlo else "subset",
                samples=samples,
                runs=runs,
                target=target[index : index + 1],
                generator=torch.Generator().manual_seed(seed),
            )
            label = loaded.label(int(target[index]))
            rows.append({"image": name, "class": int(target[index]), "label": label})
            rows[-1] |= asdict(found) | {"verdict": _sentence(found.value, found.high)}
            if progress is not None:
                progress(index + 1, len(pictures.names), {})
    report = {
        "model": loaded.name,
        "method": method,
        "amount": amount,
        "change": change,
        "tau": tau,
        "confidence": 0.95,
        "seed": seed,
        "images": rows,
        "version": trompe.__version__,
    }
    if as_json:
        click.echo(json.dumps(report, indent=2))
    elif not quiet:
        click.echo(
            f"{loaded.name}, {method}: random changes ({change}) of size {amount:g}, map below a "
            f"correlation of {tau:g}"
        )
        for row in rows:
            click.echo(
                f"  {row['image']} ({row['label']}): {row['value']:.2g}, 95 % interval "
                f"{row['low']:.2g} to {row['high']:.2g}, {row['evaluations']} maps. "
                f"{row['verdict']}"
            )


def _sentence(value: float, high: float) -> str:
    """The estimate as one in so many."""
    if value == 0:
        return f"Never seen; rarer than about one in {math.floor(1 / high):,}."
    if value >= 0.1:
        return f"About {value:.0%} of such changes."
    return f"About one in {max(1, round(1 / value)):,}."
