"""What the paper's two programs, ``run_attack.py`` and ``plot_expl.py``, have in common.

Their flags, defaults and file names are those of the reference implementation, so that
scripts written for it go on working.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from trompe.cli.options import make_method
from trompe.cli.pictures import Images, read_images
from trompe.errors import ImageError, PatternError, UsageError
from trompe.ordinary import refuse_odd

if TYPE_CHECKING:
    from trompe.explain import Method
    from trompe.types import LoadedModel

IMAGE, TARGET_IMAGE = "../data/collie4.jpeg", "../data/tiger_cat.jpeg"
PATTERNS = "../models/model_vgg16_pattern_small.pth"
METHODS = (
    "lrp",
    "guided_backprop",
    "gradient",
    "integrated_grad",
    "pattern_attribution",
    "grad_times_input",
)


class Parser(argparse.ArgumentParser):
    """An argument parser that complains in one line, as ``trompe`` does."""

    def error(self, message: str) -> NoReturn:
        """Raise the complaint.

        Raises:
            UsageError: always.
        """
        raise UsageError(message)


def make_parser(description: str, method: str) -> Parser:
    """A parser with the flags that both programs have; ``method`` is the default method."""
    parser = Parser(description=description)
    add = parser.add_argument
    add("--img", default=IMAGE, help="image to explain (default: %(default)s)")
    add("--cuda", action="store_true", help="compute on a GPU")
    add("--output_dir", default="../output/", help="folder for results (default: %(default)s)")
    add("--method", choices=METHODS, default=method, help="explanation (default: %(default)s)")
    add("--model", default="vgg16", help="see 'trompe models' (default: %(default)s)")
    add("--weights", help="safetensors or a checkpoint (default: torchvision's, downloaded)")
    add("--classes", help="class labels, one per line")
    add("--patterns", default=PATTERNS, help="for pattern_attribution (default: %(default)s)")
    return parser


def check_images(**paths: str) -> None:
    """Find missing images before a network is downloaded for nothing.

    Args:
        paths: by flag.

    Raises:
        ImageError: if one is missing.
    """
    for flag, path in paths.items():
        if not Path(path).exists():
            default = " (the default)" if path in (IMAGE, TARGET_IMAGE) else ""
            raise ImageError(f"no image at '{path}'{default}: name one with --{flag}")


def load(arguments: argparse.Namespace) -> LoadedModel:
    """The network that the flags choose."""
    from trompe.zoo import load_model

    return load_model(
        arguments.model,
        arguments.weights,
        classes=arguments.classes,
        device="cuda" if arguments.cuda else "cpu",
    )


def method_for(arguments: argparse.Namespace, loaded: LoadedModel) -> Method:
    """The explanation method that the flags choose.

    Raises:
        PatternError: if it needs patterns and there are none.
    """
    patterns = None
    if arguments.method == "pattern_attribution":
        patterns = arguments.patterns
        if patterns == PATTERNS and not Path(patterns).exists():
            if not loaded.patterns:
                raise PatternError(
                    f"no patterns at '{patterns}' (the default): learn them with 'trompe "
                    "patterns' and name the file with --patterns"
                )
            patterns = None
    return make_method(arguments.method, loaded, patterns=patterns)


def read(path: str, loaded: LoadedModel) -> Images:
    """One image, ready for the network."""
    return read_images([path], loaded, default=path)


def read_x(path: str, loaded: LoadedModel) -> Images:
    """A normalised image [1, 3, H, W] from a tensor file, such as ``x_METHOD.pth``.

    Raises:
        ImageError: if the file is missing, broken, or holds something else.
    """
    import torch

    refuse_odd(path, ImageError, f"'{path}'")
    try:
        x = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ImageError(f"no tensor file at '{path}': check --x") from error
    except Exception as error:  # a broken pickle raises almost anything
        raise ImageError(f"'{path}' is no tensor file of torch.save: check --x") from error
    if not isinstance(x, torch.Tensor) or x.dim() != 4 or x.shape[:2] != (1, 3):
        raise ImageError(f"'{path}' holds no image: expected a tensor [1, 3, H, W]")
    if not bool(torch.isfinite(x).all()):
        raise ImageError(f"'{path}' holds values that are not finite")
    x = x.detach().float()
    pixels = loaded.input_space.to_pixels(x)
    return Images((path,), x.to(next(loaded.model.parameters(), x).device), pixels)
