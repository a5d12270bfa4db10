"""The device that is measured: when its work is done, how much memory it took, how fast it can be.

On a GPU calls return before their work is done, so every reading of the clock waits for it.
"""

from __future__ import annotations

import ctypes
import gc
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

_SIDES = {"cuda": 8192, "cpu": 2048}


_clock = [time.perf_counter]


def count_processor_time() -> None:
    """Let ``now`` count the time that this thread was running, which a busy machine changes less.

    For one thread on a processor.
    """
    _clock[0] = time.thread_time


def now(device: torch.device) -> float:
    """Seconds, once all work handed to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return _clock[0]()


def precision(tf32: bool) -> None:
    """Whether a GPU may round the factors of products to TF32; else float32 is float32."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def results_name(base: str, device: torch.device, tf32: bool) -> str:
    """The name of the results: a card's own, so that none overwrites those of a processor."""
    if device.type != "cuda":
        return base
    card = re.sub(r"[^a-z0-9]+", "_", torch.cuda.get_device_name(device).lower()).strip("_")
    return f"{base}_{card}" + ("_tf32" if tf32 else "")


def matrix_rate(device: torch.device, rounds: int = 7) -> float:
    """Operations per second of a large float32 matrix product: the most that can be hoped for."""
    side = _SIDES.get(device.type, 2048)
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    times = []
    for _ in range(rounds + 2):
        start = now(device)
        torch.mm(a, b)
        times.append(now(device) - start)
    return 2 * side**3 / statistics.median(times[2:])


def forward_operations(model: nn.Module, x: Tensor) -> float:
    """Operations of one forward pass; a multiplication and an addition count two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return float(counter.get_total_flops())


def peak_mib(device: torch.device, work: Callable[[], object]) -> float:
    """The growth of the memory in use at its peak while ``work`` runs, in MiB.

    On a GPU what tensors occupy; on Linux otherwise what the process has in RAM.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not hide what is used now
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    resident = _status("VmRSS")
    work()
    return (_status("VmHWM") - resident) / 1024


def _status(key: str) -> int:
    """An entry of this process's status, in KiB."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)
    )
    return int(line.split()[1])
