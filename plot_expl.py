"""The paper's second program: plot an explanation, plain and smoothed.

Flags, defaults and file names are those of the reference implementation; the work is done by
trompe, which 'trompe explain' gives more control over. Writes expls_METHOD.png.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from trompe.cli.console import guarded, set_up_logging
from trompe.cli.options import output_folder
from trompe.cli.reference import check_images, load, make_parser, method_for, read, read_x


def main() -> None:
    """Run the program."""
    parser = make_parser("Plot an explanation, plain and smoothed.", method="gradient")
    add = parser.add_argument
    add("--x", default="", help="tensor file to explain in place of an image, as x_METHOD.pth")
    add("--betas", nargs="+", type=float, default=[10, 3, 1], help="(default: %(default)s)")
    arguments = parser.parse_args()
    if not arguments.x:
        check_images(img=arguments.img)

    import torch

    from trompe.engine import smooth
    from trompe.report import reference_explanations
    from trompe.types import heatmap

    loaded = load(arguments)
    model = loaded.model
    method = method_for(arguments, loaded)
    image = read_x(arguments.x, loaded) if arguments.x else read(arguments.img, loaded)
    with torch.no_grad():
        predicted = model(image.x).argmax(dim=1)
    networks = [model, *(smooth(model, beta=beta) for beta in arguments.betas)]
    maps = [heatmap(method(network, image.x, predicted))[0] for network in networks]
    with output_folder(Path(arguments.output_dir)) as folder:
        figure = folder / f"expls_{arguments.method}.png"
        reference_explanations(figure, image.pixels[0], maps, arguments.betas)
    click.echo(f"Figure: {figure}")


if __name__ == "__main__":
    set_up_logging(logging.WARNING)
    sys.exit(guarded(main))
