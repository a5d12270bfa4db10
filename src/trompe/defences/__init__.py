"""What protects explanations."""

from trompe.defences.choose_beta import Choice, choose_beta
from trompe.defences.detection import DETECTORS, Detection, Detector, auroc, detect

__all__ = ["DETECTORS", "Choice", "Detection", "Detector", "auroc", "choose_beta", "detect"]
