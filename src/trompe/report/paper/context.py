"""What the experiments of the paper are run on, from minutes to days."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from trompe.audit import ModelSpec, Run, Settings, Status, open_run, run_audit
from trompe.errors import UsageError
from trompe.geometry.smoothed_method import Smoothing, make_method
from trompe.report.paper.claims import Claim
from trompe.types import LoadedModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from trompe.explain import Method

#: In the paper's order.
METHODS = (
    "gradient",
    "grad_times_input",
    "integrated_grad",
    "guided_backprop",
    "lrp",
    "pattern_attribution",
)


CIFAR_10 = "CIFAR-10"
OTHERS = ("ResNet-18", "AlexNet", "DenseNet-121", CIFAR_10)
"""The paper's other networks, of figures 12 to 17; the last is one trained on CIFAR-10."""


@dataclass(frozen=True)
class Scale:
    """How much is computed.

    Args:
        settings: of the audits.
        words: for the figures' captions: the networks.
        pictures: for the figures' captions: the images.
        others: what stands for the paper's other networks, by their names in ``OTHERS``; one that
            is missing has no stand-in here.
        cifar_images: images of the network in place of ``CIFAR_10``, where they are others.
        most: images of what is not an audit, at most.
        own: whether the networks are those that ``words`` say.
    """

    settings: Settings
    words: str
    pictures: str
    others: Mapping[str, ModelSpec]
    cifar_images: str | None = None
    most: int = 20
    own: bool = True

    @property
    def what(self) -> str:
        """Networks and images, in words; a network that the user gave is named elsewhere."""
        return f"{self.words} on {self.pictures}" if self.own else f"on {self.pictures}"


SCALES: dict[str, Scale] = {
    "smoke": Scale(
        Settings(methods=METHODS, presets=("fast",), pairs=2, batch_size=2, iterations=200),
        "embedded networks of 64 pixels",
        "embedded images",
        {"ResNet-18": ModelSpec("tiny-resnet")},
        most=2,
    ),
    "small": Scale(
        Settings(
            models=(ModelSpec("squeezenet1_1"),), images="", methods=METHODS, pairs=20, batch_size=4
        ),
        "SqueezeNet 1.1",
        "photos",
        {
            "ResNet-18": ModelSpec("efficientnet-lite0"),
            "AlexNet": ModelSpec("tiny-vgg"),
            "DenseNet-121": ModelSpec("tiny-resnet"),
        },
        most=8,
    ),
    "paper": Scale(
        Settings(models=(ModelSpec("vgg16"),), images="", methods=METHODS, pairs=100, batch_size=4),
        "the paper's networks",
        "ImageNet",
        {name: ModelSpec(name.lower().replace("-", "")) for name in OTHERS[:3]},
    ),
}


def scaled(
    name: str,
    cifar_model: ModelSpec | None = None,
    cifar_images: str | None = None,
    **changes: Any,
) -> Scale:
    """A scale with some settings changed; those that are ``None`` stay.

    Args:
        name: of the scale.
        cifar_model: the network of figures 16 and 17.
        cifar_images: its images.
        changes: of the settings of the audits.

    Raises:
        UsageError: if there is no such scale, or it needs images and has none.
    """
    if name not in SCALES:
        raise UsageError(f"unknown scale '{name}': choose from {', '.join(SCALES)}")
    scale = SCALES[name]
    given = {key: value for key, value in changes.items() if value is not None}
    settings = dataclasses.replace(scale.settings, **given)
    if not settings.images:
        raise UsageError(f"the scale '{name}' needs photos: give a folder with --images")
    if (cifar_model is None) != (cifar_images is None):
        raise UsageError("give --cifar-model and --cifar-images together, or neither")
    others = scale.others if cifar_model is None else {**scale.others, CIFAR_10: cifar_model}
    own = [spec.name for spec in settings.models] == [spec.name for spec in scale.settings.models]
    return dataclasses.replace(
        scale, settings=settings, others=others, cifar_images=cifar_images, own=own
    )


