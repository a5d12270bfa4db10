"""Explanations alone: maps per second, against captum and zennit.

    python benchmarks/maps.py --model squeezenet1_1 --batch 4

The same network, images and method, the contenders in one process, round after round, each in an
order drawn anew; medians. How far the maps agree is reported too (cosine): where definitions
differ, times do not compare the same thing. What was measured before, of other models, stays in
``benchmarks/results/maps.json``.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from machine import RESULTS, describe, save
from peers import composite_of
from problem import images, network
from torch import Tensor, nn

import trompe

IG_STEPS, NOISE_SAMPLES = 30, 10

Maps = Callable[[], Tensor]


def ours(model: nn.Module, x: Tensor, target: Tensor) -> dict[str, Maps]:
    """The methods of trompe that captum or zennit have too."""
    options: dict[str, dict[str, Any]] = {
        "gradient": {},
        "grad_times_input": {},
        "guided_backprop": {},
        "deconvnet": {},
        "deeplift": {},
        "integrated_grad": {"steps": IG_STEPS},
        "smoothgrad": {"samples": NOISE_SAMPLES},
        "lrp": {},
        "excitation_backprop": {},
    }

    def maps(name: str) -> Maps:
        explainer = trompe.explainer(name, **options[name])
        return lambda: explainer(model, x, target)

    return {name: maps(name) for name in options}


def captums(model: nn.Module, x: Tensor, target: Tensor) -> dict[str, Maps]:
    """The same by captum, batched, nothing but its defaults."""
    import captum.attr as attr

    model = copy.deepcopy(model)  # its hooks and in-place changes stay apart

    def simple(kind: Any, **options: Any) -> Maps:
        return lambda: kind(model).attribute(x.clone(), target=target, **options)

    return {
        "gradient": simple(attr.Saliency, abs=False),
        "grad_times_input": simple(attr.InputXGradient),
        "guided_backprop": simple(attr.GuidedBackprop),
        "deconvnet": simple(attr.Deconvolution),
        "deeplift": simple(attr.DeepLift, baselines=torch.zeros_like(x)),
        "integrated_grad": simple(
            attr.IntegratedGradients,
            n_steps=IG_STEPS,
            method="riemann_right",
            internal_batch_size=len(x),
        ),
        "smoothgrad": lambda: attr.NoiseTunnel(attr.Saliency(model)).attribute(
            x.clone(),
            nt_type="smoothgrad",
            nt_samples=NOISE_SAMPLES,
            nt_samples_batch_size=1,
            stdevs=0.1,
            target=target,
            abs=False,
        ),
    }


def zennits(model: nn.Module, x: Tensor, target: Tensor) -> dict[str, Maps]:
    """The same by zennit."""
    from zennit.attribution import Gradient, IntegratedGradients, SmoothGrad
    from zennit.composites import ExcitationBackprop

    model = copy.deepcopy(model)
    classes = model(x[:1]).shape[1]
    seed = F.one_hot(target, classes).to(x)

    def attributed(make: Callable[[], Any], kind: Any = Gradient, **options: Any) -> Maps:
        def run() -> Tensor:
            with kind(model=model, composite=make(), **options) as attributor:
                relevance: Tensor = attributor(x.clone(), seed)[1]
                return relevance

        return run

    def with_scores(maps: Callable[[Tensor], Tensor]) -> Maps:
        return lambda: maps(model(x).detach())

    def lrp(logits: Tensor) -> Tensor:
        with Gradient(model=model, composite=composite_of("lrp")) as attributor:
            relevance: Tensor = attributor(x.clone(), seed * logits)[1]
            return relevance

    gradient = attributed(lambda: None)
    return {
        "gradient": gradient,
        "grad_times_input": lambda: gradient() * x,
        "guided_backprop": attributed(lambda: composite_of("guided_backprop")),
        "integrated_grad": attributed(lambda: None, IntegratedGradients, n_iter=IG_STEPS),
        "smoothgrad": attributed(lambda: None, SmoothGrad, noise_level=0.1, n_iter=NOISE_SAMPLES),
        "lrp": with_scores(lrp),
        "excitation_backprop": attributed(ExcitationBackprop),
    }


def cosine(one: Tensor, other: Tensor) -> float:
    """The cosine of two batches of maps, averaged over the batch."""
    return float(F.cosine_similarity(one.flatten(1), other.flatten(1)).mean())


def measure(name: str, batch: int, rounds: int) -> dict[str, Any]:
    """Maps per second of every method and contender on one network."""
    model, size = network(name)
    x = images(batch, size)
    target = model(x).argmax(1)
    contenders = {
        "trompe": ours(model, x, target),
        "captum": captums(model, x, target),
        "zennit": zennits(model, x, target),
    }
    results: dict[str, Any] = {}
    for method, run in contenders["trompe"].items():
        runs = {who: all_maps[method] for who, all_maps in contenders.items() if method in all_maps}
        mine = run().detach()
        agreement = {who: cosine(mine, other().detach()) for who, other in runs.items()}
        times: dict[str, list[float]] = {who: [] for who in runs}
        # One thread's own time counts: other work on the machine changes it little.
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        order = random.Random(0)
        for _ in range(rounds):
            # Whom one follows matters: it finds the heap and the caches as the other left them.
            for who in order.sample(list(runs), len(runs)):
                start = clock()
                runs[who]()
                times[who].append(clock() - start)
        results[method] = {
            who: {
                "maps_per_second": batch / statistics.median(found),
                "cosine_to_trompe": agreement[who],
            }
            for who, found in times.items()
        }
        row = "  ".join(f"{who} {e['maps_per_second']:.2f}/s" for who, e in results[method].items())
        print(f"{name} {method}: {row}", flush=True)
    return {"batch": batch, "size": size, "threads": describe()["threads"], "methods": results}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", help="squeezenet1_1 and tiny-vgg if not given")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    known = RESULTS / "maps.json"
    models = json.loads(known.read_text())["models"] if known.exists() else {}
    for name in chosen.model or ["squeezenet1_1", "tiny-vgg"]:
        models[name] = measure(name, chosen.batch, chosen.rounds)
        save("maps", {"models": models})


if __name__ == "__main__":
    main()
