"""The defences by training: one file each, found by name."""

from trompe.defences.base import Defence, defences

__all__ = ["Defence", "defences"]
