"""What ``trompe smooth`` found, as JSON and as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from trompe.attacks import Adaptive, Attacked
    from trompe.defences import Choice
    from trompe.geometry import Comparison, Recovery


def rows(found: Choice) -> list[dict[str, float | None]]:
    """What each beta costs and brings."""
    from trompe.geometry import sigma_of_beta

    return [
        {
            "beta": beta,
            "pcc_to_plain_map": found.faithful[i],
            "curvature": found.curvature[i] if math.isfinite(found.curvature[i]) else None,
            "curvature_bound": found.bound[i] if math.isfinite(found.bound[i]) else None,
            "sigma_per_unit_weight": sigma_of_beta(beta),
        }
        for i, beta in enumerate(found.betas)
    ]


def compared(found: Comparison) -> dict[str, Any]:
    """SmoothGrad beside beta-smoothing."""
    return {
        "beta": found.beta,
        "sigma": found.sigma,
        "closest_sigma": found.closest,
        "samples": found.samples[-1],
        "pcc_to_beta_map": {
            f"{sigma:.4g}": float(row.nanquantile(0.5))
            for sigma, row in zip(found.sigmas, found.agreement, strict=True)
        },
        "pcc_of_plain_map": float(found.plain.nanquantile(0.5)),
        "seconds": found.median_seconds,
    }


def attacked(found: Adaptive) -> dict[str, Any]:
    """The attacks on the plain and on the smoothed explanations."""

    def numbers(one: Attacked) -> dict[str, Any]:
        return {
            "pcc_to_target_before": _listed(one.before.pcc),
            "pcc_to_target": _listed(one.after.pcc),
            "ssim_to_target": _listed(one.after.ssim),
            "image_ssim": _listed(one.images.ssim),
            "class_kept": one.result.class_kept.tolist(),
            "iterations": one.result.iterations,
        }

    return {
        name: numbers(one) for name, one in {"plain": found.plain, **found.smoothed}.items()
    }  # fmt: skip


def _listed(values: Tensor) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def recovered(found: Recovery) -> list[dict[str, float]]:
    """What smoothing undoes of the attack on the plain one, by beta."""
    original, target = found.to_original, found.to_target
    return [
        {
            "beta": beta,
            "pcc_to_original": float(original.pcc[i].nanquantile(0.5)),
            "pcc_to_target": float(target.pcc[i].nanquantile(0.5)),
        }
        for i, beta in enumerate(original.betas)
    ]


def words(report: dict[str, Any]) -> list[str]:
    """The report as text."""
    lines = []
    if report.get("rows"):
        lines.append(f"{'beta':>8}{'correlation':>13}{'curvature':>12}{'proved':>12}")
    for row in report.get("rows", ()):
        numbers = (row["curvature"], row["curvature_bound"])
        shown = "".join(f"{'-' if n is None else f'{n:.3g}':>12}" for n in numbers)
        lines.append(f"{row['beta']:>8g}{row['pcc_to_plain_map']:>13.3f}{shown}")
    if report.get("chosen") is not None:
        faithful = report["run"]["faithful"]
        lines.append(f"Chosen: beta = {report['chosen']:g} (correlation at least {faithful:g})")
    if (beside := report.get("comparison")) is not None:
        lines.append(f"SmoothGrad beside beta = {beside['beta']:g}, correlation of the maps:")
        for sigma, value in beside["pcc_to_beta_map"].items():
            note = " (Theorem 2's sigma)" if sigma == f"{beside['sigma']:.4g}" else ""
            lines.append(f"  sigma {sigma:>8}: {value:.3f}{note}")
        lines.append(f"  no smoothing:   {beside['pcc_of_plain_map']:.3f}")
        for name, seconds in beside["seconds"].items():
            lines.append(f"  {name}: {1000 * seconds:.3g} ms per image")
    for name, one in report.get("attack", {}).items():
        before, after = (
            ", ".join("-" if value is None else f"{value:.2f}" for value in one[key])
            for key in ("pcc_to_target_before", "pcc_to_target")
        )
        lines.append(f"Attack on {name}: correlation with the target {before} -> {after}")
    for row in report.get("recovery", ()):
        lines.append(
            f"  explained with beta {row['beta']:g}: {row['pcc_to_original']:.2f} with the "
            f"original's map, {row['pcc_to_target']:.2f} with the target"
        )
    return lines
