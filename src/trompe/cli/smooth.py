"""``trompe smooth``: what beta-smoothing costs and brings, and which beta to take."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import trompe
from trompe.cli.console import progress_bar
from trompe.cli.options import (
    ModelOptions,
    json_option,
    model_options,
    output_folder,
    output_option,
    quiet_option,
)
from trompe.cli.parts import preset_option
from trompe.cli.pictures import DEFAULT_IMAGE, DEFAULT_TARGET, read_images, with_folders

if TYPE_CHECKING:
    from torch import Tensor

    from trompe.attacks import Adaptive, Attacked
    from trompe.defences import Choice
    from trompe.geometry import Comparison, Recovery

_EXAMPLES = """\b
Examples:
  trompe smooth --choose
  trompe smooth --choose cat.jpg dog.jpg --model squeezenet1_1 --faithful 0.8
  trompe smooth cat.jpg --compare --attack --target dog.jpg --iterations 100
"""
#: Of the SmoothGrad that is attacked: the paper's.
_SAMPLES = 10


@click.command(epilog=_EXAMPLES)
@click.argument("images", nargs=-1, metavar="[IMAGES]...")
@model_options
@click.option(
    "--choose", is_flag=True, help="Name the smallest beta whose maps are still faithful."
)
@click.option(
    "--compare", is_flag=True, help="Set SmoothGrad of equal strength beside it: maps, run times."
)
@click.option(
    "--attack",
    is_flag=True,
    help="Attack the plain and the smoothed explanation (with --compare SmoothGrad's too), and "
    "see what smoothing undoes.",
)
@click.option(
    "--beta", "betas", type=float, multiple=True, help="To be measured; repeat for several."
)
@click.option(
    "--at",
    type=float,
    default=0.8,
    show_default=True,
    help="beta of --compare and --attack.",
)
@click.option("--target", metavar="IMAGE", help="Whose explanation --attack aims at.")
@preset_option("Of --attack:")
@click.option("--iterations", type=click.IntRange(1), help="Of --attack, in place of the preset's.")
@click.option(
    "--faithful",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.7,
    show_default=True,
    help="Correlation with the plain map that counts as faithful.",
)
@click.option(
    "--steps", type=click.IntRange(1), default=20, show_default=True, help="Lanczos steps."
)
@output_option("trompe-out/smooth")
@json_option
@quiet_option
def smooth(
    images: tuple[str, ...],
    network: ModelOptions,
    choose: bool,
    compare: bool,
    attack: bool,
    betas: tuple[float, ...],
    at: float,
    target: str | None,
    preset: str,
    iterations: int | None,
    faithful: float,
    steps: int,
    output: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure beta-smoothing on IMAGES: how faithful the maps stay, how flat the surface becomes.

    Max pooling is smoothed too. With --choose, the smallest beta whose maps are still faithful is
    named; below it, more protection costs more of the explanation than it should.
    --compare and --attack leave max pooling as it is, as the paper does.
    """
    import torch

    from trompe.atomic import atomic_path
    from trompe.attacks import adaptive_attack, preset_for
    from trompe.defences import choose_beta
    from trompe.defences.choose_beta import BETAS
    from trompe.engine import frozen
    from trompe.engine.smoothing import check_beta
    from trompe.explain import Method, explainer
    from trompe.geometry import compare_smoothings, distance_to_relu, recovery
    from trompe.report.smoothing import (
        adaptive_figure,
        choice_figure,
        comparison_figure,
        distance_figure,
        recovery_figure,
    )
    from trompe.report.style import save_figure

    check_beta(at)
    loaded = network.load()
    preset_for(preset, explainer("gradient"), loaded.size)  # an unknown one is refused at once
    pictures = read_images(with_folders(images), loaded, DEFAULT_IMAGE)
    aim = read_images([target] if target else [], loaded, DEFAULT_TARGET)
    with torch.no_grad():
        classes = frozen(loaded.model)(pictures.x).argmax(dim=1)
    found = choose_beta(
        loaded.model, pictures.x, classes, betas=betas or BETAS, threshold=faithful, steps=steps
    )
    distance = distance_to_relu(loaded.model, pictures.x, classes, betas=found.betas, pooling=True)
    figures = {
        "smooth": choice_figure(found, loaded.name),
        "distance": distance_figure({"gradient": distance}),
    }
    report: dict[str, Any] = {
        "run": {
            "model": loaded.name,
            "images": list(pictures.names),
            "faithful": faithful,
            "version": trompe.__version__,
        },
        "chosen": found.chosen if choose else None,
        "rows": _rows(found),
    }
    smoothings: dict[str, Method] = {f"beta={at:g}": explainer("beta_smoothing", beta=at)}
    if compare:
        beside = compare_smoothings(loaded.model, pictures.x, classes, beta=at)
        figures["comparison"] = comparison_figure(beside)
        report["comparison"] = _compared(beside)
        smoothings[f"smoothgrad={_SAMPLES}"] = explainer(
            "smoothgrad", samples=_SAMPLES, sigma=beside.sigma
        )
    if attack:
        with progress_bar("attack", unit="step", quiet=quiet) as bar:
            attacks = adaptive_attack(
                loaded.model,
                pictures.x,
                target_x=aim.x,
                smoothings=smoothings,
                input_space=loaded.input_space,
                preset=preset,
                iterations=iterations,
                progress=bar,
            )
        result = attacks.plain.result
        undone = recovery(
            loaded.model,
            pictures.x,
            result.x_adv.to(pictures.x),
            classes,
            result.aim,
            betas=found.betas,
        )
        figures["attack"] = adaptive_figure(attacks)
        figures["recovery"] = recovery_figure(undone, loaded.name)
        report["attack"] = _attacked(attacks)
        report["recovery"] = _recovered(undone)
    with output_folder(output) as folder:
        for name, figure in figures.items():
            save_figure(figure, folder / f"{name}.png")
        with atomic_path(folder / "smooth.json") as temporary:
            temporary.write_text(f"{json.dumps(report, indent=2)}\n", encoding="utf-8")
    if as_json:
        click.echo(json.dumps(report, indent=2))
    elif not quiet:
        for line in _words(report):
            click.echo(line)
        names = ", ".join(str(output / f"{name}.png") for name in figures)
        click.echo(f"Figures: {names}")


