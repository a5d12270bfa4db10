"""What an attack keeps of outputs that are no classes, and what models it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trompe
from trompe.attacks import Keep, Observation
from trompe.errors import ExplanationError, ModelError, UsageError
from trompe.metrics.attack import Outcome, attack_metrics
from trompe.outputs import Outputs

NET = nets.plain()
X = nets.images(2, dtype=torch.float32)
GOAL = torch.rand(8, 8, generator=torch.Generator().manual_seed(5))
SPACE = trompe.InputSpace((0.5,) * 3, (0.15,) * 3)


class Headed(nn.Module):
    """A network whose outputs mean something else."""

    def __init__(self, head: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.head = NET, head

    def forward(self, x: Tensor) -> Any:
        return self.head(self.net(x))


def attacked(model: Any, **options: Any) -> trompe.AttackResult:
    settings: dict[str, Any] = {
        "input_space": SPACE,
        "iterations": 20,
        "explainer": "gradient",
        "preset": nets.one_beta(),
    }
    return trompe.manipulate(model, options.pop("x", X), GOAL, **{**settings, **options})


def near_zero(logits: Tensor) -> Tensor:
    """One logit that is barely positive on both images: nothing but its sign keeps it."""
    with torch.no_grad():
        before = NET(X)
    offset = before[:, 0].min() - 1e-3
    return (logits[:, 0] - offset)[:, None]


@pytest.mark.parametrize("shape", ["[B, 1]", "[B]"])
def test_one_logit_stays_on_its_side(shape: str) -> None:
    squeeze = shape == "[B]"
    model = Headed(lambda y: near_zero(y)[:, 0] if squeeze else near_zero(y)).eval()
    free = attacked(model, keep="last", keep_output="class")
    kept = attacked(model, keep_output="class")
    assert free.outputs.meaning == kept.provenance["outputs"] == "binary"
    sides = (free.logits_adv > 0) == (free.logits_original > 0)
    assert torch.equal(free.class_kept, sides[:, 0])
    assert not bool(sides.all()), "the attack crosses the threshold where it may"
    assert bool(((kept.logits_adv > 0) == (kept.logits_original > 0)).all())
    assert bool(kept.class_kept.all())


def test_the_change_of_one_logit_has_a_price() -> None:
    model = Headed(near_zero).eval()
    result = attacked(model, keep="last")
    change = (result.logits_adv.sigmoid() - result.logits_original.sigmoid()).square().mean(1)
    assert float(result.history["output_mse"].max()) > 0
    assert float(change.min()) > 0
    free = attacked(model, keep="last", keep_output="class")
    away = (free.logits_adv.sigmoid() - free.logits_original.sigmoid()).square().mean(1)
    assert bool((change < away).all())


@pytest.mark.parametrize("what", ["softmax", "logits"])
def test_one_logit_is_kept_within_a_tolerance(what: str) -> None:
    model = Headed(near_zero).eval()
    result = attacked(model, keep_output=Keep(what, tolerance=0.01))  # type: ignore[arg-type]
    before, after = result.logits_original, result.logits_adv
    if what == "softmax":
        before, after = before.sigmoid(), after.sigmoid()
    assert bool(result.found.any())
    assert float((after - before).abs().max()) <= 0.01


def test_the_threshold_of_a_decision_may_be_named() -> None:
    before = NET(X)[:, :1]
    threshold = float(before.min()) - 1e-3
    outputs = Outputs("binary", threshold=threshold)
    result = attacked(Headed(lambda y: y[:, :1]).eval(), outputs=outputs, keep_output="class")
    assert bool((result.logits_adv > threshold).all())


def test_every_label_stays_on_its_side() -> None:
    offsets = NET(X)[0] - torch.tensor([1e-3, -1e-3, 1e-3, -1e-3])
    model = Headed(lambda y: y - offsets).eval()
    as_classes = attacked(model, keep_output="class", keep="last")
    as_labels = attacked(model, keep_output="class", outputs="labels", target=[1, 2])
    sides = (as_classes.logits_adv > 0) == (as_classes.logits_original > 0)
    assert not bool(sides.all()), "keeping the largest alone lets a label change"
    assert bool(((as_labels.logits_adv > 0) == (as_labels.logits_original > 0)).all())
    assert as_labels.target_class.tolist() == [1, 2]
    assert bool(as_labels.class_kept.all())


def test_a_value_stays_within_its_tolerance() -> None:
    model = Headed(lambda y: y[:, 0]).eval()
    free = attacked(model, outputs="value", keep="last", keep_output="class")
    moved = (free.logits_adv - free.logits_original).abs()[:, 0]
    assert torch.equal(free.class_kept, moved <= 0.05 * free.logits_original.abs()[:, 0])
    tolerance = float(moved.min()) / 4
    outputs = Outputs("value", tolerance=tolerance)
    kept = attacked(model, outputs=outputs, keep_output="class")
    assert float((kept.logits_adv - kept.logits_original).abs().max()) <= tolerance


PROBABILITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda y: y.softmax(1),
    "sigmoid": lambda y: y.sigmoid(),
    "one sigmoid": lambda y: y[:, 0].sigmoid(),
    "softmax by hand": lambda y: y.exp() / y.exp().sum(1, keepdim=True),
}


@pytest.mark.parametrize("kind", PROBABILITIES)
def test_probabilities_are_refused_or_logged(kind: str) -> None:
    model = Headed(PROBABILITIES[kind]).eval()
    with pytest.raises(ModelError, match="outputs='probabilities'"):
        attacked(model)
    result = attacked(model, outputs="probabilities")
    true = model(X).reshape(2, -1)
    nets.close(result.outputs.probabilities(result.logits_original), true, 1e-5)
    now = model(result.x_adv).reshape(2, -1)
    nets.close(result.outputs.probabilities(result.logits_adv), now, 1e-5)
    assert float(result.history["output_mse"].max()) > 0


def test_the_logarithm_of_a_softmax_is_attacked_like_logits() -> None:
    """log softmax differs from the logits by a constant of each image: so does its map's target."""
    plain = attacked(Headed(lambda y: y.log_softmax(1)).eval())
    logged = attacked(Headed(lambda y: y.softmax(1)).eval(), outputs="probabilities")
    nets.close(logged.map_original, plain.map_original, 1e-4)
    nets.close(logged.history["loss"], plain.history["loss"], 1e-2)


