"""Figures and files that tell what an attack or an explanation showed."""

from trompe.callable_package import make_callable
from trompe.report.explanations import (
    explanations_figure,
    reference_explanations,
    save_explanations,
)
from trompe.report.files import image_metrics, prepare_output, write_attack
from trompe.report.overview import overview_figure, reference_overview, save_overview

__all__ = [
    "explanations_figure",
    "image_metrics",
    "overview_figure",
    "prepare_output",
    "reference_explanations",
    "reference_overview",
    "save_explanations",
    "save_overview",
    "write_attack",
]

make_callable(__name__)
