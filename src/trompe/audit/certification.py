"""What an audit certifies of every image, as its settings write it down: ``0.125,sigma=0.25``."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from trompe.certificates.methods.noise import SmoothedMap
from trompe.certificates.noisy_image import Plan, check_squares
from trompe.errors import UsageError
from trompe.explain import Method
from trompe.types import Progress
from trompe.written_part import with_options
from trompe.zoo.denoiser import check_noise

#: As many as ``trompe certify --samples`` takes.
MOST_SAMPLES = 10_000_000


@dataclass(frozen=True)
class Certification:
    """Certificates from noisy copies of one radius; see ``trompe.certify(method="noise")``.

    Args:
        radius: of the changes that they hold for, l2, pixel units.
        sigma: standard deviation of the noise that smooths the map, pixel units.
        samples: noisy copies of each image.
        pool: side of the squares of pixels that count as one.
        confidence: that a certificate holds, for each image.
        denoiser: whether the noise is taken away before the network sees a copy.

    Raises:
        UsageError: if one is out of range.
    """

    radius: float
    sigma: float = 0.1
    samples: int = 1000
    pool: int = 8
    confidence: float = 0.99
    denoiser: bool = False

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise UsageError(f"certify: the radius must be positive, not {self.radius}")
        if self.samples > MOST_SAMPLES:
            raise UsageError(f"certify: at most {MOST_SAMPLES} samples, not {self.samples}")
        self.plan(1)
        if self.denoiser:
            check_noise(self.sigma)

    @classmethod
    def parse(cls, text: str) -> Certification:
        """What options stand for: the radius, or ``name=value``, separated by commas.

        Raises:
            UsageError: if there is no such option, or it has no such value.
        """
        found: Certification = with_options(cls, text, called="certify")
        return found

    @property
    def words(self) -> str:
        """The options that are not as they usually are, in one spelling."""
        told = [repr(float(self.radius))]
        for field in dataclasses.fields(self)[1:]:
            if (value := getattr(self, field.name)) != field.default:
                told.append(f"{field.name}={str(value).lower()}")
        return ",".join(told)

    def of(self, explainer: Method | None = None, progress: Progress | None = None) -> SmoothedMap:
        """The certificate's method, for an explanation."""
        return SmoothedMap(
            explainer="lrp" if explainer is None else explainer,
            sigma=self.sigma,
            samples=self.samples,
            pool=self.pool,
            confidence=self.confidence,
            denoiser=self.denoiser,
            progress=progress,
        )

    def check_side(self, side: int) -> None:
        """Refuse images whose maps have too few or too many squares.

        Args:
            side: height and width of the images, in pixels.

        Raises:
            UsageError: if that is so.
        """
        check_squares(math.ceil(side / self.pool) ** 2, self.pool)

    def plan(self, size: int) -> Plan:
        """How many copies are drawn of an image of ``size`` numbers, and for which radius."""
        return self.of().plan((self.radius,), "l2", size)
