"""``python -m trompe``."""

import sys
from pathlib import Path

# Python looks for modules in the current folder first: a foreign file there, named like a package
# that is used here, would be run.
_here, _home = Path.cwd().resolve(), Path(__file__).resolve().parents[1]
if sys.path and Path(sys.path[0] or ".").resolve() == _here != _home:
    del sys.path[0]

from trompe.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
