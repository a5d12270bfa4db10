"""``python -m trompe.cli``."""

import sys

from trompe.cli import main

sys.exit(main())
