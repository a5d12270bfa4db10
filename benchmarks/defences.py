"""What each defence buys and costs: one table, every defence attacked by the same ensemble.

    python benchmarks/defences.py --train tiny_imagenet50_train.npz --test tiny_imagenet50_val.npz
    python benchmarks/defences.py --model resnet20-cifar10 --weights F --train ... --test ...

Every defence fine-tunes the same network for the same CPU seconds (``--seconds``; how many batches
that is depends on its cost, and is written down), and so does a control without any. Then, for
gradient maps: accuracy; how many maps withstand the attack of the defences' papers (``ghorbani`` in
``robustness.py``: softplus of beta 1 in place of ReLU) and how many ``trompe.auto_attack``, on the
same images at the same radius; faithfulness; the maps' entropy; and what SSR measures of itself.
``scaled logits`` is the plain network times 20: no map changes, SSR's measure does.

Each row is written to ``benchmarks/results/defences.json`` when it is done; what is there under the
same settings is not done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, save
from robustness import ghorbani, judged
from torch import Tensor, nn

import trompe
from trompe.defences import Defence, defences, measure
from trompe.defences.trained.softplus import SoftplusTraining
from trompe.defences.trained.ssr import SmoothSurface
from trompe.robustness import share
from trompe.training import Batch, LabelledImages, read_labelled
from trompe.types import LoadedModel

TAU = 0.5
WEAK_STEPS = 30
FIRST = ("adversarial", "softplus", "ssr", "cure", "r2et", "weight_decay")


class ScaledLogits(nn.Module):
    """A network whose logits are multiplied: its softmax is surer, its maps are the same."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        """The logits times the factor, [B, K]."""
        out: Tensor = self.factor * self.model(x)
        return out


def rows_wanted() -> dict[str, Defence | None]:
    """Every row by name, the most telling ones first; ``None``: no training."""
    found: dict[str, Defence | None] = {"plain": None, "scaled logits": None, "control": Defence()}
    found |= {name: defences.make(name, {}) for name in FIRST}
    found["softplus, beta 1"] = SoftplusTraining(beta=1.0)
    found |= {name: defences.make(name, {}) for name in defences.names() if name not in FIRST}
    return found


def trained(
    loaded: LoadedModel, images: LabelledImages, defence: Defence, seconds: float
) -> tuple[nn.Module, dict[str, Any]]:
    """The network after so many CPU seconds of training, and what the training was."""

    def run(batches: int) -> nn.Module:
        part = images.part(range(batches * images.batch_size), seed=0)
        found: nn.Module = trompe.harden(loaded, part, defence=defence, epochs=1).model
        return found

    run(1)
    start = time.process_time()
    run(3)
    per_batch = (time.process_time() - start) / 3
    batches = min(max(1, round(seconds / per_batch)), len(images) - 1)
    start = time.process_time()
    model = run(batches)
    return model, {
        "batches": batches,
        "seconds": round(time.process_time() - start, 1),
        "seconds_per_epoch": round(per_batch * len(images), 1),
        "options": dataclasses.asdict(defence),
    }


def curvature(loaded: LoadedModel, model: nn.Module, x: Tensor) -> float:
    """The median of what SSR makes small, over the images."""
    batch = Batch(x, model(x).argmax(dim=1), loaded.input_space, torch.Generator())
    values = torch.cat(
        [
            SmoothSurface(weight=1.0).penalty(model, dataclasses.replace(batch, x=one)).detach()
            for one in x.split(1)
        ]
    )
    return float(values.median())


def row(
    loaded: LoadedModel, model: nn.Module, classified: LabelledImages, x: Tensor, **how: Any
) -> dict[str, Any]:
    """All that is measured of one network."""
    start = time.process_time()
    radius, space = how["radius"], loaded.input_space
    found = measure(
        model, space, classified, x, radius=radius, budget=how["budget"], tau=TAU, batch_size=len(x)
    )
    this = dataclasses.replace(loaded, model=model)
    weak = ghorbani(this, x, "gradient", radius, WEAK_STEPS, beta=1.0)
    alike = judged(this, x, weak, "gradient")["pcc"]
    return {
        **found.as_dict(),
        "robust_by_beta_1": dataclasses.asdict(share(sum(v >= TAU for v in alike), len(x))),
        "pcc_by_beta_1": sum(alike) / len(alike),
        "ssr_measure": curvature(loaded, model, x),
        "cpu_seconds_to_measure": round(time.process_time() - start, 1),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-vgg")
    parser.add_argument("--weights")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--only", action="append", help="a row's name; all if not given")
    parser.add_argument("--seconds", type=float, default=40.0, help="of training, each")
    parser.add_argument("--radius", type=float, default=1.5, help="of 255")
    parser.add_argument("--budget", type=float, default=0.1)
    parser.add_argument("--attacked", type=int, default=20)
    parser.add_argument("--classified", type=int, default=1250, help="images for the accuracy")
    options = parser.parse_args()
    torch.set_num_threads(1)
    loaded = trompe.load_model(options.model, options.weights)
    train = read_labelled(options.train, loaded, batch_size=32)
    test = read_labelled(options.test, loaded, batch_size=125, seed=None, most=options.classified)
    x, _ = test.spread(options.attacked)
    kept = ("seconds", "radius", "budget", "attacked", "classified")
    settings = {name: getattr(options, name) for name in kept}
    path = RESULTS / "defences.json"
    networks: dict[str, Any] = json.loads(path.read_text())["networks"] if path.exists() else {}
    if networks.get(options.model, {}).get("settings") != settings:
        networks[options.model] = {"settings": settings, "rows": {}}
    rows = networks[options.model]["rows"]
    for name, defence in rows_wanted().items():
        if name in rows or (options.only and name not in options.only):
            continue
        model, training = loaded.model, dict[str, Any]()
        if name == "scaled logits":
            model = ScaledLogits(model, 20.0)
        if defence is not None:
            model, training = trained(loaded, train, defence, options.seconds)
        rows[name] = row(
            loaded, model, test, x, radius=options.radius / 255, budget=options.budget
        ) | {"training": training}
        print(name, json.dumps(rows[name]), flush=True)
        save("defences", {"networks": networks})


if __name__ == "__main__":
    main()
