"""The attacks on models by training: one file each, found by name."""

from trompe.tampering.base import Tampering, tamperings

__all__ = ["Tampering", "tamperings"]