class NoStandIn(UsageError):
    """A figure of a network of the paper in whose place there is none."""


@dataclass(frozen=True)
class Redrawn:
    """A figure of the paper, made anew.

    Args:
        drawings: by the end of their file names.
        claims: the numbers next to the paper's.
        made_with: what it was made with, if not the scale's models and pairs.
    """

    drawings: dict[str, Figure]
    claims: tuple[Claim, ...]
    made_with: str | None = None


@dataclass
class Context:
    """Where the experiments run, and what they share.

    Args:
        scale: how much is computed.
        folder: of the results; audits in it go on where they were.
        device: where to compute.
        watch: called now and then with how far an audit is.
    """

    scale: Scale
    folder: Path
    device: str = "cpu"
    watch: Callable[[Status], None] | None = None
    _runs: dict[str, Run] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """Of the audits."""
        return self.scale.settings

    @cached_property
    def loaded(self) -> LoadedModel:
        """The first model."""
        return self.settings.models[0].load(self.device)

    def method(self, name: str, smoothing: str = "none") -> Method:
        """An explanation method of the first model."""
        return make_method(
            name,
            self.loaded,
            smoothing=Smoothing.parse(smoothing),
            patterns=self.settings.patterns,
            seed=self.settings.seed,
        )

    def run(self, name: str, **changes: Any) -> Run:
        """The audit called ``name``, completed first if it is not."""
        if name not in self._runs:
            settings = dataclasses.replace(self.settings, **changes)
            path = self.folder / "runs" / name
            run_audit(path, settings, device=self.device, watch=self.watch)
            run = open_run(path)
            if not run.done:
                why = run.rows[0].message if run.rows else "no cell"
                raise UsageError(f"no attack of '{path}' came through: {why}")
            self._runs[name] = run
        return self._runs[name]

    @property
    def plain(self) -> Run:
        """The attack on all methods, not smoothed."""
        return self.run("plain")

    @property
    def gradient(self) -> Run:
        """A run with attacks on the gradient, which some figures are about."""
        if "gradient" in self.settings.methods:
            return self.plain
        return self.run("gradient", methods=("gradient",))

    @property
    def smoothed(self) -> Run:
        """The attack on all methods, smoothed with beta = 0.8."""
        return self.run("beta", smoothings=("beta=0.8",))

    def other(self, name: str) -> Run:
        """The attack on the gradient of what stands for another network of the paper.

        Raises:
            NoStandIn: if nothing does.
        """
        spec = self.scale.others.get(name)
        if spec is None and name == CIFAR_10:
            raise NoStandIn(
                "a network for CIFAR-10 and its images are needed: give --cifar-model "
                "resnet20-cifar10=WEIGHTS and --cifar-images FILE.npz"
            )
        if spec is None:
            raise NoStandIn(f"nothing stands for {name} at this scale")
        # A stand-in may know other classes than the photos' labels: what it predicts is explained.
        changes: dict[str, Any] = {
            "models": (spec,),
            "methods": ("gradient",),
            "keep_wrong": True,
        }
        if name == CIFAR_10:
            changes["images"] = self.scale.cifar_images
        return self.run(f"gradient-{name.lower()}", **changes)

    def images(self, count: int) -> Tensor:
        """The first different images of the plain audit, normalised, on the device.

        There are ``count`` of them, fewer if the scale or the audit has not so many.
        """
        import torch

        count = min(count, self.scale.most)

        run = self.plain
        rows = list({row.image: row for row in run.done}.values())[:count]
        x = torch.cat([run.store.arrays.get(row.x or "")["x"] for row in rows])
        return x.to(self.device)

    @property
    def caption(self) -> str:
        """What a figure was made with."""
        settings = self.settings
        models = ", ".join(model.key for model in settings.models)
        steps = "" if settings.iterations is None else f", {settings.iterations} iterations"
        return (
            f"{models}, {settings.pairs} pairs, preset {', '.join(settings.presets)}{steps} "
            f"({self.scale.what})"
        )
