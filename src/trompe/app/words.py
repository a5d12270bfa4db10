"""What the page says and shows of an attack, as HTML without scripts."""

from __future__ import annotations

import html
import math
import time

from torch import Tensor

from trompe.app import pictures
from trompe.app.live import Frame, LiveAttack
from trompe.app.sessions import Finished
from trompe.metrics import pcc
from trompe.report.overview import amplification
from trompe.report.style import bright
from trompe.types import heatmap

PATIENT = 60.0
"""An attack that takes at least so many seconds is said to be slow before it begins."""
NEAR = 10.0
"""How long is left is said from so many seconds on."""
EMPTY = (
    '<div class="hint">Say what the explanation shall show (draw it, write it, or copy that of '
    "another photo), and press <b>Start</b>.</div>"
)


def number(value: float, form: str = ".2f") -> str:
    """A number, or that there is none."""
    if math.isnan(value):
        return "undefined"
    text = format(value, form)
    return text.removeprefix("-") if float(text) == 0 else text


def error_line(message: str) -> str:
    """What went wrong, in one plain line."""
    return f'<div class="wrong" role="alert">{html.escape(" ".join(message.split()))}</div>'


def note(message: str) -> str:
    """What is going on, in one plain line."""
    return f'<div class="note" role="status">{html.escape(message)}</div>'


def figure(address: str, title: str, below: str = "") -> str:
    """A picture and what it is."""
    title = html.escape(title)
    small = f"<small>{html.escape(below)}</small>" if below else ""
    return (
        f'<figure><img alt="{title}" src="{address}">'
        f"<figcaption><b>{title}</b>{small}</figcaption></figure>"
    )


def empty(title: str, below: str) -> str:
    """The place of a picture that is still to come."""
    return (
        f'<figure><div class="empty"></div><figcaption><b>{html.escape(title)}</b>'
        f"<small>{html.escape(below)}</small></figcaption></figure>"
    )


def answer(value: float, meaning: str) -> str:
    """An output in words: a probability in per cent, or a value."""
    return f"{value:.4g}" if meaning == "value" else f"{100 * value:.1f} %"


def pace(one_look: float, steps: int) -> str:
    """A warning, as HTML, where the steps will take minutes; empty where they will not.

    Args:
        one_look: how long one explanation took, in seconds: no step is shorter.
        steps: how many there are to be.
    """
    least = one_look * steps
    if least < PATIENT:
        return ""
    return note(
        f"One explanation takes {duration(one_look)} here: {steps} steps take {duration(least)} or "
        "more. Stop keeps the best so far; fewer steps, another explanation or another network "
        "are quicker."
    )


