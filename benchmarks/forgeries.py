"""What a forger might do to the run of an audit: over 300 changes, none of them a bit flip.

Every column of every table is changed alone, in an attack, in a search for the worst case and in a
certificate where the table has all; then come changes that somebody with a purpose would make.
"""

# ruff: noqa: S608 - all statements are made of words of this file

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trompe.attacks import Unlike
from trompe.audit import chain
from trompe.audit.batches import CERTIFICATE, WORST_CASE, Cell
from trompe.audit.certified import certified_metrics
from trompe.audit.findings import storable
from trompe.audit.judgement import Judge, metrics_of, outcome_of
from trompe.audit.provenance import input_space, outputs_meaning
from trompe.audit.results import Row, Run
from trompe.audit.schema import FILE
from trompe.audit.seal import write_seal
from trompe.audit.store import Store
from trompe.geometry.smoothed_method import make_method
from trompe.outputs import Outputs

Change = Callable[[Path], None]

_SEARCH, _CERTIFICATE = f"preset = '{WORST_CASE}'", f"preset = '{CERTIFICATE}'"
_ATTACK = f"preset NOT IN ('{WORST_CASE}', '{CERTIFICATE}')"
#: The kinds of cells, and what the names of their forgeries end with.
_KINDS = {"": _ATTACK, " of a search": _SEARCH, " of a certificate": _CERTIFICATE}
_LAST = f"(SELECT MAX(id) FROM cells WHERE {_SEARCH})"
_PROVEN = f"(SELECT MAX(id) FROM cells WHERE {_CERTIFICATE})"
_SEARCHES = f"(SELECT id FROM cells WHERE {_SEARCH})"
_CERTIFICATES = f"(SELECT id FROM cells WHERE {_CERTIFICATE})"

