"""``trompe audit``: the attack over many images, models, methods and smoothings."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trompe.cli.console import FAILED, log, progress_bar, say
from trompe.cli.fraction import Fraction
from trompe.cli.options import (
    COUNT,
    DEFAULT_MODEL,
    MANY,
    SEED,
    SIDE,
    batch_option,
    chunk_option,
    json_option,
    mean_option,
    method_option,
    outputs_option,
    patterns_option,
    quiet_option,
    std_option,
)
from trompe.cli.outcome import say_outcome, status_in_words
from trompe.cli.parts import part_option
from trompe.errors import UsageError

if TYPE_CHECKING:
    from trompe.audit import ModelSpec, Settings, Status

DEFAULT_RUN = "trompe-out/audit"
WORST_CASE, SHORT_WORST_CASE = 0.1, 0.01
PAIRS, SHORT_PAIRS = 10, 3

_EXAMPLES = """\b
Examples:
  trompe audit --short
  trompe audit --images photos/ --model vgg16 --method gradient --method lrp --pairs 100
  trompe audit --objective unlike --constraint linf:8/255
  trompe audit --smoothing none --smoothing beta=0.8 --workers 2
  trompe audit --model tiny-vgg-noise --method lrp --certify 0.125,sigma=0.25
  trompe audit --engine ray --ray-address auto
  trompe audit --status
"""


@click.command(epilog=_EXAMPLES)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="RUN",
    default=DEFAULT_RUN,
    show_default=True,
    help="Folder of the run; one that was begun goes on where it was.",
)
@click.option("--status", "only_status", is_flag=True, help="Say how far the run is, and end.")
@click.option(
    "--images",
    metavar="SOURCE",
    default="skimage-photos",
    show_default=True,
    help="Folder, .csv (file, class), .npz, torchvision:NAME:ROOT, or "
    "skimage-photos (scikit-image's three; never a folder of that name).",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME[=WEIGHTS]",
    default=[DEFAULT_MODEL],
    show_default=True,
    envvar="TROMPE_MODEL",
    help="Networks; give the option once for each. TROMPE_MODEL in the environment names others.",
)
@click.option(
    "--weights",
    metavar="FILE",
    help="Of the network, where one is named; of several as NAME=WEIGHTS.",
)
@method_option(
    "--method",
    "methods",
    what="Explanations attacked.",
    multiple=True,
    default=["gradient"],
    show_default=True,
)
@click.option(
    "--smoothing",
    "smoothings",
    multiple=True,
    metavar="KIND",
    default=["none"],
    show_default=True,
    help="Of the explanations: none, beta=0.8, smoothgrad=10, smoothgrad=10-beta=0.8.",
)
@click.option(
    "--preset",
    "presets",
    multiple=True,
    metavar="NAME",
    default=["fast"],
    show_default=True,
    help="Settings of the attack.",
)
@part_option(
    "--objective",
    kind="objective",
    what="What becomes of the explanations.",
    default="reach_map",
    show_default=True,
)
@part_option(
    "--constraint", kind="constraint", what="Where the images must stay, in place of the preset's."
)
@click.option(
    "--pairs",
    type=COUNT,
    help=f"Pairs, or images, per model. Default: {PAIRS}, with --short {SHORT_PAIRS}.",
)
@click.option("--pair-list", metavar="FILE", help="CSV of given pairs: image, target.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of everything random.")
@click.option("--keep-wrong", is_flag=True, help="Also attack images that are classified wrongly.")
@click.option("--iterations", type=COUNT, help="Steps, in place of the preset's.")
@click.option(
    "--worst-case",
    type=Fraction(),
    metavar="BUDGET",
    help="Share of the steps and queries of 'trompe robustness' spent on looking for the worst map "
    f"of every image within 8/255. Default: {WORST_CASE:g}, with --short {SHORT_WORST_CASE:g}.",
)
@click.option("--no-worst-case", is_flag=True, help="Attack towards targets alone.")
@click.option(
    "--certify",
    metavar="RADIUS[,sigma=..,samples=..]",
    help="Also certify every image's smoothed map against changes up to this size (l2, pixel "
    "units), as 'trompe certify --method noise' does: 0.125,sigma=0.25. Further options: samples, "
    "pool, confidence, denoiser=true.",
)
@click.option("--short", is_flag=True, help="3 pairs and 50 steps, to see how it works.")
@click.option("--classes", metavar="FILE", help="Class labels, one per line.")
@mean_option
@std_option
@click.option("--size", type=SIDE, help="Height and width of the input.")
@outputs_option
@patterns_option
@batch_option
@chunk_option
@click.option(
    "--device", metavar="[cpu|cuda|auto]", default="cpu", show_default=True, help="Where to work."
)
@click.option("--threads", type=MANY, help="CPU threads per process.")
@click.option(
    "--workers",
    type=MANY,
    help="Processes. Default: 1; on Ray, as many as there is room for.",
)
@click.option(
    "--engine",
    type=click.Choice(["plain", "ray"]),
    default="plain",
    show_default=True,
    help="Processes of this machine, or of a Ray cluster; they may take turns.",
)
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help="Of a cluster that runs, or 'auto'. Default: one of its own on this machine.",
)
@click.option(
    "--retry", is_flag=True, help="Also try cells again that have failed three times already."
)
@json_option
@quiet_option
def audit(
    output: Path,
    only_status: bool,
    device: str,
    threads: int | None,
    workers: int | None,
    engine: str,
    ray_address: str | None,
    retry: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Attack the explanations of many images, and keep everything.

    Each pair of images, model, method, smoothing and preset is one cell of the run. Then comes,
    for every image, model, method and smoothing, the search for the worst map within 8/255, from
    which the leaderboard's number follows; the attacks show what can be made of a map. With
    --certify, certificates of the smoothed maps come last. End it whenever you like: the same
    command goes on where it was. Cells that failed are tried again by the same command, up to
    three times. 'trompe report' shows the outcome.

    Ends with code 3 if cells failed.
    """
    if only_status:
        from trompe.audit import open_run, status

        with open_run(output).store as store:
            found = status(store)
    else:
        if ray_address is not None and engine != "ray":
            raise UsageError("--ray-address goes with --engine ray")
        how = {
            "retry": retry,
            "engine": engine,
            "ray_address": ray_address,
            "workers": workers,
            "threads": threads,
        }
        found = _run(output, _settings(**options), quiet, device=device, **how)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=2))
    elif not quiet:
        say(status_in_words(found, output))
        if found.done:
            say_outcome(output)
    if only_status or not found.errors:
        return 0
    if quiet or as_json:
        log.error(
            "%d of %d cells failed (%s): the same command tries them again",
            found.errors,
            found.cells,
            next(iter(found.failures)),
        )
    return FAILED


