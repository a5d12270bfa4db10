"""Attacks over many images, models, methods and smoothings: kept, resumed, judged.

A run is a folder: one SQLite file with settings, cells and metrics, and the arrays beside it,
named by their checksum. ``run_audit`` does what is missing, however often it was ended before.
"""

from __future__ import annotations

from trompe.audit.results import Run, open_run
from trompe.audit.run import run_audit
from trompe.audit.settings import Settings
from trompe.audit.status import Status, status
from trompe.callable_package import make_callable
from trompe.zoo import ModelSpec

__all__ = ["ModelSpec", "Run", "Settings", "Status", "open_run", "run_audit", "status"]

make_callable(__name__)
