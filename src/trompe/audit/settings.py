"""What an audit is asked to do: written down in the run, compared when it goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import Any

from trompe.attacks.constraints import constraints
from trompe.attacks.objectives import (
    DEFAULT_OBJECTIVE,
    objectives,
    takes_target,
    written_objective,
)
from trompe.attacks.presets import DEFAULT_PRESET, preset_for, presets
from trompe.audit.certification import Certification
from trompe.audit.image_tables import read_pairs
from trompe.audit.provenance import code_of_parts
from trompe.audit.source import Image, Source, fingerprint
from trompe.audit.sources import PHOTOS
from trompe.errors import StoreError, UsageError, WeightsError
from trompe.explain import explainers
from trompe.geometry.smoothed_method import Smoothing, check_plain, words_for
from trompe.given import options
from trompe.ordinary import is_ordinary
from trompe.registry import Registry
from trompe.written_part import made
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
        objective: what becomes of the explanations, with its options: ``unlike:measure=cosine``.
        constraint: where the images must stay, such as ``linf:8/255``, in place of the presets'.
        pairs: how many image pairs per model, fewer if there are not so many; of an objective that
            aims at no given map, how many images.
        pair_list: CSV file of given pairs, columns ``image`` and ``target``, in place of drawing.
        seed: of everything random.
        keep_wrong: also attack images that the model gets wrong.
        iterations: of the attack, in place of the preset's.
        batch_size: cells of one model, method, smoothing and preset that are worked on at once;
            it decides which, so that a resumed run repeats an undisturbed one exactly.
        recovery: betas at which the manipulated image is explained again (figure 4).
        patterns: file of learned patterns for pattern_attribution.
        worst_case: budget of the search for the worst map of every image within 8/255, a share of
            ``trompe.auto_attack``'s steps and queries; ``None`` for no search.
        certify: certificates from noise of every image's smoothed map, as the options of
            ``trompe.audit.certification.Certification``: ``0.125,sigma=0.25``; ``None`` for none.
        chunk: how many copies of images are held in memory at once by explanations that average
            over many; theirs if not given.
        known: whether methods, presets, objective and constraint must be known here. A run can be
            read without the module that registers a part of somebody's own.

    Raises:
        UsageError: if a setting is unknown or out of range.
    """

    models: tuple[ModelSpec, ...] = (ModelSpec("tiny-vgg"),)
    images: str = PHOTOS
    methods: tuple[str, ...] = ("gradient",)
    smoothings: tuple[str, ...] = ("none",)
    presets: tuple[str, ...] = (DEFAULT_PRESET,)
    objective: str = DEFAULT_OBJECTIVE
    constraint: str | None = None
    pairs: int = 10
    pair_list: str | None = None
    seed: int = 0
    keep_wrong: bool = False
    iterations: int | None = None
    batch_size: int = 4
    recovery: tuple[float, ...] = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3)
    patterns: str | None = None
    chunk: int | None = None
    worst_case: float | None = None
    certify: str | None = None
    known: InitVar[bool] = True

    def __post_init__(self, known: bool) -> None:
        named = tuple(words_for(Smoothing.parse(words)) for words in self.smoothings)
        object.__setattr__(self, "smoothings", named)  # one spelling for one smoothing
        if self.certify is not None:
            object.__setattr__(self, "certify", Certification.parse(self.certify).words)
        for kind in ("models", "methods", "smoothings", "presets"):
            values = getattr(self, kind)
            if not values:
                raise UsageError(f"no {kind}: name at least one")
            if len(set(values)) != len(values):
                raise UsageError(f"{kind} are named twice: name each once")
        if len({model.key for model in self.models}) != len(self.models):
            raise UsageError("two models have the same name: rename a weights file")
        for name in (*self.methods, *self.presets, self.objective, self.constraint or ""):
            if not isinstance(name, str):
                raise UsageError(f"parts are given by name, not as {name!r}")
        if known:
            self._check_parts()
        for name in ("pairs", "batch_size", "chunk", "iterations"):
            number = getattr(self, name)
            if number is not None and not 1 <= number <= LARGEST:
                raise UsageError(f"{name} must be at least 1, at most {LARGEST}, not {number}")
        if self.worst_case is not None and not 0 < self.worst_case <= LARGEST:
            raise UsageError(f"the worst case's budget must be positive, not {self.worst_case}")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"the seed must be within 0..{2**32 - 1}, not {self.seed}")
        if not all(0 < beta < math.inf for beta in self.recovery):
            raise UsageError(f"betas must be positive and finite, not {self.recovery}")

    def _check_parts(self) -> None:
        for method in self.methods:
            check_plain(method)
        for preset in self.presets:
            presets[preset]
            objective = written_objective(self.objective, relative=True)
            preset_for(preset).check_objective(objective)
        if self.constraint is not None:
            made(constraints, self.constraint)
        if self.pair_list is not None and not self.aims_at_images:
            raise UsageError(
                f"the objective '{self.objective}' aims at no other image, and a list of pairs "
                "names some: leave it out, and name the images alone (images: a folder or a .csv)"
            )

    @property
    def aims_at_images(self) -> bool:
        """Whether the maps aimed at are those of other images; else each is attacked by itself.

        Raises:
            UsageError: if the objective is unknown.
        """
        return takes_target(objectives[self.objective.partition(":")[0]])

    @property
    def certification(self) -> Certification | None:
        """What is certified of every image, if anything."""
        return None if self.certify is None else Certification.parse(self.certify)

    @property
    def usual_objective(self) -> bool:
        """Whether the objective is that of every attack where nobody says."""
        return self.objective == DEFAULT_OBJECTIVE

    def _parts(self) -> list[tuple[Registry[Any], str]]:
        """The names of methods and other parts, each with the registry that it is found in."""
        found: list[tuple[Registry[Any], str]] = [(explainers, name) for name in self.methods]
        found += [(presets, name) for name in self.presets]
        found.append((objectives, self.objective.partition(":")[0]))
        if self.constraint is not None:
            found.append((constraints, self.constraint.partition(":")[0]))
        return found

    def unknown_parts(self) -> list[str]:
        """The methods, presets, objective and constraint that nothing imported registers."""
        found = []
        for kind, name in self._parts():
            try:
                kind[name]
            except UsageError:
                found.append(f"{kind.kind} {name}")
        return found

    def code_of_parts(self) -> dict[str, str]:
        """The checksums of the files of methods and other parts that are not trompe's own.

        Raises:
            UsageError: if a part is unknown.
        """
        return code_of_parts(kind[name] for kind, name in self._parts())

    def given(self) -> dict[str, Any]:
        """The settings themselves, as they are written down: without what came to be known."""
        plain = dataclasses.asdict(self)
        # As in the records of runs from before there were such settings.
        usual = dict.fromkeys(("chunk", "constraint", "worst_case", "certify")) | {
            "objective": DEFAULT_OBJECTIVE
        }
        for name, value in usual.items():
            if plain[name] == value:
                del plain[name]
        for entry in plain["models"]:
            if entry["outputs"] is None:
                del entry["outputs"]
        return plain

    def recorded(
        self, source: Source, images: Sequence[Image], found: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The settings as they are written down: with checksums of what they name.

        Args:
            source: of the images.
            images: all of them.
            found: what is known of each model; see ``trompe.audit.provenance.facts``.
        """
        plain = self.given()
        if code := self.code_of_parts():
            plain["code_of_parts"] = code
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
            options(cls, (), rest)
            return cls(models=models, known=False, **rest)
        except UsageError as error:
            raise StoreError(f"the settings in the run's store are damaged ({error})") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"the settings in the run's store are damaged ({error})") from error


def _listed(value: Any) -> Any:
    """``value`` as JSON gives it back: tuples become lists."""
    if isinstance(value, Mapping):
        return {str(key): _listed(entry) for key, entry in value.items()}
    return [_listed(entry) for entry in value] if isinstance(value, list | tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