def _rows(found: Choice) -> list[dict[str, float | None]]:
    from trompe.geometry import sigma_of_beta

    return [
        {
            "beta": beta,
            "pcc_to_plain_map": found.faithful[i],
            "curvature": found.curvature[i] if math.isfinite(found.curvature[i]) else None,
            "curvature_bound": found.bound[i] if math.isfinite(found.bound[i]) else None,
            "sigma_per_unit_weight": sigma_of_beta(beta),
        }
        for i, beta in enumerate(found.betas)
    ]


def _compared(found: Comparison) -> dict[str, Any]:
    return {
        "beta": found.beta,
        "sigma": found.sigma,
        "closest_sigma": found.closest,
        "samples": found.samples[-1],
        "pcc_to_beta_map": {
            f"{sigma:.4g}": float(row.nanquantile(0.5))
            for sigma, row in zip(found.sigmas, found.agreement, strict=True)
        },
        "pcc_of_plain_map": float(found.plain.nanquantile(0.5)),
        "seconds": found.median_seconds,
    }


def _attacked(found: Adaptive) -> dict[str, Any]:
    def numbers(one: Attacked) -> dict[str, Any]:
        return {
            "pcc_to_target_before": _listed(one.before.pcc),
            "pcc_to_target": _listed(one.after.pcc),
            "ssim_to_target": _listed(one.after.ssim),
            "image_ssim": _listed(one.images.ssim),
            "class_kept": one.result.class_kept.tolist(),
            "iterations": one.result.iterations,
        }

    return {
        name: numbers(one) for name, one in {"plain": found.plain, **found.smoothed}.items()
    }  # fmt: skip


def _listed(values: Tensor) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _recovered(found: Recovery) -> list[dict[str, float]]:
    original, target = found.to_original, found.to_target
    return [
        {
            "beta": beta,
            "pcc_to_original": float(original.pcc[i].nanquantile(0.5)),
            "pcc_to_target": float(target.pcc[i].nanquantile(0.5)),
        }
        for i, beta in enumerate(original.betas)
    ]


def _words(report: dict[str, Any]) -> list[str]:
    """The report as text."""
    lines = [f"{'beta':>8}{'correlation':>13}{'curvature':>12}{'proved':>12}"]
    for row in report["rows"]:
        numbers = (row["curvature"], row["curvature_bound"])
        shown = "".join(f"{'-' if n is None else f'{n:.3g}':>12}" for n in numbers)
        lines.append(f"{row['beta']:>8g}{row['pcc_to_plain_map']:>13.3f}{shown}")
    if report["chosen"] is not None:
        faithful = report["run"]["faithful"]
        lines.append(f"Chosen: beta = {report['chosen']:g} (correlation at least {faithful:g})")
    if (beside := report.get("comparison")) is not None:
        lines.append(f"SmoothGrad beside beta = {beside['beta']:g}, correlation of the maps:")
        for sigma, value in beside["pcc_to_beta_map"].items():
            note = " (Theorem 2's sigma)" if sigma == f"{beside['sigma']:.4g}" else ""
            lines.append(f"  sigma {sigma:>8}: {value:.3f}{note}")
        lines.append(f"  no smoothing:   {beside['pcc_of_plain_map']:.3f}")
        for name, seconds in beside["seconds"].items():
            lines.append(f"  {name}: {1000 * seconds:.3g} ms per image")
    for name, one in report.get("attack", {}).items():
        before, after = (
            ", ".join("-" if value is None else f"{value:.2f}" for value in one[key])
            for key in ("pcc_to_target_before", "pcc_to_target")
        )
        lines.append(f"Attack on {name}: correlation with the target {before} -> {after}")
    for row in report.get("recovery", ()):
        lines.append(
            f"  explained with beta {row['beta']:g}: {row['pcc_to_original']:.2f} with the "
            f"original's map, {row['pcc_to_target']:.2f} with the target"
        )
    return lines
