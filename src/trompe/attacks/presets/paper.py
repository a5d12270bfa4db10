"""The settings of the experiments of Dombrowski et al. 2019."""

from __future__ import annotations

from trompe.attacks.presets.base import Preset, innermost, presets
from trompe.attacks.steps import Adam
from trompe.explain.base import Method

_PAPER = {
    "integrated_grad": Preset(iterations=500, step=Adam(5e-3)),
    "lrp": Preset(step=Adam(2e-4), beta_start=None),
    "pattern_attribution": Preset(step=Adam(2e-3)),
}
_PAPER_SMOOTHGRAD = {
    "gradient": Preset(step=Adam(3e-3)),
    "lrp": Preset(step=Adam(3e-4), beta_start=None),
}
_PAPER_BETA_SMOOTHING = {
    "gradient": Preset(iterations=500, step=Adam(2.5e-4), beta_start=None),
    "grad_times_input": Preset(iterations=500, step=Adam(2.5e-4), beta_start=None),
    "integrated_grad": Preset(iterations=200, step=Adam(2.5e-3), beta_start=None),
    "lrp": Preset(iterations=1500, step=Adam(2e-4), beta_start=None),
    "guided_backprop": Preset(iterations=500, step=Adam(5e-4), beta_start=None),
    "pattern_attribution": Preset(iterations=500, step=Adam(5e-4), beta_start=None),
}


@presets.register("paper")
def paper(method: Method, height: int) -> Preset:
    """The paper's settings (its supplement); those of ``gradient`` for other methods.

    Methods whose map is made of outputs alone are attacked on the network itself.
    """
    if innermost(method).first_order:
        return Preset(beta_start=None)
    base = getattr(method, "base", None)
    if method.name == "smoothgrad" and base is not None:
        return _PAPER_SMOOTHGRAD.get(base.name, _PAPER_SMOOTHGRAD["gradient"])
    if method.name == "beta_smoothing" and base is not None:
        return _PAPER_BETA_SMOOTHING.get(base.name, _PAPER_BETA_SMOOTHING["gradient"])
    return _PAPER.get(method.name, Preset())
