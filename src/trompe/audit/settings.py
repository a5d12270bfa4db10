"""What an audit is asked to do: written down in the run, compared when it goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trompe.attacks.presets import DEFAULT_PRESET, presets
from trompe.audit.image_tables import read_pairs
from trompe.audit.source import Image, Source, fingerprint
from trompe.audit.sources import PHOTOS
from trompe.errors import StoreError, UsageError, WeightsError
from trompe.geometry.smoothed_method import Smoothing, check_plain, words_for
from trompe.ordinary import is_ordinary
from trompe.zoo import ModelSpec

#: No number of pairs, images or steps is larger.
LARGEST = 10_000_000


def _checksum(path: str | None) -> str | None:
    """The checksum of a file, so that another content counts as another setting."""
    if path is None or path == "random":
        return None
    digest = hashlib.sha256()
    try:
        if Path(path).exists() and not is_ordinary(Path(path)):
            raise WeightsError(f"'{path}' is no ordinary file: name one")
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise WeightsError(f"file '{path}' cannot be read: {error.strerror}") from error
    return digest.hexdigest()


@dataclass(frozen=True)
class Settings:
    """Everything that decides the results of an audit.

    Each pair of images, model, method, smoothing and preset is one cell.

    Args:
        models: the networks.
        images: where the images come from; see ``trompe.audit.sources.open_source``.
        methods: explanation methods, by name.
        smoothings: of the explanations: ``none``, ``beta=0.8``, ``smoothgrad=10``.
        presets: of the attack, by name.
        pairs: how many image pairs per model; fewer if there are not so many.
        pair_list: CSV file of given pairs, columns ``image`` and ``target``, in place of drawing.
        seed: of everything random.
        keep_wrong: also attack images that the model gets wrong.
        iterations: of the attack, in place of the preset's.
        batch_size: cells of one model, method, smoothing and preset that are worked on at once;
            it decides which, so that a resumed run repeats an undisturbed one exactly.
        recovery: betas at which the manipulated image is explained again (figure 4).
        patterns: file of learned patterns for pattern_attribution.
        chunk: how many copies of images are held in memory at once by explanations that average
            over many; theirs if not given.

    Raises:
        UsageError: if a setting is unknown or out of range.
    """

    models: tuple[ModelSpec, ...] = (ModelSpec("tiny-vgg"),)
    images: str = PHOTOS
    methods: tuple[str, ...] = ("gradient",)
    smoothings: tuple[str, ...] = ("none",)
    presets: tuple[str, ...] = (DEFAULT_PRESET,)
    pairs: int = 10
    pair_list: str | None = None
    seed: int = 0
    keep_wrong: bool = False
    iterations: int | None = None
    batch_size: int = 4
    recovery: tuple[float, ...] = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3)
    patterns: str | None = None
    chunk: int | None = None

    def __post_init__(self) -> None:
        named = tuple(words_for(Smoothing.parse(words)) for words in self.smoothings)
        object.__setattr__(self, "smoothings", named)  # one spelling for one smoothing
        for kind in ("models", "methods", "smoothings", "presets"):
            values = getattr(self, kind)
            if not values:
                raise UsageError(f"no {kind}: name at least one")
            if len(set(values)) != len(values):
                raise UsageError(f"{kind} are named twice: name each once")
        if len({model.key for model in self.models}) != len(self.models):
            raise UsageError("two models have the same name: rename a weights file")
        for method in self.methods:
            check_plain(method)
        for preset in self.presets:
            presets[preset]
        for name in ("pairs", "batch_size", "chunk", "iterations"):
            number = getattr(self, name)
            if number is not None and not 1 <= number <= LARGEST:
                raise UsageError(f"{name} must be at least 1, at most {LARGEST}, not {number}")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"the seed must be within 0..{2**32 - 1}, not {self.seed}")
        if not all(0 < beta < math.inf for beta in self.recovery):
            raise UsageError(f"betas must be positive and finite, not {self.recovery}")

    def recorded(
        self, source: Source, images: Sequence[Image], found: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The settings as they are written down: with checksums of what they name.

        Args:
            source: of the images.
            images: all of them.
            found: what is known of each model; see ``trompe.audit.provenance.facts``.
        """
        plain = dataclasses.asdict(self)
        if self.chunk is None:  # as in the records of runs from before there was one
            del plain["chunk"]
        for entry, known in zip(plain["models"], found, strict=True):
            entry["weights_sha256"] = _checksum(entry["weights"])
            entry["classes_sha256"] = _checksum(entry["classes"])
            entry["found"] = dict(known)
        plain["patterns_sha256"] = _checksum(self.patterns)
        plain["pair_list_sha256"] = _checksum(self.pair_list)
        plain["pairs_given"] = (
            None if self.pair_list is None else read_pairs(self.pair_list, source)
        )
        plain["source"] = fingerprint(images)
        return _listed(plain)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Settings:
        """The settings that ``recorded`` wrote down.

        Raises:
            StoreError: if something is missing.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        fields = {field.name for field in dataclasses.fields(ModelSpec)}
        try:
            models = tuple(
                ModelSpec(**{k: _tupled(v) for k, v in entry.items() if k in fields})
                for entry in record["models"]
            )
            rest = {k: _tupled(v) for k, v in record.items() if k in names and k != "models"}
            return cls(models=models, **rest)
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"the settings in the run's store are damaged ({error})") from error


def _listed(value: Any) -> Any:
    """``value`` as JSON gives it back: tuples become lists."""
    if isinstance(value, Mapping):
        return {str(key): _listed(entry) for key, entry in value.items()}
    return [_listed(entry) for entry in value] if isinstance(value, list | tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _flat(entry, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        for index, entry in enumerate(value):
            yield from _flat(entry, f"{name}[{index}]")
    else:
        yield name, value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:20]}..."


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What changed between two records of settings, as ``name: before -> now``."""
    first, second = dict(_flat(before)), dict(_flat(now))
    missing = object()
    return [
        f"{name}: {_short(first.get(name, 'nothing'))} -> {_short(second.get(name, 'nothing'))}"
        for name in sorted(first.keys() | second.keys())
        if first.get(name, missing) != second.get(name, missing)
    ]
