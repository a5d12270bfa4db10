"""What ``trompe harden`` and ``trompe fool`` have in common: the images and the steps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from trompe.cli.options import COUNT, SEED, Number

if TYPE_CHECKING:
    from trompe.training import LabelledImages
    from trompe.types import LoadedModel


@dataclass(frozen=True)
class TrainingSettings:
    """The options; ``data`` are the labelled images, ``limit`` how many of them at most."""

    data: str
    epochs: int
    rate: float
    batch_size: int
    limit: int | None
    seed: int

    def images(self, loaded: LoadedModel) -> LabelledImages:
        """The labelled images, for a model that can be trained on them."""
        from trompe.training import check_trainable, read_labelled

        check_trainable(loaded.model)
        return read_labelled(
            self.data, loaded, batch_size=self.batch_size, seed=self.seed, most=self.limit
        )


def training_options(*, epochs: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options, handed on as ``training``; so many epochs if not said otherwise."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(**values: Any) -> Any:
            own = {field.name: values.pop(field.name) for field in fields(TrainingSettings)}
            return function(**values, training=TrainingSettings(**own))

        for option in reversed(
            (
                click.option(
                    "--data",
                    required=True,
                    metavar="PATH",
                    help="Labelled images to train with: a folder with a folder per class, or an "
                    ".npz.",
                ),
                click.option(
                    "--epochs",
                    type=COUNT,
                    default=epochs,
                    show_default=True,
                    help="Over all images.",
                ),
                click.option(
                    "--rate",
                    type=Number(0, 1, above=True),
                    default=3e-4,
                    show_default=True,
                    help="Learning rate of AdamW in the beginning.",
                ),
                click.option(
                    "--batch-size",
                    type=COUNT,
                    default=32,
                    show_default=True,
                    help="Images per step.",
                ),
                click.option(
                    "--limit",
                    type=COUNT,
                    metavar="N",
                    help="Take so many of the images, evenly spaced.",
                ),
                click.option(
                    "--seed",
                    type=SEED,
                    default=0,
                    show_default=True,
                    help="Of everything random.",
                ),
            )
        ):
            wrapped = option(wrapped)
        return wrapped

    return add
