"""``trompe sandwich --method noise``: attack and certificate of a smoothed map, side by side."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import trompe
from trompe.atomic import atomic_path
from trompe.cli.console import progress_bar
from trompe.cli.options import (
    COUNT,
    PROBABILITY,
    Number,
    method_option,
    output_folder,
)

if TYPE_CHECKING:
    from torch import Tensor

    from trompe.certificates import NoiseSandwich
    from trompe.cli.pictures import Images
    from trompe.types import LoadedModel


@dataclass(frozen=True)
class NoiseSettings:
    """The options of the noise; see ``SmoothedMap``."""

    explainer: str
    sigma: float
    samples: int
    pool: int
    confidence: float
    denoiser: bool


def noise_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of ``--method noise``, handed on as ``noise``."""

    @functools.wraps(function)
    def wrapped(**values: Any) -> Any:
        own = {field.name: values.pop(field.name) for field in fields(NoiseSettings)}
        return function(**values, noise=NoiseSettings(**own))

    for option in reversed(
        (
            method_option(
                "--explainer", default="lrp", show_default=True, what="whose smoothed map counts"
            ),
            click.option(
                "--sigma",
                type=Number(0, 10, above=True),
                default=0.1,
                show_default=True,
                help="Standard deviation of the noise, pixel units.",
            ),
            click.option(
                "--samples", type=COUNT, default=1000, show_default=True, help="Noisy copies."
            ),
            click.option(
                "--pool",
                type=COUNT,
                default=8,
                show_default=True,
                help="Side of the squares of pixels that count as one.",
            ),
            click.option(
                "--confidence",
                type=PROBABILITY,
                default=0.99,
                show_default=True,
                help="Of what is certified.",
            ),
            click.option(
                "--denoiser",
                is_flag=True,
                help="Take the noise away before the network: for networks not trained with noise.",
            ),
        )
    ):
        wrapped = option(wrapped)
    return wrapped


@dataclass(frozen=True)
class Enclosed:
    """What is enclosed.

    Args:
        loaded: The model.
        pictures: The images read.
        target: Class of each, [B].
        radii: Rising, pixel units.
        steps: Of each attack.
        seed: Of the noise.
        noise: The options.
    """

    loaded: LoadedModel
    pictures: Images
    target: Tensor
    radii: Sequence[float]
    steps: int
    seed: int
    noise: NoiseSettings


def enclose_noise(what: Enclosed, output: Path, *, as_json: bool, quiet: bool) -> None:
    """Run it, write figure and numbers, and say what was found."""
    import torch

    from trompe.certificates import noise_sandwich
    from trompe.explain import fitted
    from trompe.report.noise_sandwich import save_noise_sandwich

    loaded, noise = what.loaded, what.noise
    with progress_bar("sandwich", unit="radius", quiet=quiet or as_json) as progress:
        found = noise_sandwich(
            loaded,
            what.pictures.x,
            explainer=fitted(noise.explainer, loaded),
            radii=what.radii,
            sigma=noise.sigma,
            samples=noise.samples,
            confidence=noise.confidence,
            pool=noise.pool,
            denoiser=noise.denoiser,
            target=what.target,
            iterations=what.steps,
            generator=torch.Generator().manual_seed(what.seed),
            progress=progress,
        )
    label = loaded.label(found.target[0])
    report = {
        "run": {
            "model": loaded.name,
            "image": what.pictures.names[0],
            "class": found.target[0],
            "label": label,
            "explainer": noise.explainer,
            "sigma": noise.sigma,
            "samples": found.samples[0],
            "confidence": found.confidence,
            "pool": found.pool,
            "denoiser": noise.denoiser,
            "steps": what.steps,
            "seed": what.seed,
            "label_share": found.label_share[0],
            "pcc_to_plain": found.pcc_to_plain[0],
            "version": trompe.__version__,
        },
        "rows": found.rows(),
        "verdict": verdict(found, noise.explainer, label),
    }
    with output_folder(output) as folder:
        title = (
            f"{loaded.name}, {label}: smoothed {noise.explainer} map, noise {noise.sigma:g}, "
            f"squares of {found.pool} pixels"
        )
        save_noise_sandwich(folder / "sandwich.png", found, title)
        with atomic_path(folder / "sandwich.json") as temporary:
            temporary.write_text(f"{json.dumps(report, indent=2)}\n", encoding="utf-8")
    if as_json:
        click.echo(json.dumps(report, indent=2))
    elif not quiet:
        click.echo("correlation with the map of the unchanged image, worst case within the radius:")
        click.echo(f"{'radius':>10}{'of 255':>10}{'certified':>12}{'attacked':>12}{'plain':>10}")
        for one in found.layers:
            sure = "void" if one.void else f"{one.certified_pcc:.4f}"
            click.echo(
                f"{one.radius:>10.4g}{255 * one.radius:>10.3g}{sure:>12}{one.attacked_pcc:>12.4f}"
                f"{one.plain_pcc:>10.4f}"
            )
        click.echo(report["verdict"])
        click.echo(f"Figure: {output / 'sandwich.png'}")


def verdict(found: NoiseSandwich, explainer: str, label: str) -> str:
    """What was found of the map that explains the class ``label``, in one sentence or two."""
    what = f"the smoothed {explainer} map of '{label}'"
    sure = f"{found.confidence:.0%} confidence, {found.samples[0]} noisy copies"
    good = [one for one in found.layers if not one.void]
    if not good:
        least = min(one.radius for one in found.layers)
        return (
            f"VOID: already at radius {least:g} nothing is known of {what} "
            f"({sure}): more --samples, a smaller --smallest, a larger --sigma or --pool help."
        )
    last = max(good, key=lambda one: one.radius)
    void = [one.radius for one in found.layers if one.void]
    tail = f" Void from radius {min(void):g} on." if void else ""
    return (
        f"Within radius {last.radius:g} {what} surely keeps a correlation of "
        f"{last.certified_pcc:.3f} ({sure}); the strongest attack found left it "
        f"{last.attacked_pcc:.3f}, and the plain map {last.plain_pcc:.3f}. The smoothed map "
        f"correlates with the plain one at {found.pcc_to_plain[0]:.2f}; of the plain map nothing "
        f"is proved.{tail}"
    )
