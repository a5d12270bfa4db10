"""An attack while it runs: frame after frame for whoever looks, judged by the original network."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.attacks import manipulate
from trompe.attacks.observation import Observation, observe
from trompe.engine import adapted
from trompe.explain import Method
from trompe.metrics import pcc, psnr
from trompe.types import AttackResult, LoadedModel

PATIENCE = 60.0
"""Seconds after which an attack ends that nobody looks at."""


@dataclass(frozen=True)
class Frame:
    """One look at an attack.

    Args:
        step: how many steps were done.
        steps: how many there are to be.
        pixels: the image now, 0..1, [C, H, W].
        map: its heat map by the original network, [H, W]; not a number where there is none.
        pcc: correlation of the map with the target; NaN where it has none.
        psnr: of the image to the original one, in decibel; infinite as long as it is the same.
        answer: the output explained, on the scale of ``Outputs.probabilities``.
        kept: whether the network still answers as on the original image.
    """

    step: int
    steps: int
    pixels: Tensor
    map: Tensor
    pcc: float
    psnr: float
    answer: float
    kept: bool


class LiveAttack:
    """An attack on one image in a thread of its own; iterate over it once to run it.

    The first frame is the original image, the last one what was found. Frames that come faster
    than they are taken are left out, never waited for. The attack ends early when ``stop`` is set,
    when the iterator is closed, or when no frame was taken for ``PATIENCE`` seconds; what it had
    is in ``result``.

    Args:
        loaded: the network.
        x: the image, normalised, [1, C, H, W].
        target: the map aimed at, [H, W].
        method: the explanation attacked.
        preset: name of the settings.
        steps: how many.
        stop: ends the attack when set.
        every: least time between two frames, in seconds: each takes an explanation.

    Example:
        >>> for frame in LiveAttack(loaded, x, target, method):  # doctest: +SKIP
        ...     print(frame.step, frame.pcc)
    """

    def __init__(
        self,
        loaded: LoadedModel,
        x: Tensor,
        target: Tensor,
        method: Method,
        *,
        preset: str = "fast",
        steps: int = 100,
        stop: threading.Event | None = None,
        every: float = 0.2,
    ) -> None:
        self.loaded, self.x, self.target, self.method = loaded, x, target, method
        self.preset, self.steps, self.every = preset, steps, every
        self.stop = threading.Event() if stop is None else stop
        self.result: AttackResult | None = None
        self.one_look = 0.0
        """How long one explanation took, in seconds; known from the first frame on."""
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._latest: Frame | None = None
        self._over = False
        self._offered = time.monotonic()

    def __iter__(self) -> Generator[Frame, None, None]:
        """Run the attack.

        Raises:
            TrompeError: if it cannot be run; see ``trompe.manipulate``.
        """
        worker = threading.Thread(target=self._work, name="trompe-attack", daemon=True)
        worker.start()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._latest is not None or self._over)
                    frame, self._latest = self._latest, None
                if frame is None:
                    break
                yield frame
        finally:
            self.stop.set()
            worker.join()
        if self._failure is not None:
            raise self._failure

    def first(self) -> Frame:
        """The frame of the original image, with which an attack begins; none is begun here.

        Raises:
            TrompeError: if the network cannot be explained.
        """
        given = adapted(self.loaded, self.x, evaluation=True, differentiable=False)
        self._outputs, self._model = given.outputs, given.model
        with torch.no_grad():
            logits = given.model(self.x)
        self.explained = given.outputs.explained(logits)
        self.method = self.method.within(self.loaded.input_space)
        begun = time.monotonic()
        first = self._look(self.x)
        self.one_look = time.monotonic() - begun
        self._logits = first.logits
        return self._frame(0, first)

    def _work(self) -> None:
        try:
            self._offer(self.first())
            if self.stop.is_set():
                self.steps = 0
            self.result = manipulate(
                self.loaded,
                self.x,
                self.target,
                explainer=self.method,
                preset=self.preset,
                iterations=self.steps,
                follow=self._follow,
            )
            found = self.result
            last = Observation(found.x_adv, found.map_adv, found.logits_adv, found.map_adv)
            self._offer(self._frame(found.iterations, last))
        except BaseException as failure:  # it belongs to whoever iterates
            self._failure = failure
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _follow(self, done: int, x: Tensor) -> None:
        """Show the image unless the last frame is still to be taken; end where it is asked."""
        now = time.monotonic()
        waiting = self._latest is not None
        if self.stop.is_set() or (waiting and now - self._offered > PATIENCE):
            raise KeyboardInterrupt
        if not waiting and now - self._offered >= self.every and done < self.steps:
            self._offer(self._frame(done, self._look(x)))

    def _look(self, x: Tensor) -> Observation:
        with torch.no_grad():
            return observe(self._model, self.method, x, self.explained)

    def _frame(self, step: int, now: Observation) -> Frame:
        space = self.loaded.input_space
        pixels, original = space.to_pixels(now.x.cpu()), space.to_pixels(self.x.cpu())
        logits, before = now.logits.cpu(), self._logits.cpu()
        chosen = int(self.explained[0])
        return Frame(
            step=step,
            steps=self.steps,
            pixels=pixels[0],
            map=now.map[0].detach().cpu(),
            pcc=float(pcc(now.map.detach().cpu(), self.target[None].cpu())),
            psnr=float(psnr(pixels, original)),
            answer=float(self._outputs.probabilities(logits)[0, chosen]),
            kept=bool(self._outputs.kept(logits, before)[0]),
        )

    def _offer(self, frame: Frame) -> None:
        with self._changed:
            self._latest = frame
            self._offered = time.monotonic()
            self._changed.notify_all()

    @property
    def label(self) -> str:
        """The readable name of the output explained, known from the first frame on."""
        return self.loaded.label(int(self.explained[0]))

    @property
    def meaning(self) -> str:
        """What the outputs mean, known from the first frame on; see ``Outputs``."""
        return self._outputs.meaning
