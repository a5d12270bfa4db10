"""Why maps can be manipulated: curvature, paths of constant output, smoothing, noise."""

from trompe.geometry.comparison import (
    Comparison,
    compare_smoothings,
    first_layer_norm,
    matching_sigma,
)
from trompe.geometry.curvature import Curvatures, principal_curvatures
from trompe.geometry.noise import Averages, beta_of_sigma, sigma_of_beta, theorem_2
from trompe.geometry.smoothing import (
    Likeness,
    Recovery,
    distance_to_relu,
    recovery,
    smoothed_maps,
)

__all__ = [
    "Averages",
    "Comparison",
    "Curvatures",
    "Likeness",
    "Recovery",
    "beta_of_sigma",
    "compare_smoothings",
    "distance_to_relu",
    "first_layer_norm",
    "matching_sigma",
    "principal_curvatures",
    "recovery",
    "sigma_of_beta",
    "smoothed_maps",
    "theorem_2",
]
