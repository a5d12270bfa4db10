"""The command line that an audit's settings stand for."""

from __future__ import annotations

import shlex
from pathlib import Path

from trompe.audit.settings import Settings

_REPEATED = {"methods": "--method", "smoothings": "--smoothing", "presets": "--preset"}
_SINGLE = (
    *("images", "objective", "constraint", "pairs", "pair_list", "seed", "iterations"),
    *("batch_size", "patterns", "chunk", "certify"),
)


def command_of(settings: Settings, folder: str | Path) -> str:
    """The ``trompe audit`` that begins a run with these settings.

    What is not a setting of the command (the betas of ``recovery``, the number of classes of a
    model made at random) is left out. Models that share no labels, normalisation and size are not
    named by one command; then those of the first one are given.

    Args:
        settings: of the run.
        folder: the run's.
    """
    words = ["trompe", "audit", "--output", str(folder)]
    for model in settings.models:
        weights = "" if model.weights is None else f"={model.weights}"
        words += ["--model", f"{model.name}{weights}"]
    for field, option in _REPEATED.items():
        for value in getattr(settings, field):
            words += [option, value]
    for field in _SINGLE:
        if (value := getattr(settings, field)) is not None:
            words += [f"--{field.replace('_', '-')}", str(value)]
    budget = settings.worst_case
    words += ["--no-worst-case"] if budget is None else ["--worst-case", str(budget)]
    if settings.keep_wrong:
        words.append("--keep-wrong")
    first = settings.models[0]
    for option, one in (
        ("--classes", first.classes),
        ("--size", first.size),
        ("--outputs", first.outputs),
    ):
        if one is not None:
            words += [option, str(one)]
    for option, numbers in (("--mean", first.mean), ("--std", first.std)):
        if numbers is not None:
            words += [option, *map(str, numbers)]
    return shlex.join(words)
