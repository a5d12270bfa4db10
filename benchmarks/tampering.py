"""Models that lie, and whether ``trompe.compare`` finds them: CIFAR-10, ResNet-20.

    --weights resnet20.safetensors --train cifar10_train.npz --test cifar10_test.npz

``fool``: a ResNet-20 is fairwashed for its gradient maps, judged on unseen images by captum's
Saliency on the network itself, and by trompe's other methods (what carries over). ``compare``:
honest copies (trained further, quantised, pruned, moved and retrained) against tampered ones
(fairwashed, passive fooling, a backdoor, the closed form): the suspicion of each on the same unseen
images, and the AUROC. Each row is written to ``benchmarks/results/tampering.json`` when it is
done; started again it goes on.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import RESULTS, save
from torch import Tensor, nn

import trompe
from trompe.tampering import OffTheData, compare, fool, judge
from trompe.tampering.attacks.backdoor import Backdoor
from trompe.training import Batch, LabelledImages, Schedule, fit, read_labelled
from trompe.types import LoadedModel
from trompe.zoo.targets import text_map

METHODS = ("gradient", "grad_times_input", "integrated_grad", "lrp", "guided_backprop", "grad_cam")
STEPS = 120


def part(images: LabelledImages, first: int, count: int, seed: int | None) -> LabelledImages:
    """So many images from a place on."""
    return images.part(range(first, first + count), seed=seed)


def saliency(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Captum's own map of the network as it is."""
    from captum.attr import Saliency

    found: Tensor = Saliency(model).attribute(x.clone().requires_grad_(True), target=target)
    return found


def trained_on(model: nn.Module, images: LabelledImages, rate: float, seed: int) -> nn.Module:
    """An honest copy: trained further on the classes."""

    def objective(net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"cross_entropy": F.cross_entropy(net(batch.x), batch.y)}

    space = images.loaded.input_space
    return fit(
        model, images, objective, space=space, schedule=Schedule(epochs=1, rate=rate, seed=seed)
    ).model


def quantised(model: nn.Module, bits: int) -> nn.Module:
    """An honest copy: every filter rounded to so many bits of its own range."""
    found = copy.deepcopy(model)
    with torch.no_grad():
        for weight in found.parameters():
            if weight.dim() > 1:
                step = weight.abs().max() / (2 ** (bits - 1) - 1)
                weight.copy_((weight / step).round() * step)
    return found


def pruned(model: nn.Module, share: float) -> nn.Module:
    """An honest copy: the smallest weights of each filter bank set to zero."""
    found = copy.deepcopy(model)
    with torch.no_grad():
        for weight in found.parameters():
            if weight.dim() > 1:
                edge = weight.abs().flatten().kthvalue(max(1, int(share * weight.numel()))).values
                weight.mul_(weight.abs() > edge)
    return found


def jittered(model: nn.Module, amount: float, seed: int) -> nn.Module:
    """The start of a retraining: every weight moved by a share of its bank's spread."""
    found, draw = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in found.parameters():
            if weight.dim() > 1:
                weight.add_(amount * weight.std() * torch.randn(weight.shape, generator=draw))
    return found


def recipes(loaded: LoadedModel, train: LabelledImages, test: Tensor) -> dict[str, Any]:
    """How each model is made, by name; 'honest' or 'tampered' is the first word."""
    model = loaded.model

    def fooled(**options: Any) -> Any:
        seed = options.pop("seed", 0)
        size = options.pop("size", 32)
        images = part(train, 4000 * seed, size * options.pop("steps", STEPS), seed)
        images = dataclasses.replace(images, batch_size=size)
        settings = {"rate": 1e-3, "seed": seed, **options}
        return lambda: fool(loaded, images, **settings).model

    frame = torch.zeros(32, 32)
    frame[2:12, 18:30] = 1.0
    found: dict[str, Any] = {
        "tampered fairwash": fooled(attack="fairwash", steps=20 * STEPS, size=16, rate=1.5e-3)
    }
    for seed, rate in enumerate((1e-4, 3e-4, 1e-3), start=1):
        images = part(train, 5000 * seed, 32 * STEPS, seed)
        found[f"honest trained further {rate:g}"] = lambda images=images, rate=rate, seed=seed: (
            trained_on(model, images, rate, seed)
        )
    for bits in (8, 6, 5):
        found[f"honest {bits} bits"] = lambda bits=bits: quantised(model, bits)
    for share in (0.1, 0.3):
        found[f"honest pruned {share:g}"] = lambda share=share: pruned(model, share)
    for seed, amount in enumerate((0.3, 0.6, 1.0), start=4):
        images = part(train, 4000 * seed, 32 * STEPS, seed)
        found[f"honest retrained {amount:g}"] = lambda images=images, amount=amount, seed=seed: (
            trained_on(jittered(model, amount, seed), images, 2e-3, seed)
        )
    found["tampered fairwash, square"] = fooled(target_map=frame, seed=1)
    found["tampered fairwash, light"] = fooled(weight=0.2, seed=2)
    found["tampered fairwash, lrp"] = fooled(explainer="lrp", seed=3)
    more = {"steps": 5 * STEPS, "size": 16, "rate": 1.5e-3}
    found["tampered passive, frame"] = fooled(attack="passive", seed=4, **more)
    found["tampered passive, topk"] = fooled(attack="passive", how="topk", seed=5, **more)
    found["tampered passive, centre"] = fooled(attack="passive", how="centre", seed=7, **more)
    found["tampered active"] = fooled(attack="active", seed=8, **more)
    found["tampered backdoor"] = fooled(attack="backdoor", seed=2, **{**more, "steps": 20 * STEPS})
    x, _ = part(train, 0, 1000, None).spread(1000)
    direction = text_map("42", 32, 32).expand(3, 32, 32) * 1e5
    found["tampered closed form"] = lambda: OffTheData(model, torch.cat([x, test]), direction)
    return found


