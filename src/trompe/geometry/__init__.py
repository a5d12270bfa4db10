"""Why maps can be manipulated, how far at most: curvature, and bounds that are true."""

from trompe.geometry.certificate import Certificate, certify
from trompe.geometry.curvature import Curvatures, principal_curvatures

__all__ = ["Certificate", "Curvatures", "certify", "principal_curvatures"]
