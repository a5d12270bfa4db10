"""``trompe explain``: heat maps of several methods, plain and smoothed, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import trompe
from trompe.cli.console import log, progress_bar
from trompe.cli.options import (
    COUNT,
    SEED,
    ModelOptions,
    Number,
    batch_option,
    json_option,
    make_method,
    method_option,
    model_options,
    output_folder,
    output_option,
    patterns_option,
    quiet_option,
    target_class_option,
)
from trompe.cli.pictures import DEFAULT_IMAGE, Images, classes_of, read_images, with_folders
from trompe.cli.tangents import along_tangents, tangents_option
from trompe.errors import ExplanationError, PatternError, TrompeError, UnsupportedOp

if TYPE_CHECKING:
    from torch import Tensor

    from trompe.explain import Method
    from trompe.types import LoadedModel

DEFAULT_BETAS = (10.0, 3.0, 1.0)


_EXAMPLES = """\b
Examples:
  trompe explain dog.jpg --method lrp --method gradient
  trompe explain dog.jpg --model resnet18 --method lrp --beta 1
  trompe explain dog.jpg --model tiny-vgg
"""


@click.command(epilog=_EXAMPLES)
@click.argument("images", nargs=-1, metavar="[IMAGES]...")
@model_options
@method_option(
    "--method",
    "methods",
    multiple=True,
    what="Repeat for several; default: all that the network allows, "
    "which takes many minutes on a large one.",
)
@click.option(
    "--beta",
    "betas",
    type=Number(),
    multiple=True,
    help="Of the softplus network; repeat for several.  [default: 10, 3, 1]",
)
@click.option("--smoothgrad", type=COUNT, metavar="N", help="Average all over N noisy copies.")
@tangents_option
@patterns_option
@target_class_option
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of SmoothGrad's noise.")
@batch_option
@output_option("trompe-out/explain")
@json_option
@quiet_option
def explain(
    images: tuple[str, ...],
    network: ModelOptions,
    methods: tuple[str, ...],
    betas: tuple[float, ...],
    smoothgrad: int | None,
    tangents: str | None,
    patterns: str | None,
    target_class: int | None,
    seed: int,
    batch_size: int,
    output: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Explain images by several methods, plain and smoothed.

    Shows what the network's answer for IMAGES rests on, for the network as it is (ReLU) and with
    its kinks smoothed (softplus; the smaller beta, the smoother).
    """
    import torch

    loaded = network.load()
    pictures = read_images(with_folders(images), loaded, DEFAULT_IMAGE)
    with torch.no_grad():
        logits = torch.cat([loaded.model(x) for x in pictures.x.split(batch_size)])
    target = classes_of(logits, target_class)
    strengths = (None, *(betas or DEFAULT_BETAS))
    shown_by = along_tangents(tangents, loaded)
    maps: dict[str, list[Tensor]] = {}
    left_out: dict[str, TrompeError] = {}
    names = methods or _base_methods()
    with progress_bar("explain", unit="map", quiet=quiet) as progress:
        for at, name in enumerate(names):
            rows: list[Tensor] = []
            try:
                for beta in strengths:
                    method = make_method(
                        name,
                        loaded,
                        patterns=patterns,
                        beta=beta,
                        smoothgrad=smoothgrad,
                        seed=seed,
                    )
                    rows.append(_maps(shown_by(method), loaded, pictures.x, target, batch_size))
                    if progress is not None:
                        done = at * len(strengths) + len(rows)
                        progress(done, len(names) * len(strengths), {})
                maps[name] = rows
            except (ExplanationError, PatternError, UnsupportedOp) as error:
                if methods:
                    raise
                left_out[name] = error
    _say_left_out(left_out)
    if not maps:
        raise ExplanationError(f"no method can explain {network.model}")
    report = _report(loaded, pictures, logits, target, maps, strengths)
    report["run"]["tangents"] = tangents
    with output_folder(output) as folder:
        figures = _write(folder, loaded, pictures, logits, target, maps, strengths, report)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    elif not quiet:
        for figure in figures:
            click.echo(f"Figure: {figure}")


