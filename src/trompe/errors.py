"""The errors that trompe raises on purpose: each names the offending thing and the way out."""

from __future__ import annotations


class TrompeError(Exception):
    """Base of all errors raised on purpose; its message is one clear line."""


class UsageError(TrompeError):
    """An option or argument is out of range, unknown, or does not go with another."""


class ImageError(TrompeError):
    """An image file is missing, broken, or of a kind that cannot be used."""


class TargetError(TrompeError):
    """A target map cannot be used: wrong shape, all zero, or not finite."""


class ModelError(TrompeError):
    """A model cannot be loaded, or does not behave as a classifier [B, C, H, W] -> [B, K]."""


class WeightsError(ModelError):
    """A weights file is missing, broken, unsafe, or does not fit the model."""


class PatternError(TrompeError):
    """Patterns for pattern attribution are missing, all zero, or do not fit the model."""


class ExplanationError(TrompeError):
    """An explanation cannot be computed, normalised or differentiated.

    It is all zero, infinite or not a number; or its code (another library's) gives no map whose
    derivative is right.
    """


class CaptureError(TrompeError):
    """The step of an attack cannot be captured as one graph, or gives other numbers there."""


class MemoryLimitError(TrompeError):
    """Memory does not suffice, not even for one image at a time."""


class OutputError(TrompeError):
    """Results cannot be written to the requested place."""


class StoreError(TrompeError):
    """The folder of an audit's run is damaged, incomplete, or belongs to other settings."""


class UnsupportedOp(TrompeError):
    """The model calls an operation for which a rule-based explanation has no rule.

    Args:
        operation: name of the operation, such as ``torch.fft.fft2``.
        place: where in the model it is called, such as ``features.3 (Fire)``.
        family: the rules that were asked for, such as ``lrp``.
        why: what is wrong with it, if it is not simply unknown.
    """

    def __init__(self, operation: str, place: str, family: str, why: str = "has no rule") -> None:
        self.operation = operation
        self.place = place
        self.family = family
        way_out = f"add a rule: trompe.rules.{family}.RULES[<the function>] = rule(relevance, op)"
        if family == "tape":  # it cannot even be recorded
            way_out = "write it with plain torch functions, out of place"
        elif family == "grad_cam":
            way_out = "name a layer that has them (layer=)"
        elif family == "attention_rollout":
            way_out = "with LRP (composite='attn')"
        super().__init__(
            f"operation '{operation}' at {place} {why} under '{family}': explain with 'gradient', "
            f"or {way_out}"
        )


class CertificateError(TrompeError):
    """No true bound can be given: the model has an operation, or a behaviour, not covered."""
