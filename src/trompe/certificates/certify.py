"""True upper bounds on how far an explanation can be moved within a ball."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal, overload

import torch

from trompe.certificates.certificate import Certificate
from trompe.certificates.methods import certificates
from trompe.certificates.noise_certificate import NoiseCertificate
from trompe.engine import adapted
from trompe.errors import UsageError
from trompe.given import number, of_kind, one_of
from trompe.types import InputSpace


@overload
def certify(
    model: Any,
    x: Any,
    *,
    radius: float | Sequence[float],
    norm: str = "l2",
    target: Any = None,
    method: Literal["noise"],
    input_space: InputSpace | None = None,
    **options: Any,
) -> NoiseCertificate: ...


@overload
def certify(
    model: Any,
    x: Any,
    *,
    radius: float,
    norm: str = "l2",
    target: Any = None,
    method: str = "best",
    input_space: InputSpace | None = None,
    **options: Any,
) -> Certificate: ...


def certify(
    model: Any,
    x: Any,
    *,
    radius: float | Sequence[float],
    norm: str = "l2",
    target: Any = None,
    method: str = "best",
    input_space: InputSpace | None = None,
    **options: Any,
) -> Certificate | NoiseCertificate:
    """Bound the change of an explanation over the ball of ``radius`` around x.

    Every certificate is a file of ``trompe.certificates.methods``; one of your own, registered in
    ``trompe.certificates.certificates``, is a choice too. All but the last two are proofs about the
    gradient explanation of the network as it is; each is valid for itself, and ``best`` takes the
    smallest of those that take no more than seconds, quantity by quantity:

    - ``frobenius``: ``b C`` of Dombrowski et al. 2019, Theorem 1: Frobenius norms of the layers;
    - ``global``: the same with spectral norms from above (Singla and Feizi 2020);
    - ``interval``: boxes and l2 balls of every value over the ball, hence of slopes, second
      derivatives and gradients, backward through the layers;
    - ``jacobian``: besides, exact Jacobians and the exact Hessian at x with bounds of how far each
      entry moves; inputs and layers must be small;
    - ``telescope``: exact Jacobians at x between all layers, the exact Hessian at x, and how far
      each unit's derivatives move: far below products of layer norms, on convolutional networks
      too, as long as the radius is small; takes minutes there, so ``best`` has it for small
      networks only;
    - ``smoothgrad``: for any network, its SmoothGrad map instead (``certify_smoothgrad``);
    - ``noise``: for any network and any explainer, functions without gradients included, the mean
      of its maps over Gaussian noise: correlation, l1 change, the largest squares, votes and label,
      from samples, with a stated confidence, for many radii at once (``NoiseCertificate``).

    A proof is of all gradients (at kinks: of all Clarke gradients) at all points of the ball,
    whether images or not. It is computed in float64 with outward rounding, for the exact network
    with the given weights, where ``nn.Softplus`` counts as exact beyond its threshold (it is off by
    ``exp(-20)``). The proof is of exact arithmetic: for x in float32 an allowance of 64 units in
    the last place is added to every gradient entry, which covers the rounding that evaluations
    show, but is no proof of it.

    Args:
        model: Any module [1, ...] -> [1, K] of convolutions, linear layers, ReLU or softplus
            (``trompe.smooth(model, beta=..., pooling=True)``), pooling, batch norm and sums;
            ``smoothgrad`` and ``noise`` take any module. A ``LoadedModel`` brings its input space.
        x: The images, [B, C, H, W] or [B, D], normalised.
        radius: Of the ball: in pixel units (0..1) if ``input_space`` is given, else in units of x;
            one, or for ``noise`` several.
        norm: ``l1``, ``l2`` or ``linf``.
        target: Class of each image, [B], or one for all; by default the one that the model
            predicts, and not its smoothed version (``trompe.smooth``).
        method: Name of the certificate; see above.
        input_space: The model's normalisation. A proof then holds for the ball of x that covers
            all changes of the image within the radius (off by the spread of ``std``).
        options: Of the certificate, such as ``explainer``, ``sigma``, ``samples``, ``confidence``,
            ``pool`` and ``progress`` of ``noise``.

    Returns:
        A ``Certificate``; of ``noise`` a ``NoiseCertificate``.

    Raises:
        UsageError: If a setting is out of range or unknown.
        CertificateError: If the model has an operation without bounds; it is named.

    Example:
        >>> import torch, trompe
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
        >>> smooth = trompe.smooth(net, beta=1.0)
        >>> certificate = trompe.certify(smooth, torch.ones(1, 4), radius=0.1)
        >>> bool(certificate.heatmap_l1 < 2)
        True
    """
    if input_space is not None:
        of_kind("input_space", input_space, InputSpace)
    one_of("norm", norm, ("l1", "l2", "linf"))
    for one in radius if isinstance(radius, list | tuple) else [radius]:
        number("radius", one)
    given = adapted(model, x, evaluation=True, differentiable=False)
    if not bool(torch.isfinite(given.x).all()):
        raise UsageError("x has entries that are not finite numbers: give images")
    kind: Any = certificates[method]
    if "explainer" in options and "explainer" not in [one.name for one in fields(kind)]:
        raise UsageError(
            f"the certificate '{method}' bounds the gradient and takes no explainer: give "
            "method='noise', which bounds the noise-smoothed map of any"
        )
    certificate: Certificate | NoiseCertificate = certificates.make(method, options)(
        given.model,
        given.x,
        radius=radius,
        norm=norm,
        target=given.target(target),
        input_space=input_space or given.space,
    )
    return certificate
