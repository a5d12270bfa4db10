"""Whether another process of this machine still runs, and ending with the one that started it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait
from pathlib import Path


def born(pid: int) -> str:
    """When a process was started, as far as the system tells: numbers are used again."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def alive(pid: int, since: str) -> bool:
    """Whether a process of this machine still runs.

    Args:
        pid: its number.
        since: what ``born`` said of it.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return born(pid) == since


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended, however that came.

    A parent that was killed can tell its children nothing; but the system closes the pipe between
    them.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)  # at once: what was not entered yet is done again by the next command

    threading.Thread(target=watch, daemon=True).start()
