"""Options that several commands share, and the objects made of them."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from trompe.cli.console import be_quiet
from trompe.cli.numbers_option import Numbers
from trompe.cli.output_path import OutputPath
from trompe.cli.parts import PartName, shipped
from trompe.cli.patterns_file import patterns_option as patterns_option

if TYPE_CHECKING:
    from trompe.explain import Method
    from trompe.types import LoadedModel
    from trompe.zoo.spec import ModelSpec

DEFAULT_MODEL, SMALL_MODEL = "efficientnet-lite0", "tiny-vgg"
"""A real ImageNet network; and one for work that grows steeply with the network."""

Command = TypeVar("Command", bound=Callable[..., Any])


class Number(click.ParamType):  # type: ignore[type-arg]  # newer clicks have one
    """A finite number within bounds: neither NaN nor infinity, which no comparison stops.

    Args:
        least: allowed.
        most: allowed.
        above: whether it must be larger than ``least``.
        below: whether it must be smaller than ``most``.
    """

    name = "float"

    def __init__(
        self,
        least: float = -1e30,
        most: float = 1e30,
        *,
        above: bool = False,
        below: bool = False,
    ) -> None:
        self.least, self.most, self.above, self.below = least, most, above, below

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See ``click.ParamType``."""
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            self.fail(f"'{value}' is no number", param, ctx)
        if self.above and number == self.least:
            self.fail(f"{value} must be larger than {self.least:g}", param, ctx)
        if self.below and number == self.most:
            self.fail(f"{value} must be smaller than {self.most:g}", param, ctx)
        if not self.least <= number <= self.most:  # so written, it stops NaN too
            self.fail(f"{value} is not within {self.least:g} and {self.most:g}", param, ctx)
        if 0 < abs(number) < 1e-30:  # its inverse is no number of 32 bits
            self.fail(f"{value} is too close to 0: give 0, or at least 1e-30", param, ctx)
        return number


#: More threads or processes than a machine can have would bring it down.
MANY = click.IntRange(1, max(64, os.cpu_count() or 1))
#: Random number generators take no larger seeds.
SEED = click.IntRange(0, 2**32 - 1)
#: Counts of steps, images or copies.
COUNT = click.IntRange(1, 10_000_000)
#: Classes of a network; a tensor holds no larger number than its index type does.
CLASS = click.IntRange(0, 10_000_000)
#: Probabilities that are neither impossible nor certain.
PROBABILITY = Number(0.0, 1.0, above=True, below=True)
#: Pictures in an animation, and how long it runs, in seconds.
FRAMES, SECONDS = click.IntRange(2, 10_000), Number(0.1, 3600.0)
#: Sides of images, in pixels.
SIDE = click.IntRange(1, 8192)


def method_option(*names: str, what: str, **settings: Any) -> Callable[[Command], Command]:
    """The option that names explanation methods; ``what`` the command does with them."""
    choices = ", ".join(shipped("method"))
    return click.option(
        *names,
        type=PartName("method"),
        metavar="NAME",
        help=f"{what} One of {choices}; also by usual names, such as ig or saliency.",
        **settings,
    )


@dataclass(frozen=True)
class ModelOptions:
    """Which network, as the options say, and where it computes.

    Args:
        spec: the network.
        device: where it computes.
        threads: of the CPU; torch's choice if not given.
    """

    spec: ModelSpec
    device: str
    threads: int | None

    @property
    def model(self) -> str:
        """Name of the network."""
        return self.spec.name

    def load(self) -> LoadedModel:
        """Load it."""
        import torch

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return self.spec.load(self.device)