def _run(output: Path, settings: Settings, quiet: bool, **how: Any) -> Status:
    from trompe.audit import run_audit

    # What a model's code prints must not mix with what this command writes for machines.
    with (
        progress_bar("audit", unit="cell", quiet=quiet) as progress,
        contextlib.redirect_stdout(sys.stderr),
    ):

        def watch(now: Status) -> None:
            if progress is not None:
                progress(now.done + now.errors, now.cells, {"errors": float(now.errors)})

        return run_audit(output, settings, watch=watch, **how)


def _settings(
    *,
    models: tuple[str, ...],
    weights: str | None,
    pairs: int | None,
    iterations: int | None,
    short: bool,
    worst_case: float | None,
    no_worst_case: bool,
    classes: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    size: int | None,
    outputs: str | None,
    **others: Any,
) -> Settings:
    """The settings that the options stand for."""
    from trompe.audit import ModelSpec, Settings

    if short and iterations is not None:
        raise UsageError("give one of --short and --iterations")

    if no_worst_case and worst_case is not None:
        raise UsageError("give one of --worst-case and --no-worst-case")
    usual = SHORT_WORST_CASE if short else WORST_CASE
    budget = usual if worst_case is None else worst_case

    if weights is not None and (len(models) > 1 or "=" in models[0]):
        raise UsageError("--weights is for one --model without weights: give --model NAME=WEIGHTS")

    def spec(text: str) -> ModelSpec:
        name, _, own = text.partition("=")
        return ModelSpec(name, own or weights, classes, mean, std, size, outputs=outputs)

    return Settings(
        models=tuple(spec(text) for text in models),
        pairs=pairs or (SHORT_PAIRS if short else PAIRS),
        iterations=50 if short else iterations,
        worst_case=None if no_worst_case else budget,
        **others,
    )
