"""The reverse sweep: relevance walks the record backwards, one rule per operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trompe.engine.adjoints import ADJOINTS
from trompe.engine.apart import apart
from trompe.engine.candidates import over_candidates
from trompe.engine.direct import Hook, NotDirect, directly
from trompe.engine.once import once, watched
from trompe.engine.recording import record
from trompe.engine.remarks import EXPLODED, growth, say_exploded, say_faint, say_gradient
from trompe.engine.smoothing import unwrapped
from trompe.engine.tape import OpCall, Tape
from trompe.engine.walk import modules_of
from trompe.errors import ModelError, UnsupportedOp
from trompe.model_output import Logarithm
from trompe.output_meaning import ends_in_probabilities


class Rule(Protocol):
    """How relevance passes one operation.

    Takes the relevance of the operation's output (of its outputs, if it has several: a list with
    ``None`` where none arrived) and the call, and returns the relevance of each of ``op.edges``.
    Built from the recorded activations with differentiable operations only.
    """

    def __call__(self, relevance: Any, op: OpCall) -> Sequence[Tensor | None]:
        """Return the relevance of each input."""
        ...


def vjp(relevance: Any, op: OpCall) -> Sequence[Tensor | None]:
    """The operation's own vector-Jacobian product: the rule of the gradient.

    It carries a graph unless gradients are disabled.
    """
    several = isinstance(relevance, list)
    written = None if several else ADJOINTS.get(op.func)
    if written is not None:
        share = written(relevance.reshape(op.out.shape), op)
        if share is not NotImplemented:
            return [share]
    pairs = [
        (out, r)
        for out, r in zip(op.outputs, relevance if several else [relevance], strict=True)
        if r is not None
    ]
    return torch.autograd.grad(
        [out for out, _ in pairs],
        [alias for _, alias in op.edges],
        [r.reshape(out.shape) for out, r in pairs],
        retain_graph=True,
        create_graph=torch.is_grad_enabled(),
        allow_unused=True,
    )


@dataclass(frozen=True)
class RuleSet:
    """The rules of one explanation method.

    Args:
        name: as in ``trompe.rules.<name>``; named in errors.
        rules: the rule of each function.
        default: the rule of all others; ``None`` refuses them.
        prepare: called with the tape before the sweep, to note what rules need to know of their
            neighbours (a batch norm to fold, the first layer).
        hooks: where every rule is the vector-Jacobian product with a change of the signal: that
            change as hooks of a backward pass, which serve where no graph is wanted.
        only: names of the operations with a kink (``trompe.engine.operations``) that the method is
            defined on; a model in which another is found is refused. ``None``: any.
        why: said of such an operation.
        stabilised: whether rules divide by activations, with a small number added to them.
        of_logits: whether the method redistributes a logit, and is not defined on a probability.
        differs_at: names of the operations at which the method is not the gradient; it is said,
            once, of a model without any. ``None``: not asked.
    """

    name: str
    rules: Mapping[Callable[..., Any], Rule]
    default: Rule | None = None
    prepare: Callable[[Tape], None] | None = field(default=None)
    hooks: Mapping[Callable[..., Any], Hook] | None = None
    only: frozenset[str] | None = None
    why: str = "has no rule"
    stabilised: bool = False
    of_logits: bool = False
    differs_at: frozenset[str] | None = None


def sweep(tape: Tape, output: Tensor, relevance: Tensor, rules: RuleSet) -> Tensor:
    """Walk the record backwards from ``relevance`` at ``output`` to the input.

    Args:
        tape: the record.
        output: the recorded tensor at which the walk starts, usually the logits [B, K].
        relevance: of the shape of ``output``.
        rules: one rule per operation.

    Returns:
        The relevance of the input, of its shape, differentiable.

    Raises:
        UnsupportedOp: if relevance reaches an operation without a rule.
    """
    if rules.prepare is not None:
        rules.prepare(tape)
    # Rules are made of operations that need no function mode, whose calls would take longer.
    with torch._C.DisableTorchFunction():
        return _walk(tape, output, relevance, rules)


def _walk(tape: Tape, output: Tensor, relevance: Tensor, rules: RuleSet) -> Tensor:
    arrived: dict[int, Tensor] = {id(output): relevance}
    for call in reversed(tape.calls):
        parts: list[Tensor | None] = [arrived.pop(id(t), None) for t in call.outputs]
        if all(part is None for part in parts):
            continue
        rule = rules.rules.get(call.func, rules.default)
        if rule is None:
            raise UnsupportedOp(call.name, call.place or f"call {call.index}", rules.name)
        shares = rule(parts if len(parts) > 1 else parts[0], call)
        for (tensor, _), share in zip(call.edges, shares, strict=True):
            if share is None:
                continue
            known = arrived.get(id(tensor))
            arrived[id(tensor)] = share if known is None else known + share
    reached = arrived.get(id(tape.input))
    return torch.zeros_like(tape.input) if reached is None else reached


_HIDDEN = (
    "is hidden in a scripted or traced part (give the module that this was made from), and has no "
    "rule"
)


def _check_defined(model: nn.Module, x: Tensor, rules: RuleSet) -> None:
    """Refuse a model with a kink, found by watching it, on which a method is not defined.

    Raises:
        UnsupportedOp: names it.
    """
    inner = unwrapped(model)
    only = rules.only or frozenset()
    found = watched(inner, (x,), {}).kinks
    for kink in found:
        if kink.operation not in only:
            why = _HIDDEN if kink.function.startswith("torch.ops.") else rules.why
            raise UnsupportedOp(kink.function, kink.place, rules.name, why)
    if "maxout" not in only and any(kink.fate == "pooling" for kink in found):
        once(inner, ("places", rules.name), (x,), {}, lambda: _check_pooling(inner, x, rules))
    at = rules.differs_at
    if at is not None and not any(kink.operation in at for kink in found):
        once(inner, ("differs", rules.name), (x,), {}, lambda: say_gradient(rules.name))


def _look_at_size(
    model: nn.Module, x: Tensor, start: Tensor, relevance: Tensor, rules: RuleSet, keep: bool
) -> None:
    """Look at the size of every map; of maps with a graph, an attack's steps, at the first.

    Not where the numbers cannot be read: on meta tensors, and while a step is recorded.
    """
    if x.is_meta or torch._C._len_torch_dispatch_stack():
        return

    def find() -> bool:
        times = growth(start, relevance)
        if times > EXPLODED:
            once(model, ("exploded", rules.name), (x,), {}, lambda: say_exploded(rules.name, times))
        return True

    if keep:
        once(model, ("size", id(rules.rules)), (x,), {}, find)
    else:
        find()


def _check_pooling(model: nn.Module, x: Tensor, rules: RuleSet) -> bool:
    """Refuse a model that takes maxima over candidates in the guise of pooling.

    Raises:
        UnsupportedOp: names the operation.
    """
    image = x.detach()[:1].clone().requires_grad_(True)
    with torch.enable_grad():
        tape, _ = record(model, image, locate=True)
    call = over_candidates(tape)
    if call is not None:
        why = f"goes over candidates, not places: a maximum of several {rules.why}"
        raise UnsupportedOp(call.name, call.place, rules.name, why)
    return True


def relevance_of(
    model: nn.Module,
    x: Tensor,
    seed: Callable[[Tensor], Tensor],
    rules: Callable[[nn.Module], RuleSet],
    keep: bool = True,
) -> tuple[Tensor, Tensor]:
    """Record ``model`` on ``x`` and sweep; an error names the place in the model.

    Args:
        model: any module [B, ...] -> [B, K].
        x: requires grad.
        seed: the relevance at the output, from the logits.
        rules: the rules, given the model.
        keep: whether the relevance must carry a graph; ``False`` saves time and memory, and runs
            the rules with gradients disabled.

    Returns:
        The relevance of x, and the logits.

    Raises:
        ModelError: if the model returns probabilities, or their logarithm, where the method is
            defined on logits, or its rules do not know those operations.
        UnsupportedOp: if they do not know another operation.
    """
    chosen = rules(model)
    if chosen.of_logits and _ends_in_probabilities(model, x):
        raise ModelError(_NO_LOGITS)
    try:
        return _relevance_of(model, x, seed, chosen, keep)
    except UnsupportedOp as error:
        if _ends_in_probabilities(model, x):
            raise ModelError(_NO_LOGITS) from error
        raise


_NO_LOGITS = (
    "the model returns probabilities, and this method needs logits: return them, "
    "without the softmax or sigmoid at the model's end, or explain with 'gradient'"
)


def _ends_in_probabilities(model: nn.Module, x: Tensor) -> bool:
    """Whether a softmax or sigmoid is at the model's end, looked at once per shape."""
    inner = unwrapped(model)

    def find() -> bool:
        if any(isinstance(module, Logarithm) for module in modules_of(inner)):
            return True
        image = x.detach().clone().requires_grad_(True)
        with apart(), torch.enable_grad():
            return ends_in_probabilities(inner(image))

    return once(inner, "ends in probabilities", (x,), {}, find)


def _relevance_of(
    model: nn.Module,
    x: Tensor,
    seed: Callable[[Tensor], Tensor],
    chosen: RuleSet,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    if chosen.only is not None:
        _check_defined(model, x, chosen)
    if chosen.hooks is not None and not keep and x.is_leaf:
        try:
            return directly(model, x, seed, chosen.hooks)
        except NotDirect:
            pass
    try:
        tape, logits = record(model, x)
        if tape.faint is not None and chosen.stabilised:
            say_faint(tape.faint)
        with torch.set_grad_enabled(keep):
            start = seed(logits)
            relevance = sweep(tape, logits, start, chosen)
        if chosen.stabilised:
            _look_at_size(unwrapped(model), x, start, relevance, chosen, keep)
        return relevance, logits
    except UnsupportedOp as error:
        if error.place.startswith("call "):
            tape, logits = record(model, x, locate=True)
            sweep(tape, logits, seed(logits), chosen)
        raise