#: What somebody with a purpose would do to the tables.
STATEMENTS = {
    "a cell deleted": "DELETE FROM metrics WHERE cell = 1; DELETE FROM cells WHERE id = 1",
    "a search deleted": f"DELETE FROM metrics WHERE cell = {_LAST}; DELETE FROM cells WHERE "
    f"id = {_LAST}",
    "a batch deleted": "DELETE FROM metrics WHERE cell IN (SELECT id FROM cells WHERE batch = 2);"
    "DELETE FROM cells WHERE batch = 2; DELETE FROM batches WHERE id = 2",
    "all searches deleted": f"DELETE FROM metrics WHERE cell IN {_SEARCHES}; DELETE FROM cells "
    f"WHERE {_SEARCH}; DELETE FROM batches WHERE {_SEARCH}",
    "a cell added": "INSERT INTO cells SELECT id + 1000, batch, model, method, smoothing, preset, "
    "target, image, status, tries, message, flags, x, target_x, arrays, finished FROM cells "
    "WHERE id = 1",
    "a cell reopened": "DELETE FROM metrics WHERE cell = 1; UPDATE cells SET status = 'open', "
    "x = NULL, target_x = NULL, arrays = NULL WHERE id = 1",
    "an attack said to have failed": "DELETE FROM metrics WHERE cell = 1; UPDATE cells SET "
    "status = 'error', message = 'no memory', x = NULL, target_x = NULL, arrays = NULL, "
    "flags = NULL WHERE id = 1",
    "a search said to have failed": f"DELETE FROM metrics WHERE cell = {_LAST}; UPDATE cells SET "
    "status = 'error', message = 'no memory', x = NULL, target_x = NULL, arrays = NULL, "
    f"flags = NULL WHERE id = {_LAST}",
    "a metric invented": "INSERT INTO metrics VALUES (1, 'robustness', 1.0)",
    "a metric of searches invented": f"INSERT INTO metrics VALUES ({_LAST}, 'robustness', 1.0)",
    "all flags exchanged": "UPDATE cells SET flags = CASE flags WHEN '[]' THEN "
    "'[\"noise does it too\"]' ELSE '[]' END",
    "all flags the other way round": "UPDATE cells SET flags = CASE flags WHEN '[]' THEN "
    "'[\"class changed\"]' ELSE '[]' END",
    "two images exchanged": "UPDATE images SET name = 'x' WHERE id = 0; UPDATE images SET "
    "name = (SELECT name FROM images WHERE id = 1) WHERE id = 0; UPDATE images SET "
    "name = 'i0000.png' WHERE id = 1",
    "an image added": "INSERT INTO images VALUES (1000, 'new.png', NULL, 'aa')",
    "an image left out": "UPDATE screens SET usable = 0 WHERE image = (SELECT MIN(image) FROM "
    "screens)",
    "image and target exchanged": "UPDATE cells SET image = target, target = image WHERE id = 1",
    "the original as the target": "UPDATE cells SET target_x = x WHERE id = 1",
    "the arrays of another attack": "UPDATE cells SET arrays = (SELECT arrays FROM cells WHERE "
    "id = 2) WHERE id = 1",
    "the arrays of two attacks swapped": "CREATE TEMP TABLE two AS SELECT id, arrays FROM cells "
    "WHERE id IN (1, 2); UPDATE cells SET arrays = (SELECT arrays FROM two WHERE two.id = "
    "3 - cells.id) WHERE id IN (1, 2)",
    "one search's arrays for all": "UPDATE cells SET arrays = (SELECT MIN(arrays) FROM cells "
    f"WHERE {_SEARCH}) WHERE {_SEARCH}",
    "searches under another method": f"UPDATE cells SET method = 'lrp' WHERE {_SEARCH}; "
    f"UPDATE batches SET method = 'lrp' WHERE {_SEARCH}",
    "all under another method": "UPDATE cells SET method = 'lrp'; UPDATE batches SET "
    "method = 'lrp'",
    "a defence renamed": "UPDATE cells SET smoothing = 'beta=9.0' WHERE smoothing = 'beta=0.8';"
    "UPDATE batches SET smoothing = 'beta=9.0' WHERE smoothing = 'beta=0.8'",
    "a file of another machine": "UPDATE cells SET arrays = '../../../../etc/passwd' WHERE id = 1",
    "searches that looked at nothing": "UPDATE metrics SET value = 0 WHERE name IN "
    "('judged', 'flipped')",
    "searches that looked ten times as long": "UPDATE metrics SET value = 10 * value WHERE name "
    "IN ('judged', 'flipped')",
    "half an attempt": "UPDATE metrics SET value = value + 0.5 WHERE name = 'judged'",
    "better worst cases": "UPDATE metrics SET value = 0.99 WHERE name = 'map_original_pcc' AND "
    f"cell IN {_SEARCHES}",
    "smaller changes in searches": "UPDATE metrics SET value = value / 2 WHERE name = "
    f"'image_linf' AND cell IN {_SEARCHES}",
    "doubts of searches invented": f"UPDATE cells SET flags = '[\"all is well\"]' WHERE {_SEARCH}",
}

