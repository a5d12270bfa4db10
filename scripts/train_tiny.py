"""Trains an embedded classifier (``tiny-vgg`` or ``tiny-resnet``) and exports its weights.

Example::

    python scripts/train_tiny.py --model tiny-vgg --train train.npz --val val.npz

``--train`` and ``--val`` take an ``.npz`` file (``jpeg``: all JPEG files end to end as uint8,
``offsets``: int64, image i is ``jpeg[offsets[i]:offsets[i + 1]]``, ``label``: int64) or a folder
with one subfolder of images per class. The script writes ``<output>/<model>.safetensors`` and a
log of the accuracies, ``<output>/<model>.json``. With ``--checkpoint`` it also exports every few
epochs, so that a run that was cut short still leaves a usable file. With ``--noise S`` every
training image gets Gaussian noise whose standard deviation, in pixel units, is drawn evenly from
0 to S (so that one network serves every smaller noise), and the accuracy under noise is logged.
"""

from __future__ import annotations

import argparse
import copy
import io
import itertools
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from trompe.zoo.tiny import TinyVGG, tiny_resnet, tiny_vgg

SIZE = 64
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def read_image(source: str | Path | io.BytesIO) -> np.ndarray:
    """Returns an image file as a uint8 array (64, 64, 3)."""
    with Image.open(source) as image:
        rgb = image.convert("RGB")
    if rgb.size != (SIZE, SIZE):
        rgb = rgb.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def class_folders(path: Path) -> list[Path]:
    """Returns the subfolders of an image folder, one per class, in class order."""
    return sorted(entry for entry in path.iterdir() if entry.is_dir())


def read_data(path: Path) -> tuple[Tensor, Tensor]:
    """Returns the images, uint8 (N, 3, 64, 64), and labels, int64 (N,), of a file or folder."""
    if not path.exists():
        raise SystemExit(f"{path} does not exist")
    if path.is_dir():
        folders = class_folders(path)
        files = [
            (file, index)
            for index, folder in enumerate(folders)
            for file in sorted(folder.rglob("*"))
            if file.suffix.lower() in SUFFIXES
        ]
        if not files:
            raise SystemExit(f"no images in the subfolders of {path}")
        pixels = [read_image(file) for file, _ in files]
        labels = np.array([index for _, index in files], dtype=np.int64)
    else:
        with np.load(path, allow_pickle=False) as data:
            jpeg, offsets = data["jpeg"], data["offsets"]
            labels = data["label"].astype(np.int64)
        pixels = [
            read_image(io.BytesIO(jpeg[start:end].tobytes()))
            for start, end in itertools.pairwise(offsets)
        ]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return images, torch.from_numpy(labels)


def normalise(images: Tensor, device: torch.device) -> Tensor:
    """Returns a uint8 batch as normalised floats on the device, channels last."""
    mean = torch.tensor(MEAN, device=device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=device).view(1, 3, 1, 1)
    scaled = (images.to(device).float() / 255 - mean) / std
    return scaled.contiguous(memory_format=torch.channels_last)


