"""What the arrays of a cell say: metrics, the control with noise, the maps by beta, flags.

Everything here follows from what is kept and from seeds, so that ``trompe verify`` can compute it
anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.attacks.objectives import Objective, takes_target
from trompe.attacks.observation import Observation, observe
from trompe.audit.batches import Cell
from trompe.audit.faithful import faithfulness
from trompe.audit.flags import flags
from trompe.audit.settings import Settings
from trompe.engine import frozen, smooth
from trompe.explain import Method
from trompe.metrics import pcc
from trompe.metrics.attack import Outcome, attack_metrics, curve
from trompe.outputs import Outputs
from trompe.per_image import per_image
from trompe.types import AttackResult, InputSpace, LoadedModel

#: Quantities of an attack's history, in the order in which they are kept; others come after.
CURVES = ("loss", "map_mse", "map_pcc", "output_mse", "image_mse", "beta")


def noise_like(cell: Cell, settings: Settings, x: Tensor) -> Tensor:
    """The direction of the control's noise for one cell: the shape of ``x`` [C, H, W], norm 1."""
    seed = (settings.seed * 1_009 + cell.image) * 1_000_003 + cell.target
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed % 2**63))
    return noise.to(x.dtype) / noise.to(x.dtype).norm()


@dataclass(frozen=True)
class Judge:
    """Judges the outcome of attacks on one model, method and smoothing.

    Args:
        settings: of the run.
        loaded: the model.
        explainer: the explanation that was attacked.
        objective: of the attacks, as it was given.
        plain: whether it is not smoothed.
    """

    settings: Settings
    loaded: LoadedModel
    explainer: Method
    objective: Objective
    plain: bool

    def with_model(self, outcome: Outcome, cells: Sequence[Cell]) -> dict[str, Tensor]:
        """What needs the model, per image [B].

        The control with noise, in a run with defences how faithful the clean maps are, what the
        objective says if it is not the usual one, and of explanations that are not smoothed the
        maps by beta.
        """
        noisy = self.noisy(outcome, cells)
        found = self.control(outcome, noisy)
        found |= faithfulness(
            frozen(self.loaded.model), self.explainer, outcome, self.settings, self.loaded.outputs
        )
        if not self.settings.usual_objective:
            found |= self.reached(outcome, noisy)
        return found | self.recovery(outcome) if self.plain else found

    def seen(self, model: nn.Module, x: Tensor, target: Tensor) -> Observation:
        """What a model and the attacked explanation make of images, on the CPU."""
        place = next(self.loaded.model.parameters(), x).device
        with torch.no_grad():
            now = observe(model, self.explainer, x.to(place), target.to(place))
        return Observation(x, now.map.cpu(), now.logits.cpu(), now.relevance.cpu())

    def noisy(self, outcome: Outcome, cells: Sequence[Cell]) -> Observation:
        """The original images with random noise of the change's Euclidean size."""
        unit = torch.stack([noise_like(cell, self.settings, outcome.x[0]) for cell in cells])
        size = (outcome.x_adv - outcome.x).flatten(1).norm(dim=1)
        images = self.loaded.input_space.clamp(outcome.x + per_image(size, unit) * unit)
        return self.seen(frozen(self.loaded.model), images, outcome.target_class)

    def control(self, outcome: Outcome, noisy: Observation) -> dict[str, Tensor]:
        """What random noise of the same Euclidean size does to the maps, per image [B]."""
        return {
            "noise_target_pcc": pcc(noisy.map, outcome.aim),
            "noise_original_pcc": pcc(noisy.map, outcome.map_original),
        }

    def prepared(self, outcome: Outcome, before: Observation) -> Objective:
        """The objective with all that it takes from the images, as the attack had it."""
        objective = self.objective
        if takes_target(objective):
            objective = dataclasses.replace(objective, **{"target": outcome.map_target})

        def explain(x: Tensor, target: Tensor) -> Tensor:
            return self.seen(frozen(self.loaded.model), x, target).map

        return objective.prepare(before, explain)

    def reached(self, outcome: Outcome, noisy: Observation) -> dict[str, Tensor]:
        """The objective on the original model, lower is further, per image [B].

        ``objective_before`` is its score of the original images, ``objective_after`` that of the
        manipulated ones, ``objective_noise`` that of noise of the same size; then follows what it
        measures of the manipulated ones, by its own names.
        """
        model = frozen(self.loaded.model)
        before, after = (
            self.seen(model, x, outcome.target_class) for x in (outcome.x, outcome.x_adv)
        )
        objective = self.prepared(outcome, before)
        return {
            "objective_before": objective.score(before, before),
            "objective_after": objective.score(after, before),
            "objective_noise": objective.score(noisy, before),
            **{
                f"objective_{name}": column
                for name, column in objective.measures(after, before).items()
            },
        }

    def recovery(self, outcome: Outcome) -> dict[str, Tensor]:
        """Figure 4: how near the smoothed map of the manipulated image is to the two maps, [B]."""
        found: dict[str, Tensor] = {}
        model = frozen(self.loaded.model)
        for beta in self.settings.recovery:
            smoothed = smooth(model, beta=beta)
            adv = self.seen(smoothed, outcome.x_adv, outcome.target_class).map
            clean = self.seen(smoothed, outcome.x, outcome.target_class).map
            found[f"beta_{beta:g}_target_pcc"] = pcc(adv, outcome.aim)
            found[f"beta_{beta:g}_original_pcc"] = pcc(adv, outcome.map_original)
            found[f"beta_{beta:g}_same_pcc"] = pcc(adv, clean)
        return found