#: The same, of certificates.
OF_CERTIFICATES = {
    "a certificate deleted": f"DELETE FROM metrics WHERE cell = {_PROVEN}; DELETE FROM cells WHERE "
    f"id = {_PROVEN}",
    "all certificates deleted": f"DELETE FROM metrics WHERE cell IN {_CERTIFICATES}; DELETE FROM "
    f"cells WHERE {_CERTIFICATE}; DELETE FROM batches WHERE {_CERTIFICATE}",
    "a certificate said to have failed": f"DELETE FROM metrics WHERE cell = {_PROVEN}; UPDATE "
    "cells SET status = 'error', message = 'no memory', x = NULL, target_x = NULL, arrays = NULL, "
    f"flags = NULL WHERE id = {_PROVEN}",
    "a search for a certificate": f"UPDATE cells SET arrays = (SELECT MIN(arrays) FROM cells WHERE "
    f"{_SEARCH}) WHERE id = {_PROVEN}",
    "one certificate's counts for all": "UPDATE cells SET arrays = (SELECT MIN(arrays) FROM cells "
    f"WHERE {_CERTIFICATE}) WHERE {_CERTIFICATE}",
    "certificates under another method": f"UPDATE cells SET method = 'lrp' WHERE {_CERTIFICATE}; "
    f"UPDATE batches SET method = 'lrp' WHERE {_CERTIFICATE}",
    "better certificates": "UPDATE metrics SET value = 0.99 WHERE name = 'certified_pcc'",
    "answers certified": "UPDATE metrics SET value = 1 - value WHERE name = 'certified_label'",
    "ten times the copies": "UPDATE metrics SET value = 10 * value WHERE name = 'copies'",
    "smoothed maps like the plain ones": "UPDATE metrics SET value = 1 WHERE name = 'pcc_to_plain'",
    "a metric of certificates invented": f"INSERT INTO metrics VALUES ({_PROVEN}, 'proved', 1.0)",
    "doubts of certificates invented": "UPDATE cells SET flags = '[\"class changed\"]' WHERE "
    f"{_CERTIFICATE}",
}

#: What might be done to the settings.
SETTINGS: dict[str, Callable[[dict[str, Any]], object]] = {
    "seed": lambda s: s.update(seed=5),
    "iterations": lambda s: s.update(iterations=1500),
    "pairs": lambda s: s.update(pairs=1),
    "batch size": lambda s: s.update(batch_size=4),
    "betas": lambda s: s.update(recovery=[3.0]),
    "methods": lambda s: s.update(methods=["lrp"]),
    "presets": lambda s: s.update(presets=["thorough"]),
    "smoothings": lambda s: s.update(smoothings=["none"]),
    "budget of the search": lambda s: s.update(worst_case=2 * s["worst_case"]),
    "no search": lambda s: s.update(worst_case=None),
    "keep wrong": lambda s: s.update(keep_wrong=True),
    "objective": lambda s: s.update(objective="unlike"),
    "constraint": lambda s: s.update(constraint="linf:1/255"),
    "model": lambda s: s["models"][0].update(name="smallnet:other"),
    "normalisation": lambda s: s["models"][0]["found"].update(std=[0.5, 0.5, 0.5]),
    "weights": lambda s: s["models"][0]["found"].update(weights_of={"smallnet:net": "00"}),
    "code": lambda s: s["models"][0]["found"].update(code_of={"smallnet": "00"}),
    "number of images": lambda s: s["source"].update(count=50),
    "names of images": lambda s: s["source"].update(names_sha256="00"),
    "contents of images": lambda s: s["source"].update(content_sha256="00"),
    "all emptied": lambda s: s.clear(),
}


def _found(settings: dict[str, Any], **values: object) -> None:
    settings["models"][0]["found"].update(values)


#: These are no settings at all: whatever reads the run says so in one line.
MALFORMED: dict[str, Callable[[dict[str, Any]], object]] = {
    "an option of outputs": lambda s: _found(s, outputs={"meaning": "classes", "limit": 3}),
    "a meaning of outputs": lambda s: _found(s, outputs={"meaning": "truth"}),
    "a threshold in words": lambda s: _found(s, outputs={"threshold": "high"}),
    "outputs in a word": lambda s: _found(s, outputs="value"),
    "a mean in words": lambda s: _found(s, mean=["a", "b", "c"]),
    "a std that is none": lambda s: _found(s, std=None),
}

#: The same, where certificates are asked for.
SETTINGS_OF_CERTIFICATES: dict[str, Callable[[dict[str, Any]], object]] = {
    "radius": lambda s: s.update(certify=s["certify"].replace("0.125", "0.5")),
    "noise": lambda s: s.update(certify=s["certify"].replace("sigma=0.25", "sigma=0.5")),
    "samples": lambda s: s.update(certify=s["certify"].replace("samples=", "samples=1")),
    "squares": lambda s: s.update(certify=s["certify"].replace("pool=4", "pool=5")),
    "confidence": lambda s: s.update(certify=s["certify"] + ",confidence=0.999"),
    "denoiser": lambda s: s.update(certify=s["certify"] + ",denoiser=true"),
    "no certificates": lambda s: s.update(certify=None),
}