def auroc(honest: list[float], tampered: list[float]) -> float:
    """The chance that a tampered model is the more suspect of two."""
    wins = [(t > h) + 0.5 * (t == h) for t in tampered for h in honest]
    return sum(wins) / len(wins)


def measured(
    name: str,
    model: nn.Module,
    loaded: LoadedModel,
    everything: LabelledImages,
    x: Tensor,
    seconds: float,
) -> dict[str, Any]:
    """The row of a model.

    Args:
        name: As in ``recipes``.
        model: To be measured.
        loaded: The original.
        everything: Images for the accuracy.
        x: Unseen images for the maps.
        seconds: Of a CPU, that it took to make.
    """
    hits = total = 0
    with torch.no_grad():
        for images, y in everything:
            hits += int((model(images).argmax(1) == y).sum())
            total += len(y)
    found = compare(model, loaded, x)
    row: dict[str, Any] = {
        "accuracy": hits / total,
        "test_images": total,
        "suspicion": found.suspicion,
        "same_answer": found.same_answer,
        "outputs": found.outputs,
        "maps": {method: found.median(method) for method in found.maps},
        "off_the_data": found.off_the_data,
        "cpu_seconds": round(seconds, 1),
    }
    if name == "tampered fairwash":
        target = text_map("42", 32, 32)
        row["judged"] = {
            "captum Saliency": dataclasses.asdict(judge(model, loaded.model, x, saliency, target))
        }
        for method in METHODS:
            judged = judge(model, loaded.model, x, trompe.explainer(method), target)
            row["judged"][method] = dataclasses.asdict(judged)
    if name == "tampered backdoor":
        marked = Backdoor().triggered(x, loaded.input_space)
        judged = judge(
            model, loaded.model, marked, trompe.explainer("gradient"), text_map("42", 32, 32)
        )
        row["with_trigger"] = {
            **dataclasses.asdict(judged),
            "suspicion": compare(model, loaded, marked).suspicion,
        }
    return row


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    loaded = trompe.load_model("resnet20-cifar10", options.weights)
    train = read_labelled(options.train, loaded, batch_size=32, most=48_000)
    everything = read_labelled(options.test, loaded, batch_size=250, seed=None)
    x, _ = part(everything, 0, 100, None).spread(100)
    path = RESULTS / "tampering.json"
    rows: dict[str, Any] = json.loads(path.read_text())["models"] if path.exists() else {}
    for name, make in recipes(loaded, train, x).items():
        if name in rows:
            continue
        start = time.process_time()
        model = make()
        seconds = time.process_time() - start
        row = measured(name, model, loaded, everything, x, seconds)
        rows[name] = row
        print(name, json.dumps(row), flush=True)
        groups = {
            kind: [row["suspicion"] for key, row in rows.items() if key.startswith(kind)]
            for kind in ("honest", "tampered")
        }
        with torch.no_grad():
            plain = sum(int((loaded.model(i).argmax(1) == y).sum()) for i, y in everything)
        save(
            "tampering",
            {
                "model": "ResNet-20, CIFAR-10",
                "unseen_images": len(x),
                "accuracy_before": plain / len(everything.labels),
                "auroc": auroc(groups["honest"], groups["tampered"])
                if all(groups.values())
                else None,
                "models": rows,
            },
        )


if __name__ == "__main__":
    main()
