"""Figures 12 to 17: the same for other networks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from trompe.report.figures import joint_figure
from trompe.report.paper.attacks import similar
from trompe.report.paper.context import CIFAR_10, OTHERS, Context, Redrawn
from trompe.report.paper.outputs import unmoved
from trompe.report.run_figures import IMAGES, MAPS, OUTPUTS, box_panels


def _made_with(context: Context, *names: str) -> str:
    pairs = f"{context.settings.pairs} pairs, preset {', '.join(context.settings.presets)}"
    stand_ins = [f"{context.scale.others[name].key} for {name}" for name in names]
    return f"{'; '.join(stand_ins)}; the gradient; {pairs}"


def _similarity(context: Context, name: str) -> Redrawn:
    """How near the gradient's map of a network comes to its target, and the image to itself."""
    rows = context.other(name).done
    drawing = joint_figure([*box_panels(rows, MAPS), *box_panels(rows, IMAGES)])
    return Redrawn({"": drawing}, similar(rows), _made_with(context, name))


def _output(context: Context, *names: str) -> Redrawn:
    """How far the outputs of networks moved, side by side."""
    known = [name for name in names if name in context.scale.others] or names
    found = {name: context.other(name).done for name in known}
    labels = {name: context.scale.others[name].key for name in known}  # the network that was used
    rows = [replace(row, method=labels[name]) for name in known for row in found[name]]
    drawing = joint_figure(box_panels(rows, OUTPUTS), columns=2)
    claims = [one for name in known for one in unmoved(found[name], labels[name])]
    return Redrawn({"": drawing}, tuple(claims), _made_with(context, *known))


figure_12, figure_13, figure_14 = (partial(_similarity, name=name) for name in OTHERS[:3])


def figure_15(context: Context) -> Redrawn:
    """How far the outputs of the other networks moved."""
    return _output(context, *OTHERS[:3])


def figure_16(context: Context) -> Redrawn:
    """Similarity of maps and of images on CIFAR-10."""
    return _similarity(context, CIFAR_10)


def figure_17(context: Context) -> Redrawn:
    """How far the output moved on CIFAR-10."""
    return _output(context, CIFAR_10)