#: Fields of an entry of the leaderboard, and what they might be made to say.
FIELDS: dict[str, Any] = {
    "model": "vgg16",
    "method": "lrp",
    "defence": "beta=9.0",
    "presets": ["thorough"],
    "iterations": 1500,
    "images": 100,
    "attacks": 100,
    "failed": 1,
    "robust_explanation_accuracy": 0.77,
    "interval": [0.7, 0.8],
    "status": {},
    "robust_explanation_accuracy_any_radius": 0.77,
    "curve": [],
    "attacks_outside_radius": 7,
    "classes_changed": 7,
    "worst_case": {"budget": 5.0},
    "certified": {"share": 1.0},
    "unreadable": 3,
    "note": "a lower bound",
    "source": {},
    "seed": 9,
    "versions": {},
    "run": "00",
}


@dataclass(frozen=True)
class Forgery:
    """A change of a run.

    Args:
        name: what is done, in words.
        change: does it to the folder of a run.
        sealable: whether the public checksum functions can be made to fit afterwards.
    """

    name: str
    change: Change
    sealable: bool = True


def _altered(value: Any) -> Any:
    """Another value of the same kind."""
    if value is None:
        return 1
    if isinstance(value, int):
        return value + 1000
    if isinstance(value, float):
        return value + 0.0123
    if value.startswith("["):
        return '["class changed"]' if value == "[]" else "[]"
    return ("0" if value[0] != "0" else "1") + value[1:] if value else "x"


def _sql(statements: str) -> Change:
    def change(run: Path) -> None:
        with sqlite3.connect(run / FILE) as db:
            db.executescript(statements)
        db.close()

    return change


def _column(table: str, column: str, which: str) -> Change:
    def change(run: Path) -> None:
        with sqlite3.connect(run / FILE) as db:
            key = "rowid" if table != "metrics" else "(cell, name)"
            chosen = "rowid" if table != "metrics" else "cell, name"
            found = db.execute(f"SELECT {chosen}, {column} FROM {table} {which} LIMIT 1").fetchone()
            *row, value = found
            place = "(?, ?)" if len(row) == 2 else "?"
            db.execute(
                f"UPDATE {table} SET {column} = ? WHERE {key} = {place}",
                (_altered(value), *row),
            )
        db.close()

    return change


def _columns(run: Path) -> Iterator[Forgery]:
    """Every column of every table that has rows at rest."""
    db = sqlite3.connect(run / FILE)
    tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        if db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] == 0:
            continue
        kinds = {"": ""}
        if table in ("batches", "cells"):
            kinds = {words: f"WHERE {own}" for words, own in _KINDS.items()}
        for words, which in kinds.items():
            for column in columns:
                if table != "metrics" or column != "value":
                    name = f"{table}.{column}{words}"
                    yield Forgery(name, _column(table, column, which), table != "chain")
    for words, kind in _KINDS.items():
        own = f"cell IN (SELECT id FROM cells WHERE {kind})"
        for (name,) in db.execute(f"SELECT DISTINCT name FROM metrics WHERE {own} ORDER BY name"):
            change = _column("metrics", "value", f"WHERE {own} AND name = '{name}'")
            yield Forgery(f"metric {name}{words}", change)
    db.close()


def _setting(alter: Callable[[dict[str, Any]], object]) -> Change:
    def change(run: Path) -> None:
        with sqlite3.connect(run / FILE) as db:
            (text,) = db.execute("SELECT value FROM meta WHERE key = 'settings'").fetchone()
            record = json.loads(text)
            alter(record)
            new = json.dumps(record, sort_keys=True)
            db.execute("UPDATE meta SET value = ? WHERE key = 'settings'", (new,))
        db.close()

    return change


