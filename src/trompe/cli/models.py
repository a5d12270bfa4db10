"""``trompe models``: the networks that can be loaded by name."""

from __future__ import annotations

import dataclasses
import json

import click

from trompe.cli.console import progress_bar
from trompe.cli.options import (
    SIDE,
    json_option,
)
from trompe.errors import UsageError

_OTHERS = """
Others:
  --model timm:NAME                 any model of timm (pip install timm)
  --model hf:FOLDER or hf:NAME      an image classifier of Hugging Face (pip install transformers)
  --model package.module:function   your own, which returns a torch.nn.Module"""


@click.command()
@click.option("--check", metavar="NAME", help="Try every method on this network instead.")
@click.option("--size", type=SIDE, metavar="N", help="Height and width for --check, in pixels.")
@click.option("--weights", metavar="FILE", help="Of the network for --check; 'random' for none.")
@json_option
def models(check: str | None, size: int | None, weights: str | None, as_json: bool) -> None:
    """List the networks that can be loaded by name, or check what explains one of them."""
    if check is not None:
        _check(check, weights, size, as_json)
        return
    if size is not None or weights is not None:
        raise UsageError("--size and --weights go with --check: name a network")
    from trompe.zoo import find_record, model_names

    records = [find_record(name) for name in model_names()]
    if as_json:
        table = [
            {
                "name": record.name,
                "size": record.size,
                "resize": record.resize,
                "classes": record.outputs,
                "weights": record.source,
                "embedded": record.source == "embedded",
            }
            for record in records
        ]
        click.echo(json.dumps(table, indent=2))
        return
    sources = {
        "installed": "installed with trompe",
        "embedded": "embedded",
        "torchvision": "torchvision, downloaded",
        "a file": "none: give --weights",
    }
    click.echo(f"{'name':<22}{'pixels':>7}{'classes':>9}  weights")
    for record in records:
        source = sources[record.source]
        click.echo(f"{record.name:<22}{record.size:>7}{record.outputs:>9}  {source}")
    click.echo(_OTHERS)


def _check(name: str, weights: str | None, size: int | None, as_json: bool) -> None:
    """Print the coverage of a network, with random weights where its own are not at hand."""
    import torch

    from trompe.cli.coverage import check
    from trompe.zoo import find_record, is_function, load_model

    at_hand = ("embedded", "installed", "hugging face")
    known = weights or is_function(name) or find_record(name).source in at_hand
    loaded = load_model(name, weights if known else "random", size=size)
    pixels = torch.rand(
        1,
        len(loaded.input_space.mean),
        loaded.size,
        loaded.size,
        generator=torch.Generator().manual_seed(0),
    )
    with progress_bar("check", unit="method", quiet=as_json) as progress:
        rows = check(loaded.model, loaded.input_space.from_pixels(pixels), progress=progress)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
        return
    click.echo(f"{'method':<30}{'status':<13}{'map / logit':<13}error of the derivative")
    for row in rows:
        detail = row.reason if row.derivative_error is None else f"{row.derivative_error:.0e}"
        share = "" if row.magnitude is None else f"{row.magnitude:.3g}"
        click.echo(f"{row.method:<30}{row.status:<13}{share:<13}{detail}")
