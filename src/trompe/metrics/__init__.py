"""Distances and similarities of maps, images and outputs: ``metric(a, b) -> Tensor [B]``.

Every metric takes two tensors whose first dimension is the batch, computes in double precision
and returns one number per image in the dtype and on the device of its arguments. To add one,
decorate a function with ``trompe.metrics.base.metric`` in a module of this package.
"""

from trompe.metrics.base import Metric, metric, metrics
from trompe.metrics.concentration import entropy, gini, mass_in
from trompe.metrics.distance import l2, linf, mse, psnr
from trompe.metrics.faithfulness import Curve, deletion, insertion
from trompe.metrics.outputs import logit_l2, output_change, softmax_l2
from trompe.metrics.ranks import kendall, lens_topk, rbo, topk_div
from trompe.metrics.similarity import (
    cosine,
    dssim,
    mass_centre_distance,
    pcc,
    spearman,
    ssim,
    ssim_or_nan,
    topk_intersection,
)

__all__ = [
    "Curve",
    "Metric",
    "cosine",
    "deletion",
    "dssim",
    "entropy",
    "gini",
    "insertion",
    "kendall",
    "l2",
    "lens_topk",
    "linf",
    "logit_l2",
    "mass_centre_distance",
    "mass_in",
    "metric",
    "metrics",
    "mse",
    "output_change",
    "pcc",
    "psnr",
    "rbo",
    "softmax_l2",
    "spearman",
    "ssim",
    "ssim_or_nan",
    "topk_div",
    "topk_intersection",
]