def _field(name: str, value: Any, checksummed: bool) -> Change:
    def change(run: Path) -> None:
        path = sorted((run / "leaderboard").iterdir())[0]
        entry = json.loads(path.read_text())
        assert entry[name] != value, name
        entry[name] = value
        if checksummed:
            del entry["checksum"]
            entry["checksum"] = chain.checksum(entry)
        path.write_text(json.dumps(entry, indent=2) + "\n")

    return change


Make = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


def _recounted(make: Make) -> Change:
    """Other counts for one certificate, under their right name, with the bounds that follow."""

    def change(run: Path) -> None:
        with Store(run) as store:
            whole = Run(store)
            row, asked = whole.certificates[0], whole.settings.certification
            assert asked is not None
            arrays = whole.arrays(row)
            x, _ = arrays.pop("x"), arrays.pop("target_x")
            made = {**arrays, **make(arrays)}
            means = outputs_meaning(whole.facts(row.model)) or Outputs()
            with store.transaction() as db:
                db.execute(
                    "UPDATE cells SET arrays = ? WHERE id = ?", (store.arrays.put(made), row.id)
                )
                for name, value in certified_metrics(made, asked, x[0].numel(), means).items():
                    db.execute(
                        "UPDATE metrics SET value = ? WHERE cell = ? AND name = ?",
                        (storable(value), row.id, name),
                    )

    return change


def _rewritten(search: bool, make: Make) -> Change:
    """Other arrays for one cell, under their right name, with the metrics that follow from them."""

    def change(run: Path) -> None:
        with Store(run) as store:
            whole = Run(store)
            row = (whole.searches if search else whole.rows)[0]
            arrays = whole.arrays(row)
            x, target_x = arrays.pop("x"), arrays.pop("target_x")
            made = {**arrays, "x": x, "target_x": target_x, **make({**arrays, "x": x})}
            names = {key: store.arrays.put({"x": made.pop(key)}) for key in ("x", "target_x")}
            names["arrays"] = store.arrays.put({key: one.clone() for key, one in made.items()})
            after = {**made, "x": store.arrays.get(names["x"])["x"]}
            values = metrics_of(after["x"], after, input_space(whole.facts(row.model)))
            values |= _control(whole, row, after)
            with store.transaction() as db:
                for column, name in names.items():
                    db.execute(f"UPDATE cells SET {column} = ? WHERE id = ?", (name, row.id))
                for name, value in values.items():
                    db.execute(
                        "UPDATE metrics SET value = ? WHERE cell = ? AND name = ?",
                        (storable(value), row.id, name),
                    )

    return change


def _control(run: Run, row: Row, arrays: Mapping[str, Tensor]) -> dict[str, float]:
    """The control with noise and the maps by beta, made anew by the network."""
    loaded = run.settings.models[0].load()
    method = make_method(row.method, loaded, smoothing=row.smoothing)
    judge = Judge(run.settings, loaded, method, Unlike(), row.smoothing is None)
    outcome = outcome_of(arrays["x"], arrays)
    cell = Cell(row.id, row.image_number, row.target_number)
    found = judge.control(outcome, judge.noisy(outcome, [cell]))
    if row.smoothing is None and row.preset != WORST_CASE:
        found |= judge.recovery(outcome)
    return {name: float(column[0]) for name, column in found.items()}


def _nothing(arrays: dict[str, Tensor]) -> Mapping[str, Tensor]:
    """A search, or an attack, that gave the original back."""
    return {
        "x_adv": arrays["x"],
        "map_adv": arrays["map_original"],
        "logits_adv": arrays["logits_original"],
    }


