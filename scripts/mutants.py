"""Break the code on purpose, line by line, and see whether a test notices.

    python scripts/mutants.py                             # all modules below; hours
    python scripts/mutants.py attacks/keep.py             # some
    python scripts/mutants.py --most 40 certificates/     # all below a folder, 40 mutants of each

The mutants (other operators, numbers, comparisons, ...) are those of cosmic-ray, but for
annotations, which nothing evaluates. The tests that are responsible for a module run on each of its
mutants, in a copy of the repository and in a process that is split off from this one, so that
PyTorch is imported once and not for every mutant. What survives is written to
``benchmarks/results/mutants.json``, module by module, so that the work can be interrupted; those
that change a result are faults of the tests, the others are explained in ``docs/decisions.md``.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "mutants.json"
SOURCE = Path("src/trompe")
#: What the tests import besides trompe, and what takes its time.
HEAVY = ("torch", "torchvision", "scipy.optimize", "scipy.stats", "matplotlib.figure", "pytest")

_ATTACKS = ["attacks/test_loop.py", "attacks/test_recorded.py", "attacks/test_manipulate.py"]
_OBJECTIVES = [
    "attacks/test_objectives.py",
    "attacks/test_untargeted_objectives.py",
    "attacks/test_recorded.py",
]
_STEPS = ["attacks/test_steps.py", "attacks/test_recorded.py", "attacks/test_apgd.py"]
_CONSTRAINTS = ["attacks/test_constraints.py", "attacks/test_transforms.py"]
_BOUNDS = [
    "certificates/test_closed_forms.py",
    "certificates/test_recorded_bounds.py",
    "certificates/test_soundness.py",
    "certificates/test_telescope.py",
    "certificates/test_certificate_contract.py",
    "certificates/test_certify.py",
]
_NOISE = [
    "certificates/test_closed_forms.py",
    "certificates/test_binomial.py",
    "certificates/test_gaussian_shift.py",
    "certificates/test_randomised.py",
    "certificates/test_noise.py",
    "certificates/test_certificate_contract.py",
]
_NOISY = ("binomial", "gaussian_shift", "noise_bounds", "noise_certificate", "noise_statistics")
_NOISY += ("noisy_maps", "randomised", "methods/noise", "methods/smoothgrad")

TESTS = {
    "attacks/keep.py": ["attacks/test_level_set.py", "attacks/test_kept_outputs.py"],
    "attacks/level_set.py": ["attacks/test_level_set.py", "attacks/test_kept_outputs.py"],
    "attacks/loss.py": ["attacks/test_objectives.py", "attacks/test_recorded.py"],
    "attacks/loop.py": _ATTACKS,
    "attacks/constraints/": _CONSTRAINTS,
    "attacks/objectives/": _OBJECTIVES,
    **{f"attacks/steps/{name}.py": _CONSTRAINTS for name in ("recolour", "spatial", "transform")},
    "attacks/steps/": _STEPS,
    "audit/flags.py": ["audit/test_flags.py"],
    "audit/judgement.py": ["audit/test_judgement.py", "audit/test_other_objectives.py"],
    "audit/leaderboard.py": ["audit/test_verify.py", "audit/test_other_objectives.py"],
    "robustness/shares.py": ["robustness/test_shares.py"],
    **{f"certificates/{name}.py": _NOISE for name in _NOISY},
    "certificates/sandwich.py": ["certificates/test_original_class.py", *_BOUNDS],
    "certificates/worst_case.py": ["certificates/test_original_class.py", *_BOUNDS],
    "certificates/upper.py": ["certificates/test_upper.py", *_BOUNDS],
    "certificates/": _BOUNDS,
}
"""Per module or folder below ``src/trompe`` the tests below ``tests`` that must notice a fault."""


def tests_of(module: str) -> list[str]:
    """The tests that are responsible for a module; those of its folder if it has none itself."""
    if module in TESTS:
        return TESTS[module]
    folders = [name for name in TESTS if name.endswith("/") and module.startswith(name)]
    return TESTS[max(folders, key=len)]


def modules_of(names: list[str]) -> list[str]:
    """The modules that are named, one by one or as folders; all that have tests by default.

    Raises:
        SystemExit: if nothing is known of a name.
    """
    found = []
    for name in names or list(TESTS):
        place = ROOT / SOURCE / name
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
        own = [str(file.relative_to(ROOT / SOURCE)) for file in files]
        unknown = [one for one in own if one not in TESTS and not one.startswith(tuple(FOLDERS))]
        if unknown or not all(file.exists() for file in files):
            raise SystemExit(f"no tests are known for {name}: choose from {', '.join(TESTS)}")
        found += [one for one in own if not one.endswith("__init__.py")]
    return list(dict.fromkeys(found))


FOLDERS = [name for name in TESTS if name.endswith("/")]


@dataclass(frozen=True)
class Mutant:
    """One change of a module.

    Args:
        operator: what cosmic-ray calls the kind of change.
        occurrence: which of the places where it is possible.
        line: of the place, from 1.
        column: of the place, from 0.
    """

    operator: str
    occurrence: int
    line: int
    column: int


def annotations(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations begin and end: lines from 1, columns from 0."""
    found = []
    for node in ast.walk(ast.parse(source)):
        for name in ("annotation", "returns"):
            part = getattr(node, name, None)
            if isinstance(part, ast.expr):
                end = (part.end_lineno or 0, part.end_col_offset or 0)
                found.append(((part.lineno, part.col_offset), end))
    return found


