"""Ray itself: whether it is installed, the connection to a cluster, what is sent there."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trompe.errors import UsageError


@dataclass(frozen=True)
class RayOptions:
    """What of Ray is used.

    Args:
        address: of a cluster that runs (``auto`` for the one on this machine); by default one is
            started on this machine, and ended with the run.
        workers: batches worked on at once; by default as many as the cluster has room for.
        threads: CPU threads of each.
    """

    address: str | None = None
    workers: int | None = None
    threads: int = 1


def first_line(error: Exception) -> str:
    """An error in short: Ray's own come with a traceback and advice."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def ray_package() -> Any:
    """The package, if it is installed."""
    # What a run does is nobody's business; Ray reports it unless told otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "the engine 'ray' needs Ray, which is not installed: pip install 'ray>=2.10'"
        ) from error
    return ray


@contextmanager
def connected(options: RayOptions) -> Iterator[None]:
    """A connection to Ray; one that was there before is used and left.

    Raises:
        UsageError: if Ray is not installed or the cluster cannot be reached.
    """
    ray = ray_package()
    if ray.is_initialized():
        yield
        return
    more: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if options.address is None:
        workers = options.workers or max(1, (os.cpu_count() or 1) // options.threads)
        more |= {"num_cpus": workers * options.threads, "include_dashboard": False}
        # Its own cluster is nobody else's: whoever reaches a cluster runs code on it.
        more |= {"_node_ip_address": "127.0.0.1", "dashboard_host": "127.0.0.1"}
    try:
        ray.init(address=options.address or "local", **more)
    except Exception as error:  # Ray raises errors of many kinds, with texts of many lines
        if options.address is not None:
            text = f"no Ray cluster at '{options.address}': start one with 'ray start --head'"
        else:  # Ray gives itself 20 seconds, which a machine at work on other things may exceed
            text = (
                "Ray does not start on this machine: start the same command again when it is idle"
            )
        raise UsageError(f"{text} ({first_line(error)})") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def own_modules_travel() -> Iterator[None]:
    """Send code of the current directory along: what is the user's own is not installed there."""
    from ray import cloudpickle

    here, ours = Path.cwd(), []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        top = name.partition(".")[0]
        if file and top not in sys.stdlib_module_names and top not in ("trompe", "__main__"):
            path = Path(file).resolve()
            installed = {"site-packages", "dist-packages"} & set(path.parts)
            if path.is_relative_to(here) and not installed:
                ours.append(module)
    for module in ours:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in ours:
            cloudpickle.unregister_pickle_by_value(module)