def test_what_is_kept_of_classes_is_as_before() -> None:
    result = attacked(NET)
    assert result.outputs == Outputs("classes")
    assert torch.equal(
        result.class_kept, result.logits_adv.argmax(1) == result.logits_original.argmax(1)
    )
    keep = Keep("softmax")
    assert keep.outputs == Outputs("classes")


def test_scores_that_are_not_negative_stay_classes() -> None:
    result = attacked(Headed(lambda y: y.relu()).eval())
    assert result.outputs.meaning == "classes"


def test_everyday_models_and_images_are_attacked() -> None:
    expected = attacked(NET)
    loaded = trompe.LoadedModel(NET, SPACE)
    for model in (loaded, lambda x: NET(x), Headed(lambda y: {"logits": y, "loss": None}).eval()):
        nets.close(attacked(model, input_space=None if model is loaded else SPACE).x_adv,
                   expected.x_adv, 1e-5)  # fmt: skip
    nets.close(attacked(NET, x=X.numpy()).x_adv, expected.x_adv, 1e-5)
    nets.close(attacked(NET, x=X[0]).x_adv, expected.x_adv[:1], 1e-4)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda x: F.dropout(NET(x), 0.5), "by chance"),
        (lambda x: NET(x) - NET(x).mean(0), "mixes the images"),
        (lambda x: NET(x).argmax(1), "classes it chose"),
        (lambda x: (NET(x), NET(x)), r"model\(x\)\[0\]"),
        (lambda x, y: NET(x), "more than images"),
    ],
)
def test_models_that_are_no_function_are_not_attacked(model: Any, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        attacked(model)


def test_a_model_in_training_is_attacked_in_evaluation_mode_as_ever() -> None:
    net = nn.Sequential(NET, nn.Dropout(0.5)).train()
    result = attacked(net)
    assert net.training
    nets.close(result.logits_adv, NET(result.x_adv), 1e-5)
    with pytest.raises(ModelError, match="training mode"):
        trompe.explainer("gradient")(net, X, 0)


class Slope(torch.autograd.Function):
    """Twice x, without a derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise RuntimeError("double backwards on square not supported")


class Once(torch.autograd.Function):
    """Squares, with a derivative that cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return Slope.apply(x) * grad


def test_a_missing_second_derivative_is_one_line() -> None:
    with pytest.raises(ExplanationError, match=r"'gradient' cannot be differentiated.*occlusion"):
        attacked(Headed(Once.apply).eval())
    attacked(Headed(Once.apply).eval(), explainer="occlusion")


def test_an_unknown_meaning_is_refused() -> None:
    with pytest.raises(UsageError, match="choose from classes, binary"):
        attacked(NET, outputs="logits")


def test_the_numbers_of_an_attack_follow_the_meaning() -> None:
    result = attacked(Headed(near_zero).eval(), keep="last", keep_output="class")
    rows = attack_metrics(Outcome.of(result), SPACE)
    before, after = result.logits_original[:, 0], result.logits_adv[:, 0]
    for i, row in enumerate(rows):
        assert row["class_before"] == 1.0
        assert row["class_after"] == float(after[i] > 0)
        assert row["class_kept"] == float(after[i] > 0)
        assert row["probability_before"] == pytest.approx(float(before[i].sigmoid()))
        assert row["probability_after"] == pytest.approx(float(after[i].sigmoid()))
        away = 2**0.5 * abs(float(after[i].sigmoid() - before[i].sigmoid()))
        assert row["softmax_l2"] == pytest.approx(away, rel=1e-4)


def test_a_saved_result_knows_what_its_outputs_mean(tmp_path: Path) -> None:
    outputs = Outputs("labels", threshold=0.25)
    result = attacked(NET, outputs=outputs, iterations=2)
    again = trompe.load_result(result.save(tmp_path / "result.safetensors"))
    assert again.outputs == outputs
    assert torch.equal(again.class_kept, result.class_kept)


def test_a_changed_class_is_not_kept_however_small_the_change() -> None:
    x = torch.zeros(2, 1)
    before = Observation(x, x, torch.tensor([[0.1, 0.0], [0.1, 0.0]]), x)
    after = Observation(x, x, torch.tensor([[0.1, 0.11], [0.11, 0.1]]), x)
    assert Keep("logits", tolerance=1.0).kept(after, before).tolist() == [False, True]
    assert Keep("logits", tolerance=0.05).kept(after, before).tolist() == [False, False]