#: What might be done to the arrays of a cell; the metrics are made to follow.
ARRAYS: dict[str, Make] = {
    "gave the original back": _nothing,
    "another map": lambda a: {"map_adv": a["map_original"]},
    "another original map": lambda a: {"map_original": a["map_adv"].clone()},
    "other logits": lambda a: {"logits_adv": a["logits_original"]},
    "half the change": lambda a: {"x_adv": (a["x_adv"] + a["x"]) / 2},
    "twice the change": lambda a: {"x_adv": 2 * a["x_adv"] - a["x"]},
    "another image": lambda a: {"x": a["x"].flip(-1)},
    "noise for the result": lambda a: {
        "x_adv": a["x"]
        + 0.01 * torch.randn(a["x"].shape, generator=torch.Generator().manual_seed(0))
    },
    "an array more": lambda a: {"extra": torch.zeros(3)},
}


#: What might be done to the counts of a certificate; its bounds are made to follow.
COUNTS: dict[str, Make] = {
    "every copy agrees": lambda a: {
        "along": torch.full_like(a["along"], int(a["samples"])),
        "away": torch.full_like(a["away"], int(a["samples"])),
    },
    "every copy has the label": lambda a: {"label": a["samples"].clone()},
    "another label": lambda a: {"voted": a["voted"] + 1},
    "larger squares": lambda a: {"marked": a["marked"].flip(-1)},
    "fewer squares count": lambda a: {"top": a["top"] + 1},
    "less spread": lambda a: {"spread": a["spread"] / 2},
    "other levels": lambda a: {"along_levels": a["along_levels"] + 0.05},
    "another smoothed map": lambda a: {"smoothed": a["smoothed"].flip(-1)},
    "another standardised map": lambda a: {"standardised": a["standardised"].flip(-1)},
    "other logits": lambda a: {"logits_original": a["logits_original"].flip(-1)},
    "ten times the copies": lambda a: {"samples": 10 * a["samples"]},
    "an array more": lambda a: {"extra": torch.zeros(3)},
}


def forgeries(run: Path) -> list[Forgery]:
    """All of them, for a run of attacks, searches and certificates with report and leaderboard."""
    found = list(_columns(run))
    found += [Forgery(name, _sql(text)) for name, text in (STATEMENTS | OF_CERTIFICATES).items()]
    found += [
        Forgery(f"settings: {name}", _setting(alter))
        for name, alter in (SETTINGS | SETTINGS_OF_CERTIFICATES | MALFORMED).items()
    ]
    found += [Forgery(f"certificate: {name}", _recounted(make)) for name, make in COUNTS.items()]
    for name, make in ARRAYS.items():
        found += [
            Forgery(f"{kind}: {name}", _rewritten(search, make))
            for kind, search in (("attack", False), ("search", True))
        ]
    for field, value in FIELDS.items():
        found += [
            Forgery(f"leaderboard: {field}", _field(field, value, False), False),
            Forgery(f"leaderboard: {field}, its checksum too", _field(field, value, True), False),
        ]
    return found


def reseal(run: Path) -> None:
    """Make all checksums fit, as a forger with this package could; leave the report away."""
    with Store(run) as store, store.transaction() as db:
        db.execute("DELETE FROM chain")
        for subject in dict.fromkeys(chain._expected(db)):
            chain.link(db, subject)
    with Store(run) as store:
        write_seal(store)
    for path in (*run.glob("report.*"), *run.glob("audit-report.*")):
        path.unlink()
    for name in ("figures", "tables", "leaderboard"):
        shutil.rmtree(run / name, ignore_errors=True)


def flip_a_bit(run: Path, draw: random.Random) -> str:
    """Turn one bit over, somewhere in the run; longer files are met more often."""
    files = [p for p in sorted(run.rglob("*")) if p.is_file() and p.stat().st_size]
    path = draw.choices(files, weights=[p.stat().st_size ** 0.5 for p in files])[0]
    content = bytearray(path.read_bytes())
    place, bit = draw.randrange(len(content)), draw.randrange(8)
    content[place] ^= 1 << bit
    path.write_bytes(content)
    return f"{path.relative_to(run)}, byte {place}, bit {bit}"
