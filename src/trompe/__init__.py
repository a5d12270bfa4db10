"""Can the explanations of a neural network be trusted? Manipulate, measure, bound, harden them.

The names below are imported on first use, so that ``import trompe`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trompe.version import __version__

_HOME = {
    "AttackResult": "trompe.types",
    "Certificate": "trompe.certificates",
    "CertificateError": "trompe.errors",
    "Explainer": "trompe.types",
    "Explanation": "trompe.types",
    "InputSpace": "trompe.types",
    "Keep": "trompe.attacks",
    "LoadedModel": "trompe.types",
    "RobustnessResult": "trompe.robustness",
    "TrompeError": "trompe.errors",
    "UnsupportedOp": "trompe.errors",
    "adapters": "trompe.adapters",
    "attack": "trompe.api",
    "audit": "trompe.audit",
    "auto_attack": "trompe.robustness",
    "certify": "trompe.certificates",
    "compare": "trompe.tampering",
    "detect": "trompe.defences",
    "explainer": "trompe.explain",
    "fool": "trompe.tampering",
    "geometry": "trompe.geometry",
    "harden": "trompe.defences",
    "heatmap": "trompe.types",
    "load_model": "trompe.zoo",
    "load_result": "trompe.saved_result",
    "manipulate": "trompe.attacks",
    "manipulate_all": "trompe.attacks",
    "methods": "trompe.explain",
    "metrics": "trompe.metrics",
    "models": "trompe.zoo",
    "plot": "trompe.report.plot",
    "report": "trompe.report",
    "robustness": "trompe.robustness",
    "smooth": "trompe.engine",
    "transfer": "trompe.robustness",
}

if TYPE_CHECKING:
    from trompe import adapters as adapters
    from trompe import geometry as geometry
    from trompe import metrics as metrics
    from trompe.api import attack as attack
    from trompe.api import audit as audit
    from trompe.api import report as report
    from trompe.api import robustness as robustness
    from trompe.attacks import Keep as Keep
    from trompe.attacks import manipulate as manipulate
    from trompe.attacks import manipulate_all as manipulate_all
    from trompe.certificates import Certificate as Certificate
    from trompe.certificates import certify as certify
    from trompe.defences import detect as detect
    from trompe.defences import harden as harden
    from trompe.engine import smooth as smooth
    from trompe.errors import CertificateError as CertificateError
    from trompe.errors import TrompeError as TrompeError
    from trompe.errors import UnsupportedOp as UnsupportedOp
    from trompe.explain import explainer as explainer
    from trompe.explain import methods as methods
    from trompe.report import plot as plot
    from trompe.robustness import RobustnessResult as RobustnessResult
    from trompe.robustness import auto_attack as auto_attack
    from trompe.robustness import transfer as transfer
    from trompe.saved_result import load_result as load_result
    from trompe.tampering import compare as compare
    from trompe.tampering import fool as fool
    from trompe.types import AttackResult as AttackResult
    from trompe.types import Explainer as Explainer
    from trompe.types import Explanation as Explanation
    from trompe.types import InputSpace as InputSpace
    from trompe.types import LoadedModel as LoadedModel
    from trompe.types import heatmap as heatmap
    from trompe.zoo import load_model as load_model
    from trompe.zoo import models as models

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'trompe' has no attribute '{name}'")
    home = importlib.import_module(_HOME[name])
    value = home if _HOME[name].endswith(f".{name}") else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
