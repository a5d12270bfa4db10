"""Classifiers of timm and of Hugging Face's transformers, with their own preprocessing."""

from __future__ import annotations

import difflib
import importlib
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from trompe.errors import ModelError
from trompe.types import IMAGENET_MEAN, IMAGENET_STD
from trompe.zoo.record import ModelRecord

_LOG = logging.getLogger(__name__)
_PILLOW = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the interpolations, which configurations of transformers hold."""


def _library(name: str) -> Any:
    """An optional library.

    Raises:
        ModelError: if it is missing or broken, with the way to install it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModelError(f"{name} is not installed: pip install {name}") from error
    except Exception as error:  # a library for another torch fails in several ways
        raise ModelError(f"{name} cannot be imported ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _smooth(name: object) -> str:
    """The interpolation called so; bicubic for what is drawn at random or unknown."""
    return str(name) if str(name) in _PILLOW.values() else "bicubic"


def timm_record(name: str, channels: int | None = None) -> ModelRecord:
    """The record of a model of timm.

    Args:
        name: as ``timm.create_model`` takes it, such as ``resnet18.a1_in1k``.
        channels: of its input, if not as published.

    Raises:
        ModelError: if timm is missing or has no such model.
    """
    timm = _library("timm")
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() lists them"
        raise ModelError(f"timm has no model '{name}': {hint}")
    published = timm.get_pretrained_cfg(name)
    config = timm.data.resolve_data_config(pretrained_cfg=published.to_dict())
    own = config["input_size"][0]
    wanted = own if channels is None else channels
    size = config["input_size"][1]

    def create(**options: Any) -> nn.Module:
        try:
            model: nn.Module = timm.create_model(name, in_chans=wanted, **options)
        except Exception as error:
            raise ModelError(
                f"timm cannot make '{name}' ({_reason(error)}): give a file with --weights, or "
                "'random'"
            ) from error
        return model

    def labels() -> tuple[str, ...]:
        subset = timm.data.infer_imagenet_subset(create(pretrained=False))
        if subset is None:
            return ()
        info = timm.data.ImageNetInfo(subset)
        return tuple(info.index_to_description(k) for k in range(info.num_classes()))

    return ModelRecord(
        name=f"timm:{name}",
        source="timm",
        build=lambda outputs: create(pretrained=False, num_classes=outputs),
        outputs=published.num_classes,
        size=size,
        resize=math.floor(size / config["crop_pct"]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=_smooth(config["interpolation"]),
        state=lambda: create(pretrained=True).state_dict(),
        labels=labels,
        with_channels=lambda count: timm_record(name, count),
    )


def hugging_face_record(name: str, channels: int | None = None) -> ModelRecord:
    """The record of an image classifier of Hugging Face; no code that comes with it is run.

    Where its processor squeezes an image into a square, the centre of the image is taken instead.

    Args:
        name: of a folder that ``save_pretrained`` wrote, or of a model on the hub.
        channels: of its input, if not as published.

    Raises:
        ModelError: if transformers is missing, or there is no such classifier.
    """
    transformers = _library("transformers")
    local = {"local_files_only": True} if Path(name).is_dir() else {}
    try:
        config = transformers.AutoConfig.from_pretrained(name, **local)
    except Exception as error:
        raise ModelError(
            f"there is no model 'hf:{name}' ({_reason(error)}): give a folder that "
            "save_pretrained wrote, or the name of a model on the hub"
        ) from error
    if channels is not None:
        config.num_channels = channels
    how = _processing(transformers, name, local, config)
    kind = transformers.AutoModelForImageClassification

    def build(outputs: int) -> nn.Module:
        config.num_labels = outputs
        try:
            model: nn.Module = kind.from_config(config)
        except Exception as error:
            raise ModelError(
                f"model 'hf:{name}' is no image classifier ({_reason(error)})"
            ) from error
        return model

    def state() -> Mapping[str, Tensor]:
        options = {} if channels is None else {"config": config}
        try:
            weights: Mapping[str, Tensor] = kind.from_pretrained(
                name, **options, **local
            ).state_dict()
        except Exception as error:
            raise ModelError(
                f"the weights of 'hf:{name}' cannot be read ({_reason(error)})"
            ) from error
        return weights

    def labels() -> tuple[str, ...]:
        known = tuple(str(config.id2label[k]) for k in range(len(config.id2label)))
        return () if all(label.startswith("LABEL_") for label in known) else known

    return ModelRecord(
        name=f"hf:{name}",
        source="hugging face",
        build=build,
        outputs=config.num_labels,
        state=state,
        labels=labels,
        with_channels=lambda count: hugging_face_record(name, count),
        **how,
    )


def _processing(
    transformers: Any, name: str, local: Mapping[str, Any], config: Any
) -> dict[str, Any]:
    """Size, resize, mean, std and interpolation of a model on Hugging Face."""
    try:
        found = transformers.AutoImageProcessor.from_pretrained(name, **local).to_dict()
    except Exception as error:
        _LOG.warning(
            "'hf:%s' does not say how its images are prepared (%s): taken as ImageNet's, give "
            "--mean, --std and --size if they are not",
            name,
            _reason(error),
        )
        found = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
    scale = found.get("rescale_factor") or 1 / 255
    if not found.get("do_rescale", True) or not math.isclose(scale, 1 / 255, rel_tol=1e-3):
        raise ModelError(
            f"'hf:{name}' does not take pixels 0..1: wrap it in a function of your own, "
            "package.module:function"
        )
    shown = dict(found.get("size") or {})
    given = getattr(config, "image_size", None)
    usual = given if isinstance(given, int) else 224
    side = shown.get("shortest_edge") or shown.get("height") or usual
    size, resize = side, side
    if found.get("crop_pct") and side < 384:  # ConvNeXt's: the size is that after the crop
        resize = int(side / found["crop_pct"])
    elif found.get("do_center_crop") and found.get("crop_size"):
        crop = found["crop_size"]
        size = crop if isinstance(crop, int) else crop.get("height", side)
    if found.get("do_resize") is False:
        size = resize = usual
    normalised = found.get("do_normalize", True)
    mean = tuple(found["image_mean"]) if normalised else (0.0,)
    std = tuple(found["image_std"]) if normalised else (1.0,)
    channels = getattr(config, "num_channels", 3)
    if len(mean) != channels and len(set(mean)) == len(set(std)) == 1:
        mean, std = mean[:1] * channels, std[:1] * channels
    return {
        "size": size,
        "resize": max(size, resize),
        "mean": mean,
        "std": std,
        "interpolation": _PILLOW.get(int(found.get("resample") or 2), "bilinear"),
    }
