"""The shape of the package: imports go downward, modules stay small, the library does not print."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "trompe"
# From the top down; modules at the root are below all.
LAYERS = (
    "__main__",
    "api",
    "cli",
    "app",
    "report",
    "audit",
    "tampering",
    "defences",
    "training",
    "certificates",
    "robustness",
    "attacks",
    "geometry",
    "metrics",
    "adapters",
    "explain",
    "rules",
    "engine",
    "zoo",
)
MODULES = sorted(PACKAGE.rglob("*.py"))


def layer(dotted: str) -> str:
    """The first part below ``trompe``: a layer's name, or a root module's."""
    return [*dotted.split("."), ""][1]


def rank(name: str) -> int:
    return LAYERS.index(name) if name in LAYERS else len(LAYERS)


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module of trompe that is imported anywhere in a module, except for type checking."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if (node.module or "").split(".")[0] == "trompe":
                if node.module == "trompe":
                    yield from (f"trompe.{name.name}" for name in node.names)
                else:
                    yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (n.name for n in node.names if n.name.split(".")[0] == "trompe")


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_strictly_downward(path: Path) -> None:
    if path.parent == PACKAGE and path.name == "__init__.py":
        pytest.skip("the package itself hands out names of all layers, on first use")
    parts = path.relative_to(PACKAGE).parts
    own = parts[0].removesuffix(".py")
    for module in imported(ast.parse(path.read_text(encoding="utf-8"))):
        other = layer(module)
        if other in ("", own):
            continue  # the bare package has the version; a layer may import itself
        if own not in LAYERS:
            assert other not in LAYERS, f"{name_of(path)}, at the root, imports {module}"
        else:
            assert rank(other) > rank(own), f"{name_of(path)} imports {module}, which is not below"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_has_less_than_300_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 300


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_library_does_not_print(path: Path) -> None:
    calls = (n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call))
    assert not [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]


def test_every_folder_is_a_known_layer() -> None:
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and list(p.glob("*.py"))}
    assert folders <= set(LAYERS)


EXAMPLES = re.findall(
    r"`(src/trompe/[\w/]+\.py)`:\n\n```python\n(.*?)```",
    (PACKAGE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    flags=re.DOTALL,
)


def test_contributing_has_an_example_of_every_kind_of_part() -> None:
    folders = {Path(path).parent.name for path, _ in EXAMPLES}
    assert folders == {"explain", "objectives", "constraints", "methods", "presets"}


@pytest.mark.parametrize(("path", "text"), EXAMPLES, ids=[path for path, _ in EXAMPLES])
def test_an_example_in_contributing_is_a_real_file(path: str, text: str) -> None:
    assert (PACKAGE.parents[1] / path).read_text(encoding="utf-8") == text


def test_contributing_names_every_layer() -> None:
    table = (PACKAGE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    layers = [name for name in LAYERS if (PACKAGE / name).is_dir()]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    named = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in rows]
    assert [name for row in named for name in row if name in layers] == layers
