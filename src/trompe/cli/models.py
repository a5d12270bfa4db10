"""``trompe models``: the networks that can be loaded by name."""

from __future__ import annotations

import json

import click

from trompe.cli.options import json_option


@click.command()
@json_option
def models(as_json: bool) -> None:
    """List the networks that can be loaded by name."""
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
    weights = {
        "embedded": "embedded",
        "torchvision": "torchvision, downloaded",
        "a file": "none: give --weights",
    }
    click.echo(f"{'name':<22}{'pixels':>7}{'classes':>9}  weights")
    for record in records:
        source = weights[record.source]
        click.echo(f"{record.name:<22}{record.size:>7}{record.outputs:>9}  {source}")
