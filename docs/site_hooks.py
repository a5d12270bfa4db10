"""Lets pages link to what lies outside ``docs``: such files become part of the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security.md",
    "benchmarks/README.md": "project/performance.md",
}
"""Files of the repository that are pages of the site, by where they lie there."""


def on_files(files: Files, config: Any) -> Files:
    """Add those pages, and the pictures of the benchmarks."""
    for source, name in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    for picture in sorted((ROOT / "benchmarks" / "results").glob("*.png")):
        name = f"project/results/{picture.name}"
        files.append(File.generated(config, name, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links that leave ``docs`` at those pages; the rest of them become plain text."""
    here = page.file.src_uri
    home = {place: source for source, place in PAGES.items()}.get(here, f"docs/{here}")

    def moved(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, _, anchor = target.partition("#")
        inside = (ROOT / home).parent.joinpath(path).resolve()
        name = inside.relative_to(ROOT).as_posix() if inside.is_relative_to(ROOT) else ""
        if name.startswith("docs/"):
            place = name.removeprefix("docs/")
        elif name.startswith("benchmarks/results/") and name.endswith(".png"):
            place = name.replace("benchmarks/", "project/", 1)
        elif name in PAGES:
            place = PAGES[name]
        else:
            return text.removeprefix("!")[1:-1]
        up = "../" * here.count("/")
        return f"{text}({up}{place}{'#' + anchor if anchor else ''})"

    return re.sub(r"(!?\[[^\]]*\])\(([^)\s]+)\)", moved, markdown)
