"""What protects explanations."""

from trompe.defences.choose_beta import Choice, choose_beta

__all__ = ["Choice", "choose_beta"]
