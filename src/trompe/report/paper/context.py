"""What the experiments of the paper are run on, from minutes to days."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from trompe.audit import ModelSpec, Run, Settings, Status, open_run, run_audit
from trompe.errors import UsageError
from trompe.geometry.smoothed_method import Smoothing, make_method
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


@dataclass(frozen=True)
class Scale:
    """How much is computed.

    Args:
        settings: of the audits.
        second: the other network, of figure 12.
        words: for the figures' captions.
    """

    settings: Settings
    second: ModelSpec
    words: str


SCALES: dict[str, Scale] = {
    "smoke": Scale(
        Settings(methods=METHODS, presets=("fast",), pairs=2, batch_size=2, iterations=200),
        ModelSpec("tiny-resnet"),
        "embedded networks of 64 pixels",
    ),
    "small": Scale(
        Settings(
            models=(ModelSpec("squeezenet1_1"),), images="", methods=METHODS, pairs=20, batch_size=4
        ),
        ModelSpec("resnet18"),
        "SqueezeNet 1.1 on photos",
    ),
    "paper": Scale(
        Settings(models=(ModelSpec("vgg16"),), images="", methods=METHODS, pairs=100, batch_size=4),
        ModelSpec("resnet18"),
        "the paper's networks on ImageNet",
    ),
}


def scaled(name: str, **changes: Any) -> Scale:
    """A scale with some settings changed; those that are ``None`` stay.

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
    return dataclasses.replace(scale, settings=settings)


@dataclass(frozen=True)
class Claim:
    """Something the paper says, and what came out here.

    Args:
        what: is compared.
        paper: what the paper reports, in words.
        ours: what was found here.
        holds: whether the two agree.
    """

    what: str
    paper: str
    ours: str
    holds: bool


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
    def smoothed(self) -> Run:
        """The attack on all methods, smoothed with beta = 0.8."""
        return self.run("beta", smoothings=("beta=0.8",))

    def images(self, count: int) -> Tensor:
        """The first ``count`` different images of the plain audit, normalised, on the device."""
        import torch

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
            f"({self.scale.words})"
        )
