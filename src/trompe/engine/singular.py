"""Whether an operation of aten may have a kink in what comes from the image, by name and numbers.

Some operations are smooth by their name and not on the numbers they get: the root of a square, the
norm of a pair of which one is zero, a power of what comes down to zero.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trompe.engine.smooth_operations import EXPONENTS, IN_FIRST, SMOOTH
from trompe.engine.spellings import GUARD

_ROOTS = frozenset({"aten::sqrt", "aten::rsqrt", "aten::pow", "aten::hypot"})
_CUT = frozenset(f"aten::{name}" for name in ("log", "log2", "log10", "log1p", "sqrt", "pow"))
"""Of complex numbers they jump where these cross the negative axis."""
_MENDING = frozenset({"aten::nan_to_num", "aten::nansum"})
"""They leave finite numbers alone; of others (the logarithm of a negative one) they make a gate."""
_SMALL = 0.01
"""Activations come close to zero in some places: of their squares, so large a share is so small a
part of the mean. Variances with their guard, sums of many squares, do not."""


def _reaches_zero(name: str, args: Any) -> bool:
    """Whether a root is taken of numbers that come down to zero, where it has no derivative."""
    x = args[0]
    if not isinstance(x, Tensor) or x.is_meta or not x.is_floating_point() or x.numel() < 16:
        return False
    if name == "aten::pow":
        power = args[1]
        if not isinstance(power, (int, float)) or power >= 1 or power == int(power) > 0:
            return False
    sizes = x.detach().abs().double().flatten()
    return bool((sizes < _SMALL * sizes.mean()).double().mean() > _SMALL)


def _magnitude(args: Any, made: list[Tensor]) -> bool:
    """Whether norms are the magnitudes of single numbers, the others beside them being zero."""
    x, norm = args[0], made[0].detach()
    if x.is_meta or norm.numel() < 2 or x.numel() % norm.numel() or x.numel() == norm.numel():
        return False
    sizes = x.detach().abs()
    alone = (sizes > 1e-6 * sizes.max()).sum() <= norm.numel()
    return bool(alone) and bool(torch.isfinite(norm).all())


def _scattered(cut: Tensor) -> bool:
    """Whether entries are marked, and not whole rows, as of attention that sees nothing."""
    if cut.dim() == 0:
        return bool(cut)
    return bool((cut != cut.all(dim=-1, keepdim=True)).any())


def _in_part(name: str, args: Any, kwargs: Any, made: list[Tensor]) -> bool:
    """Whether an operation that is smooth by its name goes in steps, jumps or is cut off here."""
    if name in ("aten::div", "aten::divide"):
        return kwargs.get("rounding_mode") is not None
    if name == "aten::_to_copy":  # to numbers of eight bits, which is what quantisation does
        return any(t.is_floating_point() and t.element_size() == 1 for t in made)
    x = args[0]
    if name == "aten::atan2":  # jumps by a whole turn on the negative side
        return bool(x.is_meta or (args[1] <= 0).any())
    if name in _CUT:
        return any(t.is_complex() for t in made)
    if name in _MENDING:
        return not x.is_meta and _scattered(~torch.isfinite(x.detach()))
    if name == "aten::logit":
        eps = args[1] if len(args) > 1 else kwargs.get("eps")
        inside = eps is None or (not x.is_meta and bool(((x > eps) & (x < 1 - eps)).all()))
        return not inside or (eps is not None and eps > GUARD)
    return False


def kinked(func: Any, args: Any, kwargs: Any, met: list[Tensor], made: list[Tensor]) -> bool:
    """Whether an operation may have a kink in what comes from the image."""
    if not any(t.is_floating_point() or t.is_complex() for t in made):
        return False  # a comparison: a kink only where it is used
    if any(not t.is_floating_point() and not t.is_complex() for t in met):
        return True
    name = func._schema.name
    name = name[:-1] if name.endswith("_") else name
    if name in EXPONENTS and any(t.numel() == met[0].numel() for t in made):
        return True  # of single numbers: their absolute values
    if name in EXPONENTS and _magnitude(args, made):
        return True
    if name in EXPONENTS:
        at = 2 if name == "aten::dist" else 1  # after the other of two tensors
        order = args[at] if len(args) > at else kwargs.get("ord", kwargs.get("p", 2))
        return order not in (None, 2, 2.0)
    if name in IN_FIRST:
        return any(t is not args[0] for t in met)
    if name in ("aten::clamp", "aten::clamp_min"):
        low = args[1] if len(args) > 1 else kwargs.get("min")
        high = args[2] if len(args) > 2 else kwargs.get("max")
        if isinstance(low, Tensor) and low.dim() == 0 and not any(low is t for t in met):
            low = float(low)  # as cosine_similarity writes its own guard
        guard = high is None and isinstance(low, (int, float)) and 0 < low <= GUARD
        # Exactly 0 are the norms of padding, and of what a ReLU has cut off, which is smoothed.
        return not (guard and (args[0].is_meta or bool(((args[0] > low) | (args[0] == 0)).all())))
    if name in _ROOTS and _reaches_zero(name, args):
        return True
    return name not in SMOOTH or _in_part(name, args, kwargs, made)