def augment(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Returns a uint8 batch with random shifts (reflected border) and horizontal flips."""
    count, _, height, width = images.shape
    flips = torch.rand(count, generator=generator) < 0.5
    images = torch.where(flips.view(-1, 1, 1, 1), images.flip(3), images)
    offsets = torch.randint(-padding, padding + 1, (count, 2), generator=generator)
    rows = (torch.arange(height) + offsets[:, :1]).abs()
    rows = (height - 1) - (height - 1 - rows).abs()
    columns = (torch.arange(width) + offsets[:, 1:]).abs()
    columns = (width - 1) - (width - 1 - columns).abs()
    index = torch.arange(count).view(-1, 1, 1, 1)
    channel = torch.arange(images.shape[1]).view(1, -1, 1, 1)
    return images[index, channel, rows.view(count, 1, -1, 1), columns.view(count, 1, 1, -1)]


def erase(batch: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Sets a random square of each image of a normalised batch to zero (cutout)."""
    count, _, height, width = batch.shape
    centre = torch.rand(count, 2, generator=generator)
    rows = (torch.arange(height) - centre[:, :1] * height).abs() > side / 2
    columns = (torch.arange(width) - centre[:, 1:] * width).abs() > side / 2
    keep = rows.view(count, 1, -1, 1) | columns.view(count, 1, 1, -1)
    return batch * keep.to(batch.device)


def noisy(batch: Tensor, largest: float, generator: torch.Generator) -> Tensor:
    """Adds Gaussian noise of a size drawn per image from 0 to ``largest``, in pixel units.

    The pixels are not clamped: a smoothed network sees the same unclamped noise.
    """
    std = torch.tensor(STD).view(1, 3, 1, 1)
    sizes = torch.rand(len(batch), 1, 1, 1, generator=generator) * largest
    noise = torch.randn(batch.shape, generator=generator) * sizes / std
    return batch + noise.to(batch.device)


def training_model(name: str, classes: int) -> nn.Module:
    """Returns the network in its training form (batch norm everywhere)."""
    if name == "tiny-resnet":
        return tiny_resnet(classes)
    model = TinyVGG(classes, batch_norm=True)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    # The same as MaxPool2d(2) at 64 pixels; lets the first epochs run on smaller images.
    model.features[-1] = nn.AdaptiveMaxPool2d(2)
    return model


def exported_model(name: str, model: nn.Module, classes: int) -> nn.Module:
    """Returns the network in its shipped form: for tiny-vgg, batch norms folded into convs."""
    if name == "tiny-resnet":
        plain = tiny_resnet(classes)
        plain.load_state_dict(model.state_dict())
        return plain.eval()
    plain = tiny_vgg(classes)
    trained = copy.deepcopy(model).eval()
    layers = list(trained.features)
    folded = [
        fuse_conv_bn_eval(layer, layers[index + 1])
        for index, layer in enumerate(layers)
        if isinstance(layer, nn.Conv2d)
    ]
    convs = [layer for layer in plain.features if isinstance(layer, nn.Conv2d)]
    for conv, source in zip(convs, folded, strict=True):
        conv.load_state_dict(source.state_dict())
    plain.classifier.load_state_dict(trained.classifier.state_dict())
    return plain.eval()


@torch.no_grad()
def load_exported(name: str, model: nn.Module, path: Path, images: Tensor) -> str:
    """Loads an exported file into the training form and returns the file's recipe.

    For tiny-vgg the batch norms are put back: each filter gets unit norm, and the statistics
    of its outputs on ``images`` (uint8) become those of the batch norm. The outputs in eval
    mode stay the same.
    """
    with safe_open(path, framework="pt") as file:
        recipe = str((file.metadata() or {}).get("recipe", path.name))
    if name == "tiny-resnet":
        model.load_state_dict(load_file(path))
        return recipe
    plain = tiny_vgg(model.classifier[-1].out_features)
    plain.load_state_dict(load_file(path))
    model.classifier.load_state_dict(plain.classifier.state_dict())
    model.eval()
    sources = [layer for layer in plain.features if isinstance(layer, nn.Conv2d)]
    x = normalise(images, torch.device("cpu"))
    for layer in model.features:
        if isinstance(layer, nn.Conv2d):
            source = sources.pop(0)
            norm = source.weight.flatten(1).norm(dim=1).clamp(min=1e-6)
            layer.weight.copy_(source.weight / norm.view(-1, 1, 1, 1))
        elif isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.copy_(x.mean(dim=(0, 2, 3)))
            layer.running_var.copy_(x.var(dim=(0, 2, 3)))
            layer.weight.copy_(norm * (layer.running_var + layer.eps).sqrt())
            layer.bias.copy_(source.bias + norm * layer.running_mean)
        x = layer(x)
    return recipe


@torch.no_grad()
def evaluate(
    model: nn.Module, images: Tensor, labels: Tensor, device: torch.device, noise: float = 0.0
) -> tuple[float, float]:
    """Returns the top-1 and top-5 accuracy, under Gaussian noise of a size in pixel units."""
    model.eval()
    generator = torch.Generator().manual_seed(0)
    std = torch.tensor(STD).view(1, 3, 1, 1)
    first = fifth = 0
    for start in range(0, len(images), 250):
        x = normalise(images[start : start + 250], device)
        if noise:
            x = x + (torch.randn(x.shape, generator=generator) * noise / std).to(device)
        scores = model(x)
        top = scores.topk(min(5, scores.shape[1]), dim=1).indices.cpu()
        hits = top == labels[start : start + 250].view(-1, 1)
        first += int(hits[:, 0].sum())
        fifth += int(hits.any(dim=1).sum())
    return first / len(images), fifth / len(images)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Moves the averaged weights (and batch norm statistics) towards the current ones."""
    for old, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if old.dtype.is_floating_point:
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)


def image_size(epoch: int, sizes: list[tuple[int, int]]) -> int:
    """Returns the training resolution of an epoch, from (number of epochs, size) pairs."""
    for count, size in sizes:
        if epoch < count:
            return size
        epoch -= count
    return SIZE


def parse_sizes(text: str) -> list[tuple[int, int]]:
    """Returns the (epochs, size) pairs of a text such as ``"8x32,8x48"``."""
    pairs = [part.split("x") for part in text.split(",") if part]
    return [(int(count), int(size)) for count, size in pairs]


def export(
    args: argparse.Namespace,
    model: nn.Module,
    classes: int,
    val: tuple[Tensor, Tensor],
    log: dict[str, object],
) -> None:
    """Writes the weights and the log; checks that folding left the outputs unchanged."""
    device = torch.device("cpu")
    trained = copy.deepcopy(model).to(device).eval()
    plain = exported_model(args.model, trained, classes)
    with torch.no_grad():
        sample = normalise(val[0][:64], device)
        difference = float((trained(sample) - plain(sample)).abs().max())
    if difference > 1e-4:
        raise RuntimeError(f"folding changed the outputs by {difference:.2e}")
    top1, top5 = evaluate(plain, *val, device)
    log.update(top1=top1, top5=top5, fold_difference=difference)
    args.output.mkdir(parents=True, exist_ok=True)
    metadata = {
        "format": "pt",
        "model": args.model,
        "classes": str(classes),
        "top1": f"{top1:.4f}",
        "top5": f"{top5:.4f}",
        "recipe": str(log["recipe"]),
    }
    path = args.output / f"{args.model}.safetensors"
    tensors = {key: value.contiguous() for key, value in plain.state_dict().items()}
    save_file(tensors, path, metadata)
    path.chmod(0o644)
    (args.output / f"{args.model}.json").write_text(json.dumps(log, indent=2) + "\n")


def train(args: argparse.Namespace) -> None:
    """Trains, evaluates and exports."""
    started = time.monotonic()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    device = torch.device(args.device)
    images, labels = read_data(args.train)
    val = read_data(args.val)
    classes = int(labels.max()) + 1
    if args.train.is_dir() and args.val.is_dir():
        names = [[entry.name for entry in class_folders(p)] for p in (args.train, args.val)]
        if names[0] != names[1]:
            raise SystemExit("the training and the validation folder differ in their subfolders")
    if int(val[1].max()) >= classes:
        raise SystemExit("the validation images have classes that the training images lack")
    if len(images) < args.batch:
        raise SystemExit(f"{len(images)} training images are fewer than a batch ({args.batch})")
    model = training_model(args.model, classes)
    earlier = ""
    if args.init is not None:
        sample = torch.randperm(len(images), generator=generator)[:512]
        earlier = load_exported(args.model, model, args.init, images[sample]) + "; then "
        print(f"from {args.init}: top-1 {evaluate(model, *val, torch.device('cpu'))[0]:.4f}")
    model = model.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model)
    for parameter in average.parameters():
        parameter.requires_grad_(False)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": args.decay}, {"params": others}],
        lr=args.lr,
        momentum=0.9,
        nesterov=True,
    )
    sizes = parse_sizes(args.sizes)
    steps = len(images) // args.batch
    total = steps * args.epochs
    warmup = max(1, round(0.1 * total))
    stop = min(args.stop or args.epochs, args.epochs)
    recipe = (
        f"SGD nesterov, batch {args.batch}, lr {args.lr}, decay {args.decay}, "
        f"{{done}} of {args.epochs} epochs, sizes {args.sizes or SIZE}, "
        f"label smoothing {args.smoothing}, shift {args.padding}, flip, cutout {args.cutout}, "
        f"EMA {args.ema}, "
        f"noise {args.noise}, seed {args.seed}"
    )
    epochs: list[dict[str, float]] = []
    log: dict[str, object] = {
        "model": args.model,
        "classes": classes,
        "parameters": sum(
            p.numel() for p in exported_model(args.model, model, classes).parameters()
        ),
        "train_images": len(images),
        "val_images": len(val[0]),
        "epochs": epochs,
    }
    print(f"{args.model}: {len(images)} images, {classes} classes", flush=True)
    print(earlier + recipe.format(done=stop), flush=True)
    step = 0
    for epoch in range(stop):
        model.train()
        size = image_size(epoch, sizes)
        order = torch.randperm(len(images), generator=generator)
        losses = 0.0
        for index in order[: steps * args.batch].split(args.batch):
            if step < warmup:
                rate = (step + 1) / warmup
            else:
                rate = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
            for group in optimizer.param_groups:
                group["lr"] = args.lr * rate
            batch = normalise(augment(images[index], args.padding, generator), device)
            if size != SIZE:
                batch = F.interpolate(batch, size=(size, size), mode="bilinear", antialias=True)
                batch = batch.contiguous(memory_format=torch.channels_last)
            if args.cutout:
                batch = erase(batch, args.cutout * size // SIZE, generator)
            if args.noise:
                batch = noisy(batch, args.noise, generator)
            loss = F.cross_entropy(
                model(batch), labels[index].to(device), label_smoothing=args.smoothing
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            losses += loss.item()
            if step % 5 == 0:
                update_average(average, model, min(args.ema**5, step / (step + 50)))
        top1, top5 = evaluate(average, *val, device)
        minutes = (time.monotonic() - started) / 60
        epochs.append(
            {
                "epoch": epoch + 1,
                "size": size,
                "loss": round(losses / steps, 4),
                "top1": round(top1, 4),
                "top5": round(top5, 4),
                "minutes": round(minutes, 2),
            }
        )
        if args.noise:
            for share in (0.5, 1.0):
                size_of = share * args.noise
                under = evaluate(average, *val, device, noise=size_of)[0]
                epochs[-1][f"top1 at noise {size_of:g}"] = round(under, 4)
        print(json.dumps(epochs[-1]), flush=True)
        log["minutes"] = round(minutes, 1)
        if epoch + 1 == stop or (args.checkpoint and (epoch + 1) % args.checkpoint == 0):
            log["recipe"] = earlier + recipe.format(done=epoch + 1)
            export(args, average, classes, val, log)
    print(f"exported: top-1 {log['top1']:.4f}, top-5 {log['top5']:.4f}")


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=["tiny-vgg", "tiny-resnet"], required=True)
    parser.add_argument("--train", type=Path, required=True, help=".npz file or image folder")
    parser.add_argument("--val", type=Path, required=True, help=".npz file or image folder")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--stop", type=int, default=0, help="end early, after so many epochs")
    parser.add_argument("--init", type=Path, help="start from an exported .safetensors file")
    parser.add_argument("--sizes", default="", help='first epochs on small images: "8x32,8x48"')
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.06, help="peak learning rate")
    parser.add_argument("--decay", type=float, default=1e-3, help="weight decay")
    parser.add_argument("--smoothing", type=float, default=0.1, help="label smoothing")
    parser.add_argument("--padding", type=int, default=7, help="largest random shift, pixels")
    parser.add_argument("--cutout", type=int, default=0, help="side of the erased square, pixels")
    parser.add_argument(
        "--noise", type=float, default=0.0, help="largest Gaussian noise, pixel units"
    )
    parser.add_argument("--ema", type=float, default=0.998, help="decay of the weight average")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--checkpoint", type=int, default=0, help="export every so many epochs")
    parser.add_argument("--output", type=Path, default=Path("runs/tiny"))
    train(parser.parse_args())


if __name__ == "__main__":
    main()
