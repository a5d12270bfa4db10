"""Make the gallery of the documentation: manipulated photos, method by method.

    python scripts/make_gallery.py [NAME ...]     # all by default; some minutes on a CPU

Each picture goes to ``docs/figures/gallery/NAME.jpg`` and its figures to
``benchmarks/results/gallery.json``, from which ``scripts/render_readme.py`` writes the page. The
network is EfficientNet-Lite0 with its real ImageNet weights, the photos are those that come along.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import trompe
from trompe.report import image_metrics
from trompe.types import AttackResult, LoadedModel, heatmap
from trompe.zoo.images import default_images
from trompe.zoo.targets import text_map

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "figures" / "gallery"
RESULTS = ROOT / "benchmarks" / "results" / "gallery.json"
MODEL = "efficientnet-lite0"


def text(words: str) -> Callable[[LoadedModel, Any], Tensor]:
    """The words as a map."""
    return lambda net, _: text_map(words, net.size, net.size)


def map_of(photo: str) -> Callable[[LoadedModel, Any], Tensor]:
    """The map of another photo, explained by the same method."""

    def found(net: LoadedModel, method: Any) -> Tensor:
        x = images(net)[photo]
        return heatmap(method(net.model, x, net.model(x).argmax(dim=1)))[0]

    return found


def images(net: LoadedModel) -> dict[str, Tensor]:
    """The photos that come along, normalised, [1, 3, H, W] each."""
    photos = default_images(how=net.preprocessing)
    return {name: net.input_space.from_pixels(x[None]) for name, x in photos.items()}


@dataclass(frozen=True)
class Piece:
    """One picture of the gallery.

    Args:
        photo: which of the three.
        method: attacked.
        words: what is done, for the page.
        target: the map aimed at; ``None`` for an objective without one.
        options: of the attack.
    """

    photo: str
    method: str
    words: str
    target: Callable[[LoadedModel, Any], Tensor] | None = None
    options: dict[str, Any] | None = None


PIECES = {
    "gradient": Piece("cat", "gradient", "it spells that this is no cat", text("not a cat")),
    "lrp": Piece("coffee", "lrp", "it becomes the map of the rocket", map_of("rocket")),
    "guided_backprop": Piece("rocket", "guided_backprop", "it becomes the cat's", map_of("cat")),
    "grad_cam": Piece("cat", "grad_cam", "it becomes the map of the coffee", map_of("coffee")),
    "unlike": Piece(
        "rocket",
        "gradient",
        "it becomes as unlike the original one as it can",
        options={"objective": "unlike"},
    ),
}


def attacked(net: LoadedModel, piece: Piece) -> AttackResult:
    """The photo of a piece, manipulated."""
    method = trompe.explainer(piece.method)
    x = images(net)[piece.photo]
    target = None if piece.target is None else piece.target(net, method)[None]
    return trompe.manipulate(net, x, target, explainer=method, **(piece.options or {}))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PIECES)}")
    names = parser.parse_args().names or list(PIECES)
    torch.set_num_threads(1)
    net = trompe.load_model(MODEL)
    PICTURES.mkdir(parents=True, exist_ok=True)
    rows = json.loads(RESULTS.read_text())["pictures"] if RESULTS.exists() else {}
    for name in names:
        piece, begun = PIECES[name], time.process_time()
        result = attacked(net, piece)
        (metrics,) = image_metrics(
            result, net.input_space, image_names=[piece.photo], target_names=[""]
        )
        result.plot().savefig(PICTURES / f"{name}.jpg", dpi=110, pil_kwargs={"quality": 90})
        rows[name] = {
            "photo": piece.photo,
            "method": piece.method,
            "words": piece.words,
            "cpu_seconds": round(time.process_time() - begun, 1),
            "pcc_to_target": (metrics.get("map_to_target") or {}).get("pcc"),
            "pcc_to_original": metrics["map_to_original"]["pcc"],
            "psnr": metrics["image_change"]["psnr"],
            "kept": metrics["kept"],
            "probability_before": metrics["probability_before"],
            "probability_after": metrics["probability_after"],
        }
        print(name, json.dumps(rows[name]), flush=True)
        kept = {"model": MODEL, "pictures": {key: rows[key] for key in PIECES if key in rows}}
        RESULTS.write_text(f"{json.dumps(kept, indent=1)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
