"""``trompe robustness``: how many explanations withstand the worst case within a radius."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import trompe
from trompe.cli.console import INTERRUPTED, log, progress_bar
from trompe.cli.fraction import Fraction
from trompe.cli.options import (
    COUNT,
    SEED,
    ModelOptions,
    Number,
    batch_option,
    chunk_option,
    json_option,
    make_method,
    method_option,
    model_options,
    output_folder,
    output_option,
    patterns_option,
    quiet_option,
)
from trompe.cli.pictures import is_built_in
from trompe.cli.tangents import along_tangents, tangents_option
from trompe.errors import TrompeError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from trompe.types import LoadedModel

WITHSTOOD, BROKEN, UNKNOWN = 0, 3, 4
"""Exit codes: nothing found in any image; a map broken; nothing broken, but not all is known."""

UNFINISHED = "unfinished"
"""The folder, in that of the results, of the batches that are done while others are not."""

_EXAMPLES = """\b
Examples:
  trompe robustness
  trompe robustness photos/ --model vgg16 --method lrp --radius 2/255 --radius 8/255
  trompe robustness cifar10_test.npz --count 100 --model resnet20-cifar10 --weights F --json
"""


@click.command(epilog=_EXAMPLES)
@click.argument("images", nargs=-1, metavar="[IMAGES]...")
@click.option("--count", type=COUNT, help="Draw so many of the images. Default: all.")
@model_options
@method_option("--method", what="Explanation attacked.", default="gradient", show_default=True)
@click.option("--beta", type=Number(), help="Attack the explanation smoothed with this beta.")
@click.option("--smoothgrad", type=COUNT, metavar="N", help="Attack the mean over N noisy copies.")
@tangents_option
@patterns_option
@click.option("--radius", "radii", type=Fraction(), multiple=True, default=["8/255"],
              show_default=True, metavar="R",
              help="Of the ball, pixels 0..1; repeat for a curve.")  # fmt: skip
@click.option("--norm", type=click.Choice(["linf", "l2"]), default="linf", show_default=True)
@click.option("--tau", type=Number(-1.0, 1.0), default=0.5, show_default=True,
              help="Least correlation of a map that counts as robust.")  # fmt: skip
@click.option("--budget", type=Fraction(), default="1", show_default=True, metavar="SHARE",
              help="Share of the attack's 100 steps and 5,000 queries.")  # fmt: skip
@click.option("--version", "version", type=click.Choice(["standard", "rand"]), default="standard",
              show_default=True, help="'rand' for methods that answer by chance.")  # fmt: skip
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of everything random.")
@batch_option
@chunk_option
@output_option("trompe-out/robustness")
@json_option
@quiet_option
def robustness(
    images: tuple[str, ...],
    count: int | None,
    network: ModelOptions,
    method: str,
    beta: float | None,
    smoothgrad: int | None,
    tangents: str | None,
    patterns: str | None,
    radii: tuple[float, ...],
    norm: str,
    tau: float,
    seed: int,
    batch_size: int,
    chunk: int | None,
    output: Path,
    as_json: bool,
    quiet: bool,
    **attack: Any,
) -> int:
    """Say how many explanations withstand the worst case within a radius.

    IMAGES are files, a folder, an .npz, a .csv, or cat, coffee, rocket; without any, three photos.
    Each is attacked by an ensemble without parameters; what counts is the least alike map that
    keeps the answer. Ctrl-C ends early and tells of what is done; the same command goes on from
    there, and from wherever it was killed.

    The exit code is 0 if nothing was found in any image, 3 if an explanation was broken, 4 if none
    was but not all images could be judged.
    """
    from trompe.atomic import atomic_path
    from trompe.report.robustness import robustness_in_words, save_robustness
    from trompe.robustness import ball_of, evaluate
    from trompe.robustness.kept_batches import KeptBatches

    for radius in radii:
        ball_of(norm, radius)  # refused before the network is loaded
    loaded = network.load()
    chosen = along_tangents(tangents, loaded)(
        make_method(
            method,
            loaded,
            patterns=patterns,
            beta=beta,
            smoothgrad=smoothgrad,
            seed=seed,
            chunk=chunk,
        )
    )
    names, pixels, failed = drawn(images, count, seed, loaded)
    kept = output / UNFINISHED
    with output_folder(output) as folder:
        with progress_bar("robustness", unit="step", quiet=quiet) as progress:
            found = evaluate(
                loaded,
                names,
                pixels,
                failed,
                explainer=chosen,
                radii=radii,
                norm=norm,  # type: ignore[arg-type]  # click's choice
                seed=seed,
                batch_size=batch_size,
                checkpoint=kept,
                belongs=belongs(loaded.name, method, beta, smoothgrad, tangents, patterns),
                progress=progress,
                **attack,
            )
        report = found.report(tau)
        report["run"] = {
            "model": loaded.name,
            "method": method,
            "beta": beta,
            "smoothgrad": smoothgrad,
            "tangents": tangents,
            "images": list(images),
            "count": count,
            "seed": seed,
            "stopped": found.stopped,
            **attack,
            "trompe": trompe.__version__,
        }
        with atomic_path(folder / "robustness.json") as temporary:
            temporary.write_text(f"{json.dumps(report, indent=2)}\n", encoding="utf-8")
        save_robustness(folder / "robustness.png", report, f"{loaded.name}, {method}")
        if found.stopped == "finished" and not found.again:
            KeptBatches(kept, {}).clear()
    if as_json:
        click.echo(json.dumps(report, indent=2))
    elif not quiet:
        click.echo(f"{loaded.name}, {method}")
        click.echo(robustness_in_words(report))
        click.echo(f"Figure: {output / 'robustness.png'}")
    if found.stopped == "interrupted":
        log.warning(
            "interrupted: %d images are done; the same command goes on from there",
            len(report["radii"][-1]["per_image"]),
        )
        return INTERRUPTED
    code = verdict(report)
    if code == UNKNOWN and (quiet or as_json):
        log.error("%s", left_open(report))
    return code


def belongs(
    model: str,
    method: str,
    beta: float | None = None,
    smoothgrad: int | None = None,
    tangents: str | None = None,
    patterns: str | None = None,
) -> dict[str, str]:
    """What unfinished work depends on beside the images and the attack, by name."""
    given = {"model": model, "method": method, "beta": beta, "smoothgrad": smoothgrad}
    given |= {"tangents": tangents, "patterns": patterns, "trompe": trompe.__version__}
    return {name: str(value) for name, value in given.items()}


def verdict(report: Mapping[str, Any]) -> int:
    """The exit code that agrees with the words about the largest radius."""
    status = report["radii"][-1]["status"]
    if status["success"]:
        return BROKEN
    return WITHSTOOD if status["nothing found"] == report["images"] else UNKNOWN


def left_open(report: Mapping[str, Any]) -> str:
    """Why not all is known although no explanation was broken, for those who see no more."""
    last = report["radii"][-1]
    why = next((row["why"] for row in last["per_image"] if "why" in row), None)
    return (
        f"only {last['status']['nothing found']} of {report['images']} images could be judged: "
        f"{why or 'the answer was never kept on the others'}"
    )


def drawn(
    specs: Sequence[str], count: int | None, seed: int, loaded: LoadedModel
) -> tuple[list[str], dict[str, Tensor], dict[str, str]]:
    """The names of all images drawn, the pixels of those that can be read, and why not others."""
    import torch

    from trompe.audit.sources import PHOTOS, open_source
    from trompe.zoo.images import default_images, load_image

    how = loaded.preprocessing
    readers: list[tuple[str, Any]] = []
    for spec in specs or [PHOTOS]:
        path = Path(spec)
        if path.is_dir() or spec == PHOTOS or path.suffix.lower() in (".npz", ".csv"):
            source = open_source(spec)
            for index in range(len(source)):
                readers.append((source.name(index), lambda s=source, i=index: s.pixels(i, how)))
        elif is_built_in(spec):
            readers.append((spec, lambda s=spec: default_images(how=how)[s]))
        else:
            readers.append((spec, lambda s=spec: load_image(s, how=how)))
    if count is not None:
        order = torch.randperm(len(readers), generator=torch.Generator().manual_seed(seed))
        readers = [readers[index] for index in sorted(order[:count].tolist())]
    pixels: dict[str, Tensor] = {}
    failed: dict[str, str] = {}
    for name, read in readers:
        if name in pixels or name in failed:
            raise UsageError(f"the image '{name}' is named twice")
        try:
            pixels[name] = read()
        except TrompeError as error:
            failed[name] = str(error)
    return [name for name, _ in readers], pixels, failed
