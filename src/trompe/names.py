"""Names as people type them: other spellings, usual names of methods, what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from trompe.errors import UsageError

USUAL_NAMES = {
    "ig": "integrated_grad",
    "integratedgradients": "integrated_grad",
    "saliency": "gradient",
    "vanillagradient": "gradient",
    "grad": "gradient",
    "inputxgradient": "grad_times_input",
    "gradientxinput": "grad_times_input",
    "gradientinput": "grad_times_input",
    "gradinput": "grad_times_input",
    "gradienttimesinput": "grad_times_input",
    "guidedbackpropagation": "guided_backprop",
    "guidedbp": "guided_backprop",
    "gbp": "guided_backprop",
    "deconvolution": "deconvnet",
    "layerwiserelevancepropagation": "lrp",
    "shap": "kernel_shap",
    "gradientshap": "expected_gradients",
    "eg": "expected_gradients",
    "ebp": "excitation_backprop",
    "excitationbackpropagation": "excitation_backprop",
    "rollout": "attention_rollout",
}
"""What captum, tf-explain and papers call the explanation methods, without their dashes."""


def squeezed(name: str) -> str:
    """A name without case, dashes, underscores and blanks: ``Grad-CAM`` is ``gradcam``."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def resolve(name: str, kind: str, names: Iterable[str]) -> str:
    """The one of ``names`` that ``name`` stands for: itself, another spelling or a usual name.

    Args:
        name: as it was typed.
        kind: what it is called in the message, such as ``explanation method``.
        names: that there are.

    Raises:
        UsageError: if there is none; the message says what may have been meant.
    """
    if not isinstance(name, str):
        raise UsageError(f"a name of a kind of {kind} is a word, not a {type(name).__name__}")
    names = list(names)
    if name in names:
        return name
    alike = [other for other in names if squeezed(other) == squeezed(name)]
    alike += [other for other in names if other == USUAL_NAMES.get(squeezed(name))]
    if len(alike) == 1:
        return alike[0]
    typed = {squeezed(other): other for other in names}
    typed |= {usual: own for usual, own in USUAL_NAMES.items() if own in names}
    close = difflib.get_close_matches(squeezed(name), typed, n=2, cutoff=0.65)
    meant = " or ".join(dict.fromkeys(typed[word] for word in close))
    hint = f"did you mean {meant}? There are" if meant else "choose from"
    raise UsageError(f"unknown {kind} '{name}': {hint} {', '.join(names)}")