def mutants_of(source: str) -> Iterator[Mutant]:
    """All mutants of a module, but for those that change an annotation alone."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    tree, spared = get_ast(source), annotations(source)
    for name in operator_names():
        kind = get_operator(name)
        if kind.arguments():
            continue
        operator = kind()
        places = (place for node in ast_nodes(tree) for place in operator.mutation_positions(node))
        for occurrence, (start, _) in enumerate(places):
            if not any(first <= tuple(start) < last for first, last in spared):
                yield Mutant(name, occurrence, start[0], start[1])


def mutated(source: str, mutant: Mutant) -> str | None:
    """The module with one change, or ``None`` where it cannot be made."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    changed: str | None = mutate_code(source, get_operator(mutant.operator)(), mutant.occurrence)
    return changed


def passed(folder: Path, tests: list[str], limit: float) -> bool:
    """Whether the tests pass in the copy, in a process of their own that ends within a limit."""
    child = os.fork()
    if child == 0:
        _run_tests(folder, tests)
    ends = time.monotonic() + limit
    while time.monotonic() < ends:
        done, state = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(state)
            if code == 5:
                raise SystemExit(f"{' '.join(tests)} has no tests")
            return code == 0
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _run_tests(folder: Path, tests: list[str]) -> None:
    """The body of the process; it never returns."""
    os.setpgid(0, 0)
    os.chdir(folder)
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(folder / "src"), str(folder / "tests")]
    os.environ["PYTHONPATH"] = str(folder / "src")
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    code = 70
    try:
        import pytest

        options = ["-x", "-q", "-p", "no:cacheprovider", *(f"tests/{name}" for name in tests)]
        code = int(pytest.main(options))
    finally:
        os._exit(code)


def changed_lines(before: str, after: str) -> list[str]:
    """The lines that differ, as a diff shows them."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def judged(folder: Path, module: str, most: int | None) -> dict[str, Any]:
    """Test the mutants of a module, and list those that no test noticed.

    Args:
        folder: a copy of the repository.
        module: below ``src/trompe``.
        most: mutants that are tried, drawn with a seed; all if not given.

    Raises:
        SystemExit: if the tests fail without any change.
    """
    place, tests = folder / SOURCE / module, tests_of(module)
    source = place.read_text(encoding="utf-8")
    begun = time.monotonic()
    if not passed(folder, tests, 600):
        raise SystemExit(f"{module}: {' '.join(tests)} fails as it is")
    limit = max(20.0, 5 * (time.monotonic() - begun))
    every = list(mutants_of(source))
    chosen = every if most is None else random.Random(0).sample(every, min(most, len(every)))
    tried, survivors = 0, []
    try:
        for mutant in sorted(chosen, key=lambda one: (one.line, one.column, one.operator)):
            changed = mutated(source, mutant)
            if changed is None or changed == source:
                continue
            place.write_text(changed, encoding="utf-8")
            tried += 1
            if passed(folder, tests, limit):
                change = changed_lines(source, changed)
                survivors.append(
                    {"line": mutant.line, "operator": mutant.operator, "change": change}
                )
    finally:
        place.write_text(source, encoding="utf-8")
    return {
        "mutants": tried,
        "of": len(every),
        "survived": len(survivors),
        "tests": tests,
        "survivors": survivors,
    }


def main() -> None:
    """Mutate, test, and write down what survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="below src/trompe, or a folder/; default: all")
    parser.add_argument("--most", type=int, help="mutants of each module, drawn with a seed")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the file of the survivors")
    arguments = parser.parse_args()
    modules = modules_of(arguments.modules)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in HEAVY:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("src", "tests", "pyproject.toml", "README.md"):
            place = ROOT / name
            if place.is_dir():
                shutil.copytree(place, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(place, folder / name)
        for module in modules:
            row = judged(folder, module, arguments.most)
            found = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
            found[module] = row
            arguments.output.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n")
            print(f"{module}: {row['survived']} of {row['mutants']} survived", flush=True)


if __name__ == "__main__":
    main()
