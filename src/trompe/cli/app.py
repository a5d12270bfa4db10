"""``trompe app``: the live page."""

from __future__ import annotations

import click

from trompe.cli.options import DEFAULT_MODEL

_MODELS = (DEFAULT_MODEL, "tiny-vgg", "tiny-resnet")


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address listened at; by default only this machine reaches it.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    help="Port listened at. Default: the first free one from 7860 on.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="A network offered first, such as timm:NAME; may be given several times.",
)
@click.option(
    "--device", metavar="[cpu|cuda|auto]", default="cpu", show_default=True,
    help="Where to compute.",
)  # fmt: skip
def app(host: str, port: int | None, models: tuple[str, ...], device: str) -> None:
    """Open a page where an explanation is changed while you watch.

    Choose a photo, draw what its explanation shall show, press Start. Needs gradio (the extra
    'app'). Ctrl-C ends it.
    """
    from trompe.app.serve import is_loopback, serve

    names = list(dict.fromkeys((*models, *_MODELS)))
    address, page = serve(names, host=host, port=port, device=device, block=False)
    click.echo(f"The page is at {address} (Ctrl-C ends it)")
    if not is_loopback(host):
        click.echo("Everybody who reaches this machine can use it.", err=True)
    page.block_thread()
