"""The ways to run a captured graph: replayed, compiled, or as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from trompe.engine.capture import Function
from trompe.errors import CaptureError

_WARM_UP = 3


def replayed(graph: Callable[..., Any], inputs: Sequence[Tensor]) -> Function:
    """Its calls one after the other: no autograd, no modes, tensors freed after their last use."""

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            out: tuple[Tensor, ...] = graph(*inputs)
        return out

    return run


def compiled(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> Function:
    """Compiled by ``torch.compile``: equal to rounding, and it takes from seconds to minutes."""
    try:
        run = replayed(torch.compile(graph, dynamic=False), inputs)
        run(*inputs)
    except Exception as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CaptureError(f"torch.compile fails ({reason[0]})") from error
    return run


class CudaGraph:
    """One launch for all kernels of the graph: nothing of a step is left to the host.

    Args:
        graph: captured on a CUDA device.
        inputs: examples; their memory is not kept.
    """

    def __init__(self, graph: fx.GraphModule, inputs: Sequence[Tensor]) -> None:
        self._graph = graph  # its constants must outlive the launches
        self._inputs = [tensor.detach().clone() for tensor in inputs]
        self._launch = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.no_grad():
            with torch.cuda.stream(side):  # what libraries choose and set up on first use
                for _ in range(_WARM_UP):
                    graph(*self._inputs)
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(self._launch):
                self._outputs: tuple[Tensor, ...] = graph(*self._inputs)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run on ``inputs``; the results are copies, which the next run leaves alone."""
        with torch.no_grad():
            for kept, given in zip(self._inputs, inputs, strict=True):
                kept.copy_(given)
            self._launch.replay()
            return tuple(tensor.clone() for tensor in self._outputs)


def launched(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> Function:
    """As a CUDA graph.

    Raises:
        CaptureError: if there is no CUDA device, or the graph cannot be recorded there.
    """
    if not all(tensor.is_cuda for tensor in inputs):
        raise CaptureError("a CUDA graph needs all tensors on a CUDA device")
    try:
        return CudaGraph(graph, inputs)
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        raise CaptureError(f"CUDA refuses the graph ({str(error).splitlines()[0]})") from error


Runner = Callable[[fx.GraphModule, Sequence[Tensor]], Function]

RUNNERS: dict[str, Runner] = {"graph": replayed, "compile": compiled, "cuda-graph": launched}
"""What makes a function of a captured graph, by name."""
