"""What protects explanations: by training, by smoothing, by finding manipulated images."""

from trompe.defences.base import Defence, defences
from trompe.defences.choose_beta import Choice, choose_beta
from trompe.defences.detection import DETECTORS, Detection, Detector, auroc, detect
from trompe.defences.hardening import HardenedModel, harden
from trompe.defences.measured import Measured, measure

__all__ = [
    "DETECTORS",
    "Choice",
    "Defence",
    "Detection",
    "Detector",
    "HardenedModel",
    "Measured",
    "auroc",
    "choose_beta",
    "defences",
    "detect",
    "harden",
    "measure",
]
