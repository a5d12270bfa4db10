"""Why maps can be manipulated, how far at most: curvature, and bounds that are true."""

from trompe.geometry.curvature import Curvatures, principal_curvatures

__all__ = ["Curvatures", "principal_curvatures"]
