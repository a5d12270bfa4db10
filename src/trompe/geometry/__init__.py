"""Why maps can be manipulated, how far at most: curvature, and bounds that are true."""

from trompe.geometry.certificate import Certificate, certify
from trompe.geometry.comparison import (
    Comparison,
    compare_smoothings,
    first_layer_norm,
    matching_sigma,
)
from trompe.geometry.curvature import Curvatures, principal_curvatures
from trompe.geometry.noise import Averages, beta_of_sigma, sigma_of_beta, theorem_2
from trompe.geometry.sandwich import Sandwich, sandwich
from trompe.geometry.smoothing import (
    Choice,
    Likeness,
    Recovery,
    choose_beta,
    distance_to_relu,
    recovery,
    smoothed_maps,
)
from trompe.geometry.strongest import Strongest, strongest_change

__all__ = [
    "Averages",
    "Certificate",
    "Choice",
    "Comparison",
    "Curvatures",
    "Likeness",
    "Recovery",
    "Sandwich",
    "Strongest",
    "beta_of_sigma",
    "certify",
    "choose_beta",
    "compare_smoothings",
    "distance_to_relu",
    "first_layer_norm",
    "matching_sigma",
    "principal_curvatures",
    "recovery",
    "sandwich",
    "sigma_of_beta",
    "smoothed_maps",
    "strongest_change",
    "theorem_2",
]