def duration(seconds: float) -> str:
    """A time for people: seconds up to two minutes, then minutes, from two hours on hours."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"


def before(frame: Frame, attack: LiveAttack) -> str:
    """The photo before anything is changed, what the network answers, and why, as HTML."""
    answered = answer(frame.answer, attack.meaning)
    panels = [
        figure(pictures.address(pictures.photo(frame.pixels)), "Image now"),
        empty("Its change", "none yet"),
        figure(
            pictures.address(pictures.heat(frame.map, bright([frame.map.nan_to_num()]))),
            "Its explanation now",
        ),
        empty("Target", "what it shall show"),
    ]
    return (
        f'{EMPTY}<div class="before"><p>The network answers <b>{html.escape(attack.label)}</b>'
        f" ({answered}); the explanation says where it looks.</p>"
        f'<div class="panels">{"".join(panels)}</div></div>'
    )


class View:
    """Shows the frames of one attack, all of its maps in one scale of colours.

    Args:
        attack: the attack.
    """

    def __init__(self, attack: LiveAttack) -> None:
        self._attack = attack
        self._first: Frame | None = None
        self._begun = 0.0

    def show(self, frame: Frame) -> str:
        """The frame as HTML; the first one is the original image."""
        if self._first is None:
            self._first = frame
            self._begun = time.monotonic()
            self._brightest = bright([frame.map.nan_to_num(), self._attack.target])
            target = pictures.heat(self._attack.target, self._brightest)
            self._target = pictures.address(target)
        first = self._first
        factor = amplification(frame.pixels - first.pixels)
        changed = pictures.change(frame.pixels, first.pixels, factor)
        same = math.isinf(frame.psnr)
        panels = [
            figure(pictures.address(pictures.photo(frame.pixels)), "Image now"),
            figure(
                pictures.address(changed),
                "Its change",
                "none yet" if same else f"{factor} times as strong",
            ),
            figure(
                pictures.address(pictures.heat(frame.map, self._brightest)), "Its explanation now"
            ),
            figure(self._target, "Target"),
        ]
        done = 100 * frame.step / max(frame.steps, 1)
        return (
            f'<div class="live" data-step="{frame.step}">'
            f'<div class="bar"><i style="width:{done:.0f}%"></i></div>'
            f'<div class="numbers">{self._numbers(frame, first)}</div>'
            f'<div class="panels">{"".join(panels)}</div></div>'
        )

    def _left(self, frame: Frame) -> str:
        """How long the rest will take, where it is long enough to be told."""
        if self._attack.result is not None or not 0 < frame.step < frame.steps:
            return ""
        each = (time.monotonic() - self._begun) / frame.step
        left = each * (frame.steps - frame.step)
        return "" if left < NEAR else f", about {duration(left)} left"

    def _numbers(self, frame: Frame, first: Frame) -> str:
        meaning = self._attack.meaning
        before, now = answer(first.answer, meaning), answer(frame.answer, meaning)
        kept = "" if frame.kept else " (the answer has changed)"
        image = "not changed" if math.isinf(frame.psnr) else f"{frame.psnr:.1f} dB"
        entries = {
            "Step": f"{frame.step} of {frame.steps}{self._left(frame)}",
            "Likeness to the target (PCC)": number(frame.pcc),
            "Likeness to the original image (PSNR)": image,
            f"Network: {self._attack.label}": f"{now}, was {before}{kept}",
        }
        return "".join(
            f"<div><span>{html.escape(name)}</span><b>{html.escape(value)}</b></div>"
            for name, value in entries.items()
        )


def ended(finished: Finished) -> str:
    """How an attack ended, in one plain line."""
    result = finished.result
    if result.stopped == "interrupted":
        how = f"Stopped after {result.iterations} steps; the best so far is shown."
    elif result.stopped == "finished":
        how = f"Done: {result.iterations} steps; the best of them is shown."
    else:
        how = f"Ended after {result.iterations} steps: {result.stopped}."
    if not bool(result.found[0]):
        how += " Nothing better than the original image was found"
        how += " until then." if result.stopped == "interrupted" else "."
    return note(how)


def smoothed(finished: Finished, beta: float) -> str:
    """The maps of both images by the network smoothed with ``beta``, as HTML.

    Raises:
        TrompeError: if the network cannot be smoothed, or an image has no map.
    """
    from trompe.geometry.smoothed_method import Smoothing, make_method

    loaded, result = finished.loaded, finished.result
    method = make_method(finished.name, loaded, smoothing=Smoothing(beta=beta))
    place = next(loaded.model.parameters(), result.x).device
    original, manipulated = (
        heatmap(method(loaded, x.to(place), result.target_class.to(place)))[0].detach().cpu()
        for x in (result.x, result.x_adv)
    )
    target = finished.target
    brightest = bright([original, manipulated, target])
    left = f"PCC {_pcc(manipulated, target)} to the target"
    panels = (
        (original, f"Original, beta {beta:g}", f"PCC {_pcc(original, target)} to the target"),
        (
            manipulated,
            f"Manipulated, beta {beta:g}",
            f"{left}, {_pcc(manipulated, original)} to the original's",
        ),
        (target, "Target", ""),
    )
    shown = "".join(
        figure(pictures.address(pictures.heat(heat, brightest)), title, below)
        for heat, title, below in panels
    )
    return f'<div class="panels three">{shown}</div>'


def _pcc(heat: Tensor, other: Tensor) -> str:
    return number(float(pcc(heat[None], other[None])))
