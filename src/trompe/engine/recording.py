"""Recording a pass of a model, and vouching for the record: its output is the model's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode

from trompe.engine.agreement import difference, first_difference, tolerance
from trompe.engine.apart import apart, as_written, kept
from trompe.engine.once import once
from trompe.engine.smoothing import Smoothed
from trompe.engine.tape import Faint, Tape, depends
from trompe.errors import ModelError, UnsupportedOp

FAINT = 1e-5
"""Activations that are all smaller are near the stabilisers of LRP, of 1e-9 and 1e-6."""


def record(
    model: nn.Module, x: Tensor, *, locate: bool = False, module: nn.Module | None = None
) -> tuple[Tape, Tensor]:
    """Run ``model`` on ``x`` and record it.

    The first record of a structure and shape is compared with a plain run of the model.

    Args:
        model: any module [B, ...] -> [B, K].
        x: must require grad.
        locate: whether each call notes its place in the model (for error messages).
        module: a part of the model whose outputs are noted, as ``tape.returned``.

    Returns:
        The tape, and the logits [B, K].

    Raises:
        ModelError: if the output is not a tensor that depends on the input, differentiably; or if
            the model runs in mixed precision.
        UnsupportedOp: if the record differs from the model (a change of detached values in place, a
            hidden state), or an operation bypasses torch functions.
    """
    tape, logits = _recorded(model, x, locate, module=module)
    inner, kind = model, "record"
    if isinstance(model, Smoothed):
        inner, kind = model.model, f"record, smoothed {model.activations} {bool(model.pooling)}"
    tape.faint = once(inner, kind, (x,), {}, lambda: _vouch(model, x, tape, logits))
    return tape, logits


@contextmanager
def _returns(tape: Tape, module: nn.Module | None) -> Iterator[None]:
    """While active, what a module returns is noted; by a hook on none, which would change it."""
    if module is None:
        yield
        return
    thread = threading.get_ident()

    def note(called: nn.Module, _: Any, output: Any) -> None:
        if called is module and threading.get_ident() == thread:
            tape.note_return(output)

    hook = register_module_forward_hook(note)
    try:
        yield
    finally:
        hook.remove()


def _recorded(
    model: nn.Module,
    x: Tensor,
    locate: bool,
    within: Any = None,
    module: nn.Module | None = None,
) -> tuple[Tape, Tensor]:
    tape = Tape(x, model, locate)
    with kept(), as_written(), _returns(tape, module), tape:
        try:
            with within or nullcontext():
                logits = model(x)
        except RuntimeError as error:
            if "appears to not have been used in the graph" not in str(error):
                raise
            raise ModelError(
                "the model differentiates within its forward pass (torch.autograd.grad), which "
                "cannot be recorded: explain with 'gradient', or write its derivative out"
            ) from error
    if isinstance(logits, Tensor):
        logits = tape.final(logits)  # before it is judged: a constant may have been written into
    if not isinstance(logits, Tensor) or not logits.requires_grad:
        raise ModelError(
            f"{type(model).__name__} does not return a tensor that depends differentiably on its "
            "input: return logits [B, K], computed outside torch.no_grad()"
        )
    return tape, logits


def _check_links(model: nn.Module, x: Tensor, tape: Tape) -> None:
    """Refuse a record in which an operation's output does not come from its inputs.

    No relevance would pass it, without a word: autograd has put another node in its place, as it
    does where a function of the user's own, or the hooks of a module's backward pass, give their
    input back.

    Raises:
        UnsupportedOp: names the operation and its place.
    """
    for call in tape.calls:
        ends = [alias for _, alias in call.edges]
        if any(depends(out, alias) for out in call.outputs for alias in ends):
            continue
        if not call.place:
            with torch.enable_grad():
                located, _ = _recorded(model, x.detach().clone().requires_grad_(True), True)
            call = located.calls[call.index]
        node = type(call.out.grad_fn).__name__.removesuffix("Backward")
        cause = f"the autograd function '{node}'"
        if node == "BackwardHookFunction":
            cause = "a full backward hook, which has to be removed"
        why = f"is cut off from its input by {cause}, so nothing passes it"
        raise UnsupportedOp(call.name, call.place, "tape", why)


def _faint(tape: Tape) -> Faint | None:
    """The operation with the smallest activations, if these are small beside LRP's stabilisers."""
    found = None
    for call in tape.calls:
        out = call.out.detach()
        if out.dim() < 2 or out.is_meta or not out.is_floating_point() or not out.numel():
            continue
        size = float(out.abs().max())
        if 0 < size < (FAINT if found is None else found.size):
            found = Faint(call.name, call.index, size)
    return found


class _Precise(TorchFunctionMode):
    """Refuses operations in mixed precision."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if torch._C._is_any_autocast_enabled():
            raise ModelError(
                "the model runs in mixed precision (torch.autocast), in which rules cannot run its "
                "operations again: explain with 'gradient', or leave autocast out of the forward"
            )
        return func(*args, **(kwargs or {}))


def _vouch(model: nn.Module, x: Tensor, tape: Tape, logits: Tensor) -> Faint | None:
    """Compare the recorded output with that of a plain run.

    Returns:
        Where the signal nearly vanishes, if it does.

    Raises:
        UnsupportedOp: names the first operation whose value differs.
    """
    with apart(), torch.no_grad(), _Precise():
        expected = model(x.detach().clone())
    if difference([logits], [expected]) <= tolerance(logits, expected):
        _check_links(model, x, tape)
        return _faint(tape)

    def plainly() -> Any:
        with torch.no_grad():
            return model(x.detach().clone())

    def recorded(within: Any) -> Any:
        return _recorded(model, x.detach().clone().requires_grad_(True), False, within)

    with apart(), torch.enable_grad():
        name, place = first_difference(model, plainly, recorded)
    raise UnsupportedOp(name, place, "tape", "makes the recorded pass differ from the model's")