def _base_methods() -> list[str]:
    """The methods that do not wrap another one: those are options here."""
    import dataclasses

    from trompe.explain import explainers

    def wraps(name: str) -> bool:
        return "base" in {field.name for field in dataclasses.fields(explainers[name])}

    return [name for name in explainers if not wraps(name)]


def _say_left_out(errors: dict[str, TrompeError]) -> None:
    """Say which methods are left out and why, each reason once.

    That a network without attention has no attention rollout is no news.
    """
    reasons: dict[str, list[str]] = {}
    for name, error in errors.items():
        if name == "attention_rollout" and isinstance(error, UnsupportedOp):
            log.debug("%s is left out: %s", name, error)
        else:
            reasons.setdefault(str(error).removeprefix(f"{name} "), []).append(name)
    for reason, names in reasons.items():
        log.warning("left out: %s (%s)", ", ".join(names), reason)


def _maps(method: Method, loaded: LoadedModel, x: Tensor, target: Tensor, batch: int) -> Tensor:
    """Heat maps [B, H, W] on the CPU."""
    import torch

    parts = zip(x.split(batch), target.split(batch), strict=True)
    return torch.cat(
        [trompe.heatmap(method(loaded.model, some, classes)).cpu() for some, classes in parts]
    )


def _key(method: str, beta: float | None) -> str:
    return method if beta is None else f"{method}.beta{beta:g}"


def _report(
    loaded: LoadedModel,
    pictures: Images,
    logits: Tensor,
    target: Tensor,
    maps: dict[str, list[Tensor]],
    strengths: tuple[float | None, ...],
) -> dict[str, Any]:
    """What ``explanations.json`` holds."""
    outputs = loaded.outputs
    probability, answers = outputs.probabilities(logits), outputs.answer(logits)
    entries = []
    for index, name in enumerate(pictures.names):
        explained, predicted = int(target[index]), int(answers[index])
        likeness = {
            _key(method, beta): float(trompe.metrics.pcc(heat[index][None], rows[0][index][None]))
            for method, rows in maps.items()
            for beta, heat in zip(strengths, rows, strict=True)
        }
        entries.append(
            {
                "image": name,
                "class_predicted": predicted,
                "label_predicted": loaded.answer_label(predicted),
                "class_explained": explained,
                "label_explained": loaded.label(explained),
                "probability": float(probability[index, explained]),
                "pcc_to_relu_map": likeness,
            }
        )
    return {
        "run": {
            "model": loaded.name,
            "outputs": loaded.outputs.meaning,
            "methods": list(maps),
            "betas": [beta for beta in strengths if beta is not None],
            "version": trompe.__version__,
        },
        "images": entries,
    }


def _write(
    folder: Path,
    loaded: LoadedModel,
    pictures: Images,
    logits: Tensor,
    target: Tensor,
    maps: dict[str, list[Tensor]],
    strengths: tuple[float | None, ...],
    report: dict[str, Any],
) -> list[Path]:
    """Write a figure per image, all maps, and the report; returns the figures' paths."""
    from safetensors.torch import save_file

    from trompe.atomic import atomic_path
    from trompe.report import save_explanations
    from trompe.report.files import safe_names

    betas = [beta for beta in strengths if beta is not None]
    figures = []
    for index, name in enumerate(safe_names(pictures.names)):
        figures.append(folder / f"{name}_explanations.png")
        rows = {method: [heat[index] for heat in heats] for method, heats in maps.items()}
        title = loaded.label(int(target[index]))
        if loaded.outputs.meaning != "classes":
            title = f"{title} (the model says {loaded.outputs.said(logits[index], loaded.classes)})"
        save_explanations(figures[-1], pictures.pixels[index], rows, betas, title=title)
    tensors = {
        _key(method, beta): heat.float().contiguous()
        for method, heats in maps.items()
        for beta, heat in zip(strengths, heats, strict=True)
    }
    with atomic_path(folder / "maps.safetensors") as temporary:
        save_file(tensors, temporary)
    with atomic_path(folder / "explanations.json") as temporary:
        temporary.write_text(f"{json.dumps(report, indent=2)}\n", encoding="utf-8")
    return figures
