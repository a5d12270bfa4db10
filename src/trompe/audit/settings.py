"""What an audit is asked to do: written down in the run, compared when it goes on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trompe.attacks.presets import DEFAULT_PRESET, presets
from trompe.audit.sources import Source
from trompe.errors import StoreError, UsageError, WeightsError
from trompe.geometry.smoothed_method import Smoothing, check_plain, words_for
from trompe.zoo import ModelSpec


def _checksum(path: str | None) -> str | None:
    """The checksum of a file, so that another content counts as another setting."""
    if path is None or path == "random":
        return None
    digest = hashlib.sha256()
    try:
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
    images: str = "photos"
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
        if self.pairs < 1 or self.batch_size < 1:
            raise UsageError(
                f"pairs and batch_size must be at least 1, not {self.pairs}, {self.batch_size}"
            )
        if self.chunk is not None and self.chunk < 1:
            raise UsageError(f"chunk must be at least 1, not {self.chunk}")
        if not all(beta > 0 for beta in self.recovery):
            raise UsageError(f"betas must be positive, not {self.recovery}")

    def recorded(self, source: Source) -> dict[str, Any]:
        """The settings as they are written down: with checksums of what files they name."""
        plain = dataclasses.asdict(self)
        if self.chunk is None:  # as in the records of runs from before there was one
            del plain["chunk"]
        for entry in plain["models"]:
            entry["weights_sha256"] = _checksum(entry["weights"])
        plain["patterns_sha256"] = _checksum(self.patterns)
        plain["pair_list_sha256"] = _checksum(self.pair_list)
        plain["source"] = source.fingerprint()
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


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What changed between two records of settings, as ``name: before -> now``."""
    first, second = dict(_flat(before)), dict(_flat(now))
    missing = object()
    return [
        f"{name}: {first.get(name, 'nothing')!r} -> {second.get(name, 'nothing')!r}"
        for name in sorted(first.keys() | second.keys())
        if first.get(name, missing) != second.get(name, missing)
    ]
