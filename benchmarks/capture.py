"""One attack step eager and captured; channels first and last; in single and mixed precision.

    python benchmarks/capture.py runners                          # eager, graph
    python benchmarks/capture.py runners --compile --model tiny-vgg --batch 1
    python benchmarks/capture.py layouts
    python benchmarks/capture.py precision --data tiny_imagenet50_val.npz --pairs 8
    python benchmarks/capture.py precision --weights squeezenet.safetensors --photos DIR --pairs 4

All ways of one case run in one process, in turns, on one thread; medians of the process's own time
(``time.process_time``) count, and their ratios more than the seconds where the machine has other
work. Mixed precision means convolutions in bfloat16, all else in float32; what an attack found is
judged in float32. Steps are those of the preset ``fast``. Writes
``benchmarks/results/capture.json``; what was measured before, of other cases, stays.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, save
from photos import pairs as photo_pairs
from quality import correct_images
from step import images, network
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import trompe
from trompe.attacks import Keep, ReachMap, preset_for
from trompe.attacks.differentiate import Differentiate
from trompe.attacks.loss import Loss
from trompe.attacks.observation import observe
from trompe.engine import frozen, lean, smooth
from trompe.engine.capture import agree, capture
from trompe.engine.runners import RUNNERS
from trompe.metrics import linf, pcc, psnr
from trompe.types import LoadedModel, heatmap
from trompe.zoo.images import load_image
from trompe.zoo.resnet20 import resnet20

SMALL = ("tiny-vgg", "tiny-resnet", "resnet20")
MODELS = {
    "runners": (*SMALL, "squeezenet1_1"),
    "layouts": ("tiny-vgg", "squeezenet1_1", "resnet18", "vgg16"),
}
METHODS = {
    "runners": ("gradient", "lrp", "guided_backprop", "integrated_grad"),
    "layouts": ("gradient", "lrp"),
}
BETA = 20.0


def case(
    name: str, method: str, batch: int, layout: str = "first", model: nn.Module | None = None
) -> tuple[Differentiate, Tensor]:
    """A step of an attack, and its images; on a model given, or one by name."""
    size = 32 if name == "resnet20" else 64 if name.startswith("tiny") else 224
    if model is None:
        torch.manual_seed(0)
        model = resnet20().eval() if name == "resnet20" else network(name)[0]
    model = frozen(model)
    if layout == "last":
        model = copy.deepcopy(model).to(memory_format=torch.channels_last)
    x, explainer = images(batch, size), trompe.explainer(method)
    target = model(x).argmax(1)
    settings = preset_for("fast", explainer, size)
    with torch.no_grad():
        reference = observe(model, explainer, x, target)
    loss = Loss(
        ReachMap(reference.map.flip(-1), relative=settings.relative),
        Keep(),
        trompe.InputSpace(),
        prefactors=settings.prefactors,
        relative=settings.relative,
    )
    surrogate = smooth(model, beta=BETA, pooling=settings.pooling, activations=settings.activations)
    return Differentiate(model, surrogate, explainer, loss, reference, target), x


def in_turns(ways: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """The median time of each way in seconds; each runs for about ``seconds`` in all."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for run in ways.values():
        run()
    while sum(times[next(iter(ways))]) < seconds or len(times[next(iter(ways))]) < 5:
        for name, run in ways.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def runners(name: str, method: str, batch: int, *, compiled: bool, seconds: float) -> Any:
    """Seconds per step of each way to run it, and seconds to get there."""
    look, x = case(name, method, batch)
    beta = torch.tensor(BETA)
    inputs = (x, beta, torch.tensor(1.0), *look.constants)
    expected = look(*inputs)
    ways: dict[str, Callable[[], Any]] = {
        "eager": lambda: look(x, BETA, 1.0, *look.constants),
        "eager, beta a tensor": lambda: look(*inputs),
    }
    start = time.process_time()
    graph = capture(look, inputs)
    found: dict[str, Any] = {"batch": batch, "capture_seconds": time.process_time() - start}
    start = time.process_time()
    make_fx(look)(*inputs)
    found["make_fx_seconds"] = time.process_time() - start
    found["calls"] = sum(node.op == "call_function" for node in graph.graph.nodes)
    for way in ("graph", "compile") if compiled else ("graph",):
        start = time.perf_counter()  # compilers are processes of their own
        run = RUNNERS[way](graph, inputs)
        run(*inputs)
        if way == "compile":
            found["compile_seconds"] = time.perf_counter() - start
        if not agree(run(*inputs), expected):
            raise SystemExit(f"{name}, {method}: {way} gives other numbers")
        ways[way] = lambda run=run: run(*inputs)
    return {**found, "seconds": in_turns(ways, seconds)}


def layouts(name: str, method: str, batch: int, seconds: float) -> Any:
    """Seconds per step with weights channels first and last, eager and replayed."""
    ways: dict[str, Callable[[], Any]] = {}
    for layout in ("first", "last"):
        look, x = case(name, method, batch, layout)
        inputs = (x, torch.tensor(BETA), torch.tensor(1.0), *look.constants)
        look(*inputs)
        graph = capture(look, inputs)
        run = RUNNERS["graph"](graph, inputs)
        ways[f"{layout}, eager"] = lambda look=look, x=x: look(x, BETA, 1.0, *look.constants)
        ways[f"{layout}, graph"] = lambda run=run, inputs=inputs: run(*inputs)
    return {"batch": batch, "seconds": in_turns(ways, seconds)}


