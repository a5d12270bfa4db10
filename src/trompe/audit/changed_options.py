"""What differs between two records of settings, by the options as they are typed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_OPTIONS = {"methods": "--method", "smoothings": "--smoothing", "presets": "--preset"}
_OF_MODELS = ("weights", "classes", "mean", "std", "size", "num_classes", "outputs")
_STANDING_FOR = {
    "source": "the images of --images",
    "pairs_given": "the pairs of --pair-list",
    "code_of_parts": "the code of a method, objective or constraint",
    "patterns_sha256": "the file of --patterns",
    "pair_list_sha256": "the file of --pair-list",
}


def changed_options(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What changed between two records of settings, as ``--option: before -> now``.

    Of a model what was typed is named; what it was found to be only where that alone changed.
    """
    found: list[str] = []
    for name in sorted(before.keys() | now.keys()):
        one, other = before.get(name), now.get(name)
        if one == other:
            continue
        if name == "models":
            found += _of_models(one or [], other or [])
        elif name in _STANDING_FOR:
            counts = [
                part["count"]
                for part in (one, other)
                if isinstance(part, Mapping) and "count" in part
            ]
            what = " -> ".join(map(str, counts)) if len(set(counts)) == 2 else "changed"
            found.append(f"{_STANDING_FOR[name]}: {what}")
        else:
            found.append(_change(name, one, other))
    return found


def _of_models(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[str]:
    first, second = ([entry["name"] for entry in models] for models in (before, now))
    if first != second:
        return [_change("model", first, second)]
    found: list[str] = []
    for one, other in zip(before, now, strict=True):
        typed = [
            _change(
                f"model {one['name']}" if key == "weights" else key, one.get(key), other.get(key)
            )
            for key in _OF_MODELS
            if one.get(key) != other.get(key)
        ]
        if not typed and one != other:
            known, seen = dict(_flat(one)), dict(_flat(other))
            parts = sorted(
                key for key in known.keys() | seen.keys() if known.get(key) != seen.get(key)
            )
            typed = [f"what --model {one['name']} stands for: changed ({', '.join(parts)})"]
        found += typed
    return list(dict.fromkeys(found))


def _change(name: str, before: Any, now: Any) -> str:
    option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
    if name == "worst_case":  # which has a default of its own
        before, now = (value or "none (--no-worst-case)" for value in (before, now))
    return f"{option}: {_said(before)} -> {_said(now)}"


def _said(value: Any) -> str:
    """A value as it would be typed."""
    if value is None or value is False:
        return "not given"
    if value is True:
        return "given"
    text = " ".join(map(_said, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values in nested mappings, by their joined keys."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _flat(entry, f"{name}.{key}" if name else str(key))
    else:
        yield name, value