def kept_arrays(result: AttackResult, index: int) -> dict[str, Tensor]:
    """Everything that is kept of image ``index`` of an attack, but for the image itself.

    Returns:
        ``x_adv``, the maps (that which was aimed at where there is one) and the logits, [1, ...]
        each; ``history_*``, at most 100 entries each, and the whole ``loss`` if it has more;
        ``zero_gradient`` and ``not_finite``, [1]; ``kinks_remain``, [1], their number where the
        network has kinks that no smoothing covers.
    """
    one = slice(index, index + 1)
    arrays = {
        "x_adv": result.x_adv[one],
        "map_original": result.map_original[one],
        "map_adv": result.map_adv[one],
        "logits_original": result.logits_original[one],
        "logits_adv": result.logits_adv[one],
        "zero_gradient": torch.tensor([int(result.provenance["vanishing_gradient"][index])]),
        "not_finite": torch.tensor([int(result.stopped == "not finite")]),
    }
    if result.provenance["remaining_kinks"]:
        arrays["kinks_remain"] = torch.tensor([len(result.provenance["remaining_kinks"])])
    if result.map_target is not None:
        arrays["map_target"] = result.map_target[one]
    own = [name for name in result.history if name not in CURVES]  # the objective's
    history = {k: result.history[k][:, index] for k in (*CURVES, *own) if k in result.history}
    if history:
        arrays |= {f"history_{name}": curve(column) for name, column in history.items()}
        steps = torch.arange(next(iter(history.values())).shape[0])
        arrays["history_iteration"] = curve(steps)
        if "loss" in history and len(steps) > len(arrays["history_iteration"]):
            arrays["loss"] = history["loss"]
    # Copies: a part of a batch would travel with the whole of it.
    return {name: tensor.clone() for name, tensor in arrays.items()}


def outcome_of(x: Tensor, arrays: Mapping[str, Tensor], outputs: Outputs | None = None) -> Outcome:
    """The outcome of an attack on one image, from what is kept of it."""
    return Outcome(
        x=x,
        x_adv=arrays["x_adv"],
        target_class=arrays["logits_original"].argmax(dim=1),
        map_original=arrays["map_original"],
        map_target=arrays.get("map_target"),
        map_adv=arrays["map_adv"],
        logits_original=arrays["logits_original"],
        logits_adv=arrays["logits_adv"],
        outputs=outputs,
    )


def metrics_of(
    x: Tensor, arrays: Mapping[str, Tensor], space: InputSpace, outputs: Outputs | None = None
) -> dict[str, float]:
    """The metrics of a cell that follow from its arrays alone; NaN where one is undefined."""
    return attack_metrics(outcome_of(x, arrays, outputs), space)[0]


def flags_of(values: Mapping[str, float], arrays: Mapping[str, Tensor]) -> list[str]:
    """The flags of a cell, from its metrics and arrays."""
    prefix = "history_"
    history = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    if "loss" in arrays:
        history["loss"] = arrays["loss"]
    return flags(
        values,
        history,
        zero=bool(arrays["zero_gradient"].any()),
        stopped="not finite" if bool(arrays["not_finite"].any()) else "finished",
        kinks="kinks_remain" in arrays,
    )
