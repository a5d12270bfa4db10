"""Break the code on purpose, line by line, and see whether a test notices.

    python scripts/mutants.py                        # all modules below; hours
    python scripts/mutants.py attacks/keep.py        # some
    python scripts/mutants.py --most 40 attacks/keep.py

Each module is mutated by cosmic-ray (operators, numbers, comparisons, ...) in a copy of the
repository, and the tests that are responsible for it run on every mutant. What survives is written
to ``benchmarks/results/mutants.json``, module by module, so that the work can be interrupted; those
that change a result are faults of the tests, the others are explained in ``docs/decisions.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "mutants.json"
SOURCE = Path("src/trompe")

TESTS = {
    "attacks/keep.py": ["attacks/test_level_set.py", "attacks/test_manipulate.py"],
    "attacks/level_set.py": ["attacks/test_level_set.py"],
    "attacks/loss.py": ["attacks/test_objectives.py", "attacks/test_recorded.py"],
    "attacks/loop.py": ["attacks/test_loop.py", "attacks/test_manipulate.py"],
    "attacks/constraints/linf.py": ["attacks/test_constraints.py"],
    "attacks/constraints/l2.py": ["attacks/test_constraints.py"],
    "attacks/constraints/l1.py": ["attacks/test_constraints.py"],
    "attacks/objectives/reach_map.py": ["attacks/test_objectives.py", "attacks/test_recorded.py"],
    "attacks/objectives/topk_margin.py": ["attacks/test_objectives.py"],
    "attacks/steps/scaled_adam.py": ["attacks/test_steps.py", "attacks/test_recorded.py"],
    "attacks/steps/signed.py": ["attacks/test_steps.py", "attacks/test_recorded.py"],
    "audit/flags.py": ["audit"],
    "audit/leaderboard.py": ["audit"],
    "certificates/bounds.py": ["certificates"],
    "certificates/gradient_set.py": ["certificates"],
    "certificates/layer_norms.py": ["certificates"],
    "certificates/randomised.py": ["certificates"],
    "certificates/upper.py": ["certificates"],
    "certificates/methods/telescope.py": ["certificates"],
}
"""Per module below ``src/trompe`` the tests below ``tests`` that must notice a fault in it."""


def session(folder: Path, module: str, most: int | None) -> Path:
    """List the mutants of a module; all but ``most`` of them, drawn with a seed, are left out."""
    tests = " ".join(f"tests/{name}" for name in TESTS[module])
    (folder / "mutants.toml").write_text(
        "[cosmic-ray]\n"
        f'module-path = "{SOURCE / module}"\n'
        "timeout = 120.0\n"
        "excluded-modules = []\n"
        f'test-command = "{sys.executable} -m pytest -x -q -p no:cacheprovider {tests}"\n'
        "[cosmic-ray.distributor]\n"
        'name = "local"\n'
    )
    database = folder / "mutants.sqlite"
    database.unlink(missing_ok=True)
    ray("init", "mutants.toml", database.name, folder=folder)
    with sqlite3.connect(database) as store:
        jobs = [row[0] for row in store.execute("select job_id from work_items order by job_id")]
        if most is not None and most < len(jobs):
            out = random.Random(0).sample(sorted(jobs), len(jobs) - most)
            for table in ("mutation_specs", "work_items"):
                store.executemany(f"delete from {table} where job_id = ?", [(j,) for j in out])
    return database


def ray(*arguments: str, folder: Path) -> None:
    """Run cosmic-ray in the copy, which is what the tests import."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "cosmic_ray.cli", *arguments]
    subprocess.run(command, cwd=folder, env=environment, check=True)


def judged(database: Path) -> dict[str, Any]:
    """How many mutants were noticed, and where the others are."""
    with sqlite3.connect(database) as store:
        rows = store.execute(
            "select m.operator_name, m.start_pos_row, m.occurrence, r.test_outcome, r.diff "
            "from mutation_specs m join work_results r on m.job_id = r.job_id"
        ).fetchall()
    survivors = [
        {
            "line": line,
            "operator": operator,
            "change": [
                text
                for text in (diff or "").splitlines()
                if text[:1] in "+-" and text[:3] not in ("+++", "---")
            ],
        }
        for operator, line, _, outcome, diff in rows
        if "SURVIVED" in str(outcome).upper()
    ]
    return {"mutants": len(rows), "survived": len(survivors), "survivors": survivors}


def main() -> None:
    """Mutate, test, and write down what survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="below src/trompe; by default all")
    parser.add_argument("--most", type=int, help="mutants of each module, drawn with a seed")
    arguments = parser.parse_args()
    for module in arguments.modules:
        if module not in TESTS:
            parser.error(f"no tests are known for {module}: choose from {', '.join(TESTS)}")
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("src", "tests", "pyproject.toml", "README.md"):
            place = ROOT / name
            if place.is_dir():
                shutil.copytree(place, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(place, folder / name)
        for module in arguments.modules or TESTS:
            database = session(folder, module, arguments.most)
            ray("exec", "mutants.toml", database.name, folder=folder)
            found[module] = judged(database)
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
            print(f"{module}: {found[module]['survived']} of {found[module]['mutants']} survived")


if __name__ == "__main__":
    main()
