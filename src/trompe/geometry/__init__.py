"""Why maps can be manipulated, how far at most: curvature, and bounds that are true."""

from trompe.geometry.certificate import Certificate, certify
from trompe.geometry.curvature import Curvatures, principal_curvatures
from trompe.geometry.sandwich import Sandwich, sandwich
from trompe.geometry.strongest import Strongest, strongest_change

__all__ = [
    "Certificate",
    "Curvatures",
    "Sandwich",
    "Strongest",
    "certify",
    "principal_curvatures",
    "sandwich",
    "strongest_change",
]
