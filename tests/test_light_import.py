"""``import trompe`` and ``trompe --help`` must not wait for torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ["gradio", "torch", "torchvision", "numpy", "skimage", "matplotlib", "scipy"]


@pytest.mark.parametrize(
    "program",
    [
        "import trompe; trompe.__version__; dir(trompe)",
        "from trompe.cli import main; main(['--help'])",
        "from trompe.cli import main; main(['attack', '--help'])",
        "from trompe.cli import main; main(['app', '--help'])",
        "from trompe.cli import main; main(['completion', 'bash'])",
        "from trompe.cli import main; main(['attack', '--no-such-option'])",
    ],
)
def test_nothing_heavy_is_imported(program: str) -> None:
    check = f"import sys; sys.exit(' '.join(m for m in {HEAVY} if m in sys.modules) or 0)"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; {check}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_method_choices_are_the_registered_methods() -> None:
    from trompe.cli.parts import shipped
    from trompe.explain import explainers

    assert shipped("method") == explainers.names()