outputs_option = click.option(
    "--outputs",
    type=click.Choice(["classes", "binary", "labels", "probabilities", "value"]),
    help="What the outputs mean. Default: found, and said; labels and values have to be named.",
)
mean_option = click.option(
    "--mean",
    cls=Numbers,
    type=Number(),
    multiple=True,
    metavar="NUMBER...",
    help="Mean of the normalisation: a number per channel, or one for all.",
)
std_option = click.option(
    "--std",
    cls=Numbers,
    type=Number(),
    multiple=True,
    metavar="NUMBER...",
    help="Its standard deviation.",
)
_MODEL_OPTIONS = (
    click.option(
        "--weights",
        metavar="FILE",
        help="Safetensors or a checkpoint; 'random' for none. Default: the model's own.",
    ),
    click.option("--classes", metavar="FILE", help="Class labels, one per line."),
    mean_option,
    std_option,
    click.option("--size", type=SIDE, help="Height and width of the input."),
    click.option(
        "--num-classes", type=click.IntRange(1, 1_000_000), help="Number of the network's outputs."
    ),
    outputs_option,
    click.option(
        "--device",
        metavar="[cpu|cuda|auto]",
        default="cpu",
        show_default=True,
        help="Where to compute.",
    ),
    click.option("--threads", type=MANY, help="CPU threads. Default: torch's choice."),
)


def model_options(function: Command) -> Command:
    """Add the options that choose a network; the command gets them as ``network``."""
    return _with_model_options(function, DEFAULT_MODEL)


def small_model_options(function: Command) -> Command:
    """The same, with a small network as the default."""
    return _with_model_options(function, SMALL_MODEL)


def _with_model_options(function: Command, default: str) -> Command:
    @functools.wraps(function)
    def wrapped(**values: Any) -> Any:
        from trompe.zoo.spec import ModelSpec

        fields = [field.name for field in dataclasses.fields(ModelSpec) if field.name != "name"]
        spec = ModelSpec(values.pop("model"), **{name: values.pop(name) for name in fields})
        device, threads = values.pop("device"), values.pop("threads")
        return function(network=ModelOptions(spec, device, threads), **values)

    named = click.option(
        "--model",
        metavar="NAME",
        default=default,
        show_default=True,
        envvar="TROMPE_MODEL",
        help="A name that 'trompe models' lists, timm:NAME, hf:FOLDER, or "
        "package.module:function of your own. "
        "TROMPE_MODEL in the environment is another default.",
    )
    for option in reversed((named, *_MODEL_OPTIONS)):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


def _hush(context: click.Context, option: click.Parameter, quiet: bool) -> bool:
    if quiet:
        be_quiet()
    return quiet


batch_option = click.option(
    "--batch-size",
    type=COUNT,
    default=4,
    show_default=True,
    help="Images worked on at once.",
)
chunk_option = click.option(
    "--chunk",
    type=COUNT,
    metavar="N",
    help="Copies held in memory at once, of explanations that average over many.",
)
target_class_option = click.option(
    "--target-class", type=CLASS, metavar="K", help="Class explained. Default: the predicted one."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
quiet_option = click.option(
    "--quiet",
    is_flag=True,
    callback=_hush,
    help="Print nothing but errors (and JSON, if asked for).",
)


def output_option(default: str) -> Callable[[Command], Command]:
    """The folder for the results; files of other names in it are left alone."""
    return click.option(
        "--output",
        type=OutputPath(),
        metavar="FOLDER",
        default=default,
        show_default=True,
        help="Folder for the results; files of the same name are replaced.",
    )


@contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """The folder ``path``, made if needed; folders made are removed if nothing comes of it."""
    from trompe.report import prepare_output

    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    prepare_output(path)
    try:
        yield path
    except BaseException:
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def make_method(
    name: str,
    loaded: LoadedModel,
    *,
    patterns: str | None = None,
    beta: float | None = None,
    smoothgrad: int | None = None,
    seed: int = 0,
    chunk: int | None = None,
) -> Method:
    """An explanation method for a model, as the options say.

    Args:
        name: of the method.
        loaded: the model.
        patterns: file of learned patterns, in place of those that come with the model.
        beta: explain the model smoothed with it.
        smoothgrad: average over this number of noisy copies.
        seed: of their noise.
        chunk: how many copies are held in memory at once, where a method averages over many.

    Raises:
        TrompeError: if an option is out of range or the patterns cannot be used.
    """
    from trompe.geometry import smoothed_method

    smoothing = None
    if beta is not None or smoothgrad is not None:
        smoothing = smoothed_method.Smoothing(beta=beta, samples=smoothgrad)
    return smoothed_method.make_method(
        name, loaded, smoothing=smoothing, patterns=patterns, seed=seed, chunk=chunk
    )
