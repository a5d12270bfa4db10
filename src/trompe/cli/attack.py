"""``trompe attack``: make the explanation of an image become another one."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import trompe
from trompe.cli.attack_settings import attack_options
from trompe.cli.console import INTERRUPTED, progress_bar
from trompe.cli.options import (
    CLASS,
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
from trompe.cli.parts import part_option, preset_option
from trompe.cli.pictures import (
    DEFAULT_IMAGE,
    Target,
    is_built_in,
    read_images,
    read_target,
    with_folders,
)
from trompe.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


_EXAMPLES = """\b
Examples:
  trompe attack
  trompe attack coffee --target-text "fooled"
  trompe attack dog.jpg --target cat.jpg --model vgg16 --method lrp
  trompe attack dog.jpg --target-text "this explanation was manipulated"
"""


_NEXT = """
Next:
  trompe attack PHOTO.jpg --target OTHER.jpg   a photo of your own
  trompe attack coffee --method grad_cam       another explanation; --help lists them
  trompe explain coffee                        all explanations side by side
  trompe models                                other networks, and how to name your own
  trompe audit --help                          many images, and a report"""


@click.command(epilog=_EXAMPLES)
@click.argument("images", nargs=-1, metavar="[IMAGES]...")
@click.option("--target", metavar="FILE", help="Image whose explanation is to be copied.")
@click.option("--target-text", metavar="TEXT", help="Text that the explanation is to show.")
@click.option("--target-map", metavar="FILE", help="Map that it is to show: .npy or .png.")
@model_options
@method_option("--method", what="Explanation attacked.", default="gradient", show_default=True)
@click.option("--beta", type=Number(), help="Attack the explanation smoothed with this beta.")
@click.option("--smoothgrad", type=COUNT, metavar="N", help="Attack the mean over N noisy copies.")
@patterns_option
@click.option(
    "--class",
    "explained",
    type=CLASS,
    metavar="NUMBER",
    help="Class explained. Default: the predicted one.",
)
@part_option(
    "--objective",
    kind="objective",
    what="What becomes of the explanation.",
    default="reach_map",
    show_default=True,
)
@part_option(
    "--constraint", kind="constraint", what="Where the image must stay, in place of the preset's."
)
@part_option("--step", kind="step", what="How it moves, in place of the preset's.")
@part_option(
    "--through",
    kind="channel",
    what="What the manipulation must survive; may be given several times.",
    multiple=True,
)
@preset_option("Settings by method:")
@click.option("--iterations", type=COUNT, help="Steps, in place of the preset's.")
@click.option("--lr", type=Number(), help="Short for --step adam:RATE.")
@click.option(
    "--prefactors", nargs=2, type=Number(), metavar="C1 C2", help="Weights of map and output error."
)
@click.option(
    "--beta-growth",
    nargs=2,
    type=Number(),
    metavar="START END",
    help="Smoothing of the surrogate; for gradients, in the spread of what each layer is given.",
)
@click.option("--no-beta-growth", is_flag=True, help="Attack the network itself, no surrogate.")
@click.option(
    "--smooth-pooling",
    type=Number(0.0),
    metavar="FACTOR",
    help="Smooth the surrogate's max pooling too, with FACTOR times its beta; 0: do not.",
)
@click.option(
    "--keep-output",
    "--constant",
    type=click.Choice(["class", "softmax", "logits"]),
    default="softmax",
    show_default=True,
    help="Output that is to stay.",
)
@click.option(
    "--tolerance",
    type=Number(0.0),
    help="Largest change of a softmax or logit that a result may have. Default: any.",
)
@click.option(
    "--redraw/--no-redraw",
    default=None,
    help="Whether a method that draws masks or noise draws anew in every step. Default: masks.",
)
@click.option(
    "--capture",
    type=click.Choice(["auto", "never", "graph", "compile", "cuda-graph"]),
    default="auto",
    show_default=True,
    help="Run steps as one captured graph: where faster, never, or in this way.",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of everything random.")
@batch_option
@chunk_option
@output_option("trompe-out/attack")
@json_option
@quiet_option
def attack(
    images: tuple[str, ...],
    target: str | None,
    target_text: str | None,
    target_map: str | None,
    network: ModelOptions,
    method: str,
    patterns: str | None,
    beta: float | None,
    smoothgrad: int | None,
    seed: int,
    batch_size: int,
    chunk: int | None,
    output: Path,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> int:
    """Change images so that their explanation becomes another one.

    The change to IMAGES is imperceptible, the network's answer stays, and the explanation becomes
    the target: that of another image, a text, or a map. Folders stand for the images in them,
    cat, coffee and rocket for photos that come along. Without any argument it shows the point on
    the cat.

    Results are judged on the original network, and once more on the PNG as written. Ctrl-C ends
    the attack and keeps the best so far.
    """
    loaded = network.load()
    chosen = make_method(
        method,
        loaded,
        patterns=patterns,
        beta=beta,
        smoothgrad=smoothgrad,
        seed=seed,
        chunk=chunk,
    )
    pictures = read_images(with_folders(images), loaded, DEFAULT_IMAGE)
    options = attack_options(method=chosen, height=pictures.x.shape[-2], **settings)
    aim = None
    from trompe.attacks.objectives import takes_target

    if takes_target(options["objective"]):
        aim = read_target(target, target_text, target_map, loaded, chosen)
    elif target or target_text or target_map:
        raise UsageError(
            f"the objective {settings['objective']} aims at no map: leave the target out"
        )
    with output_folder(output) as folder:
        import torch

        from trompe.attacks import manipulate
        from trompe.report import write_attack

        start = time.perf_counter()
        with progress_bar("attack", unit="step", quiet=quiet) as progress:
            result = manipulate(
                loaded.model,
                pictures.x,
                None if aim is None else aim.map.expand(len(pictures.x), -1, -1),
                explainer=chosen,
                input_space=loaded.input_space,
                generator=torch.Generator().manual_seed(seed),
                batch_size=batch_size,
                progress=progress,
                **options,
            )
        seconds = time.perf_counter() - start
        count = len(result.x)
        metrics = write_attack(
            folder,
            result,
            model=loaded.model,
            explainer=chosen,
            input_space=loaded.input_space,
            image_names=pictures.names[:count],
            target_names=["none" if aim is None else aim.name] * count,
            labels=loaded.classes,
            run={
                "method": method,
                "beta": beta,
                "smoothgrad": smoothgrad,
                "model": network.model,
                "weights": network.spec.weights,
                "preset": settings["preset"],
                "objective": settings["objective"],
                "iterations": result.iterations,
                "seconds": seconds,
                "seconds_per_iteration": seconds / max(result.iterations, 1),
                "device": str(pictures.x.device),
                "seed": seed,
                "version": trompe.__version__,
                "stopped": result.stopped,
                "settings": dict(result.provenance),
            },
            target_pixels=_repeated(aim, count),
        )
    if as_json:
        click.echo(json.dumps(metrics, indent=2))
    elif not quiet:
        from trompe.report.attack_words import attack_in_words

        if aim is not None:  # a picture's map, or what was written or drawn
            click.echo(f"Target: {'' if aim.pixels is None else 'the map of '}{aim.name}")
        click.echo(attack_in_words(metrics, loaded, folder))
        if all(map(is_built_in, pictures.names)):
            click.echo(_NEXT)
    return INTERRUPTED if result.stopped == "interrupted" else 0


def _repeated(aim: Target | None, count: int) -> Tensor | None:
    """The target's picture once per image."""
    return None if aim is None or aim.pixels is None else aim.pixels.expand(count, -1, -1, -1)
