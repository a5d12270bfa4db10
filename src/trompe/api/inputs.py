"""What the functions share: models and images by name or as they are."""

from __future__ import annotations

import os
from collections.abc import Sequence

from trompe.cli.options import DEFAULT_MODEL
from trompe.errors import UsageError
from trompe.given import in_short
from trompe.types import LoadedModel
from trompe.zoo import load_model

Images = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None
"""Files, folders or names of photos that come along; ``None`` for the usual ones."""


def usual_model() -> str:
    """The model that is taken where none is named.

    Like the command line it takes another usual model from ``TROMPE_MODEL`` in the environment.
    """
    return os.environ.get("TROMPE_MODEL") or DEFAULT_MODEL


def loaded_model(model: str | LoadedModel | None) -> LoadedModel:
    """The model of a name, the model itself, or the usual one."""
    if isinstance(model, LoadedModel):
        return model
    if model is not None and not isinstance(model, str):
        raise UsageError(f"model must be a name or a LoadedModel, not {in_short(model)}")
    return load_model(model or usual_model())


def named_images(images: Images) -> list[str]:
    """The names as the command line takes them."""
    if images is None:
        return []
    if isinstance(images, str | os.PathLike):
        return [os.fspath(images)]
    try:
        return [os.fspath(image) for image in images]
    except (TypeError, NotImplementedError) as error:
        raise UsageError(
            f"images must be files, folders or names, not {in_short(images)}: manipulate takes "
            "tensors"
        ) from error