@contextmanager
def halved() -> Iterator[None]:
    """While active, the convolutions of steps run in bfloat16."""
    kinds = (lean._Convolution, lean._Transposed)
    original = [kind.forward for kind in kinds]
    half = functools.cache(lambda tensor: tensor.bfloat16())

    def converted(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(ctx: Any, x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
            weight = weight if weight.dtype == torch.bfloat16 else half(weight)
            rest = tuple(half(t) if isinstance(t, Tensor) else t for t in rest)
            return forward(ctx, x.bfloat16(), weight, *rest).float()

        return run

    for kind, forward in zip(kinds, original, strict=True):
        kind.forward = staticmethod(converted(forward))
    try:
        yield
    finally:
        for kind, forward in zip(kinds, original, strict=True):
            kind.forward = staticmethod(forward)


def precision(loaded: LoadedModel, method: str, x: Tensor, seconds: float) -> Any:
    """Seconds per step and what ``fast`` reaches, in single and in mixed precision.

    Args:
        loaded: the model.
        method: the explanation attacked.
        x: images, those to be changed before those whose maps are aimed at.
        seconds: of each way.
    """
    model, explainer = loaded.model, trompe.explainer(method)
    origin, other = x.chunk(2)
    aim = heatmap(explainer(model, other, model(other).argmax(1)))
    look, image = case(loaded.name, method, 1, model=model)
    inputs = (image, BETA, 1.0, *look.constants)

    def mixed() -> None:
        with halved():
            look(*inputs)

    found: dict[str, Any] = {
        "pairs": len(origin),
        "seconds": in_turns({"float32": lambda: look(*inputs), "bfloat16": mixed}, seconds),
    }
    for name in ("float32", "bfloat16"):
        options: dict[str, Any] = {"explainer": explainer, "preset": "fast", "capture": "never"}
        options["input_space"] = loaded.input_space
        if name == "bfloat16":
            with halved():
                result = trompe.manipulate(model, origin, aim, **options)
        else:
            result = trompe.manipulate(model, origin, aim, **options)
        maps = heatmap(explainer(model, result.x_adv, result.target_class))
        before, after = (loaded.input_space.to_pixels(t) for t in (result.x, result.x_adv))
        kept = model(result.x_adv).argmax(1) == result.target_class
        found[name] = {
            "map_pcc": statistics.median(pcc(maps, aim).tolist()),
            "psnr_db": statistics.median(psnr(after, before).tolist()),
            "linf_255": 255 * statistics.median(linf(after, before).tolist()),
            "class_kept": int(kept.sum()),
        }
    return found


def loaded_with_images(chosen: argparse.Namespace) -> tuple[LoadedModel, Tensor]:
    """The network and the pairs of the measurement of precision."""
    if chosen.data is not None:
        loaded = trompe.load_model("tiny-vgg")
        return loaded, correct_images(loaded, chosen.data, 2 * chosen.pairs, seed=1)
    loaded = trompe.load_model("squeezenet1_1", chosen.weights)
    files = [pair[i] for i in (0, 1) for pair in photo_pairs(chosen.photos, chosen.pairs)]
    pixels = [load_image(path, how=loaded.preprocessing) for path in files]
    return loaded, loaded.input_space.from_pixels(torch.stack(pixels))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["runners", "layouts", "precision"])
    parser.add_argument("--model", action="append", help="the usual ones if not given")
    parser.add_argument("--method", action="append", help="the usual ones if not given")
    parser.add_argument("--batch", type=int, action="append", help="1 and 8 if not given")
    parser.add_argument("--compile", action="store_true", help="torch.compile too: minutes each")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each way")
    parser.add_argument("--data", type=Path, help="npz of validation images, for tiny-vgg")
    parser.add_argument("--weights", type=Path, help="of SqueezeNet 1.1")
    parser.add_argument("--photos", type=Path, help="folder of photos, for SqueezeNet 1.1")
    parser.add_argument("--pairs", type=int, default=8)
    chosen = parser.parse_args()
    folder = tempfile.TemporaryDirectory()  # what was compiled before would spare the compilation
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder.name
    torch.set_num_threads(1)
    known = RESULTS / "capture.json"
    results: dict[str, Any] = {"runners": {}, "layouts": {}, "precision": {}}
    if known.exists():
        results |= {k: v for k, v in json.loads(known.read_text()).items() if k in results}

    def keep(name: str, key: str, found: Any) -> None:
        results[chosen.what].setdefault(name, {})[key] = found
        save("capture", results)
        print(name, key, found, flush=True)

    if chosen.what == "precision":
        loaded, x = loaded_with_images(chosen)
        for method in chosen.method or ["gradient"]:
            keep(loaded.name, method, precision(loaded, method, x, chosen.seconds))
        return
    for name in chosen.model or MODELS[chosen.what]:
        for method in chosen.method or METHODS[chosen.what]:
            batches = (1, 8) if name in SMALL and chosen.what == "runners" else (1,)
            if method == "integrated_grad":  # thirty images in one
                batches = (1,)
            for batch in chosen.batch or batches:
                if chosen.what == "runners":
                    found = runners(
                        name, method, batch, compiled=chosen.compile, seconds=chosen.seconds
                    )
                else:
                    found = layouts(name, method, batch, chosen.seconds)
                keep(name, f"{method} x{batch}", found)


if __name__ == "__main__":
    main()
