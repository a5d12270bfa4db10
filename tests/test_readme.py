"""The README's numbers are those of the committed results, and its example runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_numbers_come_from_the_results() -> None:
    script = ROOT / "scripts" / "render_readme.py"
    done = subprocess.run([sys.executable, str(script), "--check"], check=False)
    assert done.returncode == 0, "run: python scripts/render_readme.py"


def test_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link


def test_the_example_runs() -> None:
    text = (ROOT / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    short = code[1].replace('preset="fast"', 'preset="fast", iterations=2')
    assert short != code[1]
    names: dict[str, object] = {}
    exec(compile(short, "README.md", "exec"), names)
    assert "result" in names
