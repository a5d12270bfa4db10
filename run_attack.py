"""The paper's first program: manipulate the explanation of an image.

Flags, defaults and file names are those of the reference implementation; the work is done by
trompe, which 'trompe attack' gives more control over. Writes overview_METHOD.png and
x_METHOD.pth.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from pathlib import Path

import click

from trompe.cli.console import INTERRUPTED, guarded, progress_bar, set_up_logging
from trompe.cli.options import output_folder
from trompe.cli.reference import TARGET_IMAGE, check_images, load, make_parser, method_for, read
from trompe.report.attack_words import image_in_words


def main() -> int:
    """Run the program; returns the exit code."""
    parser = make_parser("Manipulate the explanation of an image.", method="lrp")
    add = parser.add_argument
    add("--num_iter", type=int, default=1500, help="iterations (default: %(default)s)")
    add("--target_img", default=TARGET_IMAGE, help="gives the target (default: %(default)s)")
    add("--lr", type=float, default=0.0002, help="learning rate (default: %(default)s)")
    add("--beta_growth", action="store_true", help="smooth the surrogate, beta from 10 to 100")
    add("--prefactors", nargs=2, type=float, default=[1e11, 1e6], help="of map and output error")
    arguments = parser.parse_args()
    check_images(img=arguments.img, target_img=arguments.target_img)

    import torch

    from trompe.atomic import atomic_path
    from trompe.attacks import Adam, manipulate, preset_for
    from trompe.report import image_metrics, reference_overview
    from trompe.types import heatmap

    loaded = load(arguments)
    model, space = loaded.model, loaded.input_space
    method = method_for(arguments, loaded)
    image, target = read(arguments.img, loaded), read(arguments.target_img, loaded)
    with torch.no_grad():
        predicted = model(target.x).argmax(dim=1)
    target_map = heatmap(method(model, target.x, predicted))

    settings = dataclasses.replace(
        preset_for("paper", method, image.x.shape[-2]),
        iterations=arguments.num_iter,
        step=Adam(arguments.lr),
        prefactors=tuple(arguments.prefactors),
        beta_start=10.0 if arguments.beta_growth else None,
        beta_end=100.0,
    )
    with output_folder(Path(arguments.output_dir)) as folder:
        with progress_bar("attack", unit="step", quiet=False) as progress:
            result = manipulate(
                model,
                image.x,
                target_map,
                explainer=method,
                input_space=space,
                preset=settings,
                progress=progress,
            )
        overview = folder / f"overview_{arguments.method}.png"
        reference_overview(overview, result, space, target_pixels=target.pixels[0])
        with atomic_path(folder / f"x_{arguments.method}.pth") as temporary:
            torch.save(result.x_adv, temporary)
    names = {"image_names": [arguments.img], "target_names": [arguments.target_img]}
    (entry,) = image_metrics(result, space, **names)
    click.echo("\n".join([*image_in_words(entry, loaded), f"Figure: {overview}"]))
    return INTERRUPTED if result.stopped == "interrupted" else 0


if __name__ == "__main__":
    set_up_logging(logging.WARNING)
    sys.exit(guarded(main))
