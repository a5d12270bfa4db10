"""What the documentation shows can be typed: commands parse, examples run, the site builds."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

import trompe
from trompe.cli import command

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]


def commands(path: Path) -> list[str]:
    """The lines of a page's code blocks that call trompe, without their comments.

    A line that ends with a backslash goes on in the next.
    """
    text = re.sub(r"\\\n\s+", "", path.read_text(encoding="utf-8"))
    lines = re.findall(r"^    (trompe .+)$", text, re.MULTILINE)
    return [line.split("  #")[0].strip() for line in lines]


def parsed(words: list[str]) -> None:
    """Parse a command as click does, without running it."""
    group: click.Command = command
    context = click.Context(command, info_name="trompe")
    while isinstance(group, click.Group):
        name = words.pop(0)
        found = group.get_command(context, name)
        assert found is not None, f"there is no command {name}"
        group = found
    group.make_context(group.name, words, parent=context)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_can_be_typed(path: Path) -> None:
    for line in commands(path):
        try:
            parsed(shlex.split(line)[1:])
        except click.ClickException as error:
            pytest.fail(f"{line}: {error.format_message()}")


def test_there_are_commands_to_test() -> None:
    assert sum(len(commands(path)) for path in PAGES) > 20
    with pytest.raises(click.ClickException):
        parsed(["attack", "--no-such-option"])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:\s]+)\)", text):
        assert (path.parent / link).exists(), f"{path.name} links to {link}"


EXAMPLES = [
    ROOT / "docs" / "index.md",
    ROOT / "docs" / "how-to" / "captum.md",
    ROOT / "docs" / "how-to" / "compare.md",
    ROOT / "docs" / "how-to" / "harden.md",
    ROOT / "docs" / "how-to" / "method.md",
]


#: What a reader may take time for, and a test may not.
QUICK = {
    r"iterations=\d+": "iterations=1",
    r"epochs=\d+": "epochs=1",
    r"budget=[\d.]+": "budget=0.01",
}


def photos_and_a_fooled_model(folder: Path) -> None:
    """What the pages call photos/, a folder of images per class, and what 'trompe fool' leaves."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        place = folder / "photos" / f"{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    left = folder / "trompe-out" / "fool"
    left.mkdir(parents=True)
    save_file(trompe.load_model("tiny-vgg").model.state_dict(), left / "model.safetensors")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_last_example_of_a_page_runs(path: Path, tmp_path: Path) -> None:
    if path.stem == "captum":
        pytest.importorskip("captum", reason="captum is not installed")
    code = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)[-1]
    for slow, quick in QUICK.items():
        code = re.sub(slow, quick, code)
    photos_and_a_fooled_model(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_site_builds(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra 'docs' is not installed")
    pytest.importorskip("mkdocstrings", reason="the extra 'docs' is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    for entry in re.findall(
        r"^::: (\S+)\n    options:\n      members: \[(.+)\]", API, re.MULTILINE
    ):
        for name in entry[1].split(", "):
            assert re.search(rf'id="trompe\.[\w.]*\b{name}"', page), f"{entry[0]}.{name}"
    loaded = re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css))"', page)
    assert loaded == []  # readable without a network
