"""``trompe certify``: how far an explanation can be moved at most."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import trompe
from trompe.cli.console import progress_bar
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
from trompe.cli.pictures import DEFAULT_IMAGE, read_images
from trompe.errors import UsageError

if TYPE_CHECKING:
    from trompe.certificates import Certificate, NoiseCertificate
    from trompe.types import LoadedModel

_EXAMPLES = """\b
Examples:
  trompe certify --method noise --model tiny-vgg-noise --sigma 0.25 --radius 0.125
  trompe certify --method noise --model efficientnet-lite0 --denoiser --sigma 0.25 --radius 0.125
  trompe certify dog.jpg --method noise --explainer gradient --sigma 0.25 --radius 0.05 --radius 0.1
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

    loaded = network.load()
    pictures = read_images([] if image is None else [image], loaded, DEFAULT_IMAGE)
    model = loaded.model if beta is None else trompe.smooth(loaded.model, beta=beta, pooling=True)
    with torch.no_grad():
        logits = loaded.model(pictures.x)
    target = logits.argmax(dim=1)  # of the model itself, with --beta too
    if target_class is not None:
        if not 0 <= target_class < logits.shape[1]:
            raise UsageError(
                f"--target-class {target_class}: the model has {logits.shape[1]} classes"
            )
        target = torch.full_like(target, target_class)
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
    elif denoiser or resume is not None:
        raise UsageError("--denoiser and --resume are for --method noise")
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
        rows, lines = _noise(found, loaded, explainer)
    else:
        rows, lines = _proof(found, min(top, found.pixels))
    report |= {**rows, "verdict": lines[-1], "version": trompe.__version__}
    if as_json:
        click.echo(json.dumps(report, indent=2))
    elif not quiet:
        click.echo(f"{loaded.name}, {report['label']}:")
        for line in lines:
            click.echo(line)


def _distance(radius: float, norm: str) -> str:
    """A radius in words."""
    return f"{radius:g} ({norm}, pixel units; {255 * radius:.3g} of 255)"


def _below(value: float) -> str:
    """Three digits, rounded down: a bound from below stays one."""
    return f"{math.floor(1000 * value) / 1000:.3f}"


def _above(value: float) -> str:
    """Three digits, rounded up: a bound from above stays one."""
    return f"{math.ceil(1000 * value) / 1000:.3f}"


def _proof(found: Certificate, k: int) -> tuple[dict[str, Any], list[str]]:
    """The numbers of a proof, and what they say; the last line is the verdict."""
    overlap = float(found.topk_overlap(k)[0])
    values = {
        "radius": found.radius,
        "gradient_l2": float(found.gradient_l2[0]),
        "normal_l2": float(found.normal_l2[0]),
        "heatmap_l1": float(found.heatmap_l1[0]),
        "curvature": float(found.curvature[0]) if found.curvature[0].isfinite() else None,
        "topk": k,
        "topk_overlap": overlap,
        "given_by": found.winners[0],
    }
    lines = []
    for name, what, most in (
        ("gradient_l2", "gradient (l2)", ""),
        ("normal_l2", "normalised gradient (l2)", " of 2"),
        ("heatmap_l1", "heat map (l1)", " of 2"),
    ):
        given = found.winners[0][name]
        lines.append(f"  {what:<26} changes by at most {values[name]:.4g}{most}  [{given}]")
    lines.append(f"  {f'top {k} pixels':<26} at least {overlap:.0%} stay")
    where = _distance(found.radius, found.norm)
    if float(found.heatmap_l1[0]) < 2:
        sure = "" if found.confidence == 1 else f", with {found.confidence:.0%} confidence"
        lines.append(
            f"No change of the image smaller than {where} can move the heat map by more than "
            f"{_above(float(found.heatmap_l1[0]))} of 2 (l1){sure}."
        )
    else:
        lines.append(
            f"VOID: for changes of the image up to {where} nothing is proved: as far as is known "
            "the heat map may turn into any other. A smaller --radius or --method noise may help."
        )
    return values, lines


def _noise(
    found: NoiseCertificate, loaded: LoadedModel, explainer: str
) -> tuple[dict[str, Any], list[str]]:
    """The numbers from noisy copies, and what they say; the last line is the verdict."""
    rows, lines = [], []
    good: list[tuple[float, float]] = []
    label = loaded.label(int(found.label[0]))
    for index, radius in enumerate(found.radii):
        void = bool(found.void[0, index])
        row = {
            "radius": radius,
            "pcc": None if void else float(found.pcc[0, index]),
            "heatmap_l1": float(found.heatmap_l1[0, index]),
            "topk_overlap": float(found.overlap[0, index]),
            "topk_iou": float(found.iou[0, index]),
            "votes_certified": float(found.votes_certified[0, index]),
            "label_kept": bool(found.label_kept[0, index]),
        }
        rows.append(row)
        pcc = float(found.pcc[0, index])
        known = "VOID (nothing known)" if void else f"at least {_below(pcc)}"
        good += [] if void else [(radius, pcc)]
        moved = _above(float(found.heatmap_l1[0, index]))
        lines.append(
            f"  radius {radius:<8g} correlation {known}, l1 change at most {moved} of 2, "
            f"{row['topk_overlap']:.0%} of the top {found.top} "
            f"squares stay, class {'stays' if row['label_kept'] else 'may change'}"
        )
    share = float(found.label_share[0])
    lines.append(f"  {share:.0%} of the noisy copies are {label}; the smoothed map correlates with "
                 f"the plain one at {float(found.pcc_to_plain[0]):.2f}")  # fmt: skip
    what = f"the smoothed {explainer} map (noise {found.sigma:g}, squares of {found.pool} pixels)"
    sure = f"{found.confidence:.0%} confidence, {found.samples[0]} noisy copies"
    if good:
        radius, pcc = max(good)
        where = _distance(radius, found.norm)
        verdict = (
            f"No change of the image smaller than {where} can move {what} below a correlation of "
            f"{_below(pcc)} with what it is now; {sure}; of the plain map nothing is proved."
        )
    else:
        where = _distance(min(found.radii), found.norm)
        verdict = (
            f"VOID: for changes of the image up to {where} nothing is known of how {what} "
            f"correlates with what it is now ({sure}): more --samples, a smaller --radius, a "
            "larger --sigma or --pool help."
        )
    values = {
        "explainer": explainer,
        "sigma": found.sigma,
        "samples": found.samples[0],
        "pool": found.pool,
        "top": found.top,
        "voted_class": int(found.label[0]),
        "voted_share": share,
        "voted_radius": float(found.label_radius[0]),
        "pcc_to_plain": float(found.pcc_to_plain[0]),
        "radii": rows,
    }
    return values, [*lines, verdict]
