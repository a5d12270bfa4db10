"""The attack on a smoothed explanation itself, beside that on the plain one (figures 5, 22, 23)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.attacks.manipulation import manipulate
from trompe.attacks.presets import DEFAULT_PRESET, Preset
from trompe.engine import frozen
from trompe.errors import UsageError
from trompe.explain.base import Method
from trompe.explain.beta_smoothing import BetaSmoothing
from trompe.explain.gradient import Gradient
from trompe.interruption import whole
from trompe.metrics.attack import Similarity, similarity
from trompe.types import AttackResult, InputSpace, Progress, heatmap


@dataclass(frozen=True)
class Attacked:
    """What an attack on one explanation did.

    Args:
        before: likeness of the original map to the target, before the attack.
        after: likeness of the manipulated map to the target.
        images: likeness of the manipulated to the original image.
        result: all that the attack found.
    """

    before: Similarity
    after: Similarity
    images: Similarity
    result: AttackResult


@dataclass(frozen=True)
class Adaptive:
    """The same attack on the plain and on the smoothed explanations.

    Args:
        plain: on the explanation that is not smoothed.
        smoothed: by name; an attack that knows of the smoothing, and differentiates through it.
    """

    plain: Attacked
    smoothed: Mapping[str, Attacked]

    def harder(self, name: str) -> Tensor:
        """Whether the smoothed map stayed less like its target than the plain one, bool [B]."""
        return self.smoothed[name].after.pcc < self.plain.after.pcc


def adaptive_attack(
    model: nn.Module,
    x: Tensor,
    *,
    target_x: Tensor | None = None,
    target_map: Tensor | None = None,
    target: Tensor | None = None,
    method: Method | None = None,
    beta: float = 0.8,
    smoothings: Mapping[str, Method] | None = None,
    input_space: InputSpace | None = None,
    preset: str | Preset = DEFAULT_PRESET,
    iterations: int | None = None,
    progress: Progress | None = None,
) -> Adaptive:
    """Attack the beta-smoothed map itself, and the plain one (figure 5 of Dombrowski et al. 2019).

    Each explanation is attacked by an attack that knows it. The preset ``paper`` has the paper's
    settings for either. Results are judged on the original network for the class it gives the
    original image, as by ``trompe.manipulate``.

    Args:
        model: any module [B, C, H, W] -> [B, K]. Not changed.
        x: original images, normalised, [B, C, H, W].
        target_x: images whose explanation is the target, [B, C, H, W] or [1, C, H, W]: each
            attack aims at their map as its own explanation gives it, of their predicted class.
        target_map: in place of them, maps that all attacks aim at, [B, H, W] or [H, W].
        target: class explained of each image, [B]; by default the predicted one.
        method: the one attacked; the gradient by default.
        beta: of the smoothing, positive; the paper's 0.8.
        smoothings: explanations attacked in place of beta-smoothing, by name.
        input_space: the model's normalisation; ImageNet's if not given.
        preset: a name, or settings of your own for all attacks.
        iterations: in place of the preset's.
        progress: called after every step of each attack.

    Returns:
        Per attack the similarities of maps and images, per image.

    Raises:
        UsageError: if not exactly one target is given, or a setting is out of range.
        TrompeError: whatever ``trompe.manipulate`` raises.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4),
        ...                           torch.nn.ReLU(), torch.nn.Linear(4, 3)).eval()
        >>> found = adaptive_attack(net, torch.zeros(1, 3, 2, 2),
        ...                         target_map=torch.rand(2, 2), iterations=2)
        >>> found.smoothed["beta=0.8"].after.pcc.shape
        torch.Size([1])
    """
    if target_x is not None and target_map is not None:
        raise UsageError("give one of target_x and target_map, not both")
    if x.dim() != 4:
        raise UsageError(f"adaptive_attack is for images [B, C, H, W], not for {tuple(x.shape)}")
    base, space, judge = method or Gradient(), input_space or InputSpace(), frozen(model)
    if smoothings is None:
        smoothings = {f"beta={beta:g}": BetaSmoothing(base=base, beta=beta)}

    def aim(explainer: Method) -> Tensor:
        if target_map is not None:
            return target_map
        if target_x is None:
            raise UsageError("the attack needs something to aim at: give target_x or target_map")
        with torch.no_grad():
            classes = judge(target_x.detach().clone()).argmax(dim=1)
            return heatmap(explainer(judge, target_x.detach(), classes))

    def attacked(explainer: Method) -> Attacked:
        result = whole(
            manipulate(
                model,
                x,
                aim(explainer),
                target=target,
                explainer=explainer,
                input_space=space,
                preset=preset,
                iterations=iterations,
                progress=progress,
            )
        )
        return Attacked(
            before=similarity(result.map_original, result.aim),
            after=similarity(result.map_adv, result.aim),
            images=similarity(space.to_pixels(result.x_adv), space.to_pixels(result.x)),
            result=result,
        )

    return Adaptive(attacked(base), {name: attacked(one) for name, one in smoothings.items()})
