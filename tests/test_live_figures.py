"""What the live figures of the theory compute, run by Node.js: answers, turns, noise."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"
LIVE = DOCS / "live"
NODE = shutil.which("node")

node = pytest.mark.skipif(NODE is None, reason="Node.js is not installed")


def run(script: str) -> Any:
    """What a script says of ``live``, the figures' functions."""
    names = ("drawing", "level_line", "noisy_gate")
    loads = "".join(f"require({json.dumps(str(LIVE / name) + '.js')});" for name in names)
    code = (
        f"{loads} const live = globalThis.live; console.log(JSON.stringify((() => {{{script}}})()))"
    )
    assert NODE is not None
    done = subprocess.run(
        [NODE, "-e", code], capture_output=True, text=True, timeout=60, check=True
    )
    return json.loads(done.stdout)


@node
@pytest.mark.timeout(120)
def test_along_the_line_the_answer_stays_and_the_normal_turns_as_far_as_the_bound_lets_it() -> None:
    rows = run(
        """
        const rows = [];
        for (const beta of [100, 10, 2, 1]) {
          const line = live.levelLine.levelLine(beta);
          for (let start = 0; start < 2400; start += 37) for (const way of [0.05, 0.4, 1.5]) {
            const found = live.levelLine.walk(line, start, way);
            const { to, turned, largest, went } = found;
            rows.push([beta, to.g, turned, largest * went, went, way]);
          }
        }
        return rows;
        """
    )
    assert len(rows) > 700
    for _, answer, turned, bound, went, way in rows:
        assert answer == pytest.approx(1.0, abs=1e-9)
        assert went == pytest.approx(way, abs=0.05)
        assert turned <= bound * (1 + 1e-9) + 1e-9
    # The bound says something: it falls with beta, and is nearly reached somewhere.
    at = {
        beta: max(row[3] for row in rows if row[0] == beta and row[5] == 0.05) for beta in (100, 1)
    }
    assert at[1] < at[100] / 5
    assert max(turned / bound for _, _, turned, bound, _, _ in rows if bound > 0.1) > 0.9


@node
@pytest.mark.timeout(120)
def test_the_gradients_are_those_of_finite_differences() -> None:
    rows = run(
        """
        const rows = [];
        const points = [[0.9, 0.3], [-1.1, 0.7], [0.2, -1.3]];
        for (const beta of [1, 7, Infinity]) for (const [x, y] of points) {
          const at = (a, b) => live.levelLine.network(a, b, beta)[0];
          const e = 1e-6, [, gx, gy] = live.levelLine.network(x, y, beta);
          rows.push([gx, (at(x + e, y) - at(x - e, y)) / (2 * e)]);
          rows.push([gy, (at(x, y + e) - at(x, y - e)) / (2 * e)]);
        }
        return rows;
        """
    )
    for slope, measured in rows:
        assert slope == pytest.approx(measured, abs=1e-6)


@node
@pytest.mark.timeout(120)
def test_the_mean_gate_over_noise_is_that_of_softplus() -> None:
    rows = run(
        """
        const draws = live.noisyGate.uniforms(10000).map((u) => live.noisyGate.noise(u, 3));
        return [-2, -0.4, 0, 0.3, 1].map((z) => [z, live.noisyGate.meanGate(z, draws)]);
        """
    )
    for z, mean in rows:
        assert mean == pytest.approx(1 / (1 + math.exp(-3 * z)), abs=0.02)


def test_every_figure_of_the_page_has_its_script() -> None:
    page = (DOCS / "theory.md").read_text()
    figures = re.findall(r'data-live="(\w+)"', page)
    scripts = re.findall(r'<script src="(live/\w+\.js)"', page)
    assert len(figures) == 2
    assert scripts[0] == "live/drawing.js"
    assert scripts[-1] == "live/start.js"
    written = "".join((DOCS / script).read_text() for script in scripts)
    for figure in figures:
        assert f"globalThis.live.{figure} = {{" in written
