"""The control with noise and the maps by beta, against other implementations."""

from __future__ import annotations

from types import SimpleNamespace

import nets
import pytest
import torch
from torch import Tensor

from trompe.attacks.objectives import ReachMap
from trompe.audit import Settings, judgement
from trompe.audit.batches import Cell
from trompe.audit.judgement import Judge, flags_of, kept_arrays, metrics_of, noise_like, outcome_of
from trompe.explain import explainer
from trompe.geometry import recovery
from trompe.metrics import pcc
from trompe.metrics.attack import Outcome
from trompe.types import InputSpace, LoadedModel, heatmap

SPACE = InputSpace((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
CELLS = [Cell(1, 3, 5), Cell(2, 4, 6)]


def judge_and_outcome() -> tuple[Judge, Outcome]:
    net, method = nets.plain(), explainer("gradient")
    x = 0.2 * torch.randn(2, 3, 8, 8)
    x_adv = x + 0.1 * torch.randn_like(x)
    logits = net(x).detach()
    target = logits.argmax(dim=1)

    def heat(images: Tensor) -> Tensor:
        return heatmap(method(net, images, target)).detach()

    outcome = Outcome(
        x=x,
        x_adv=x_adv,
        target_class=target,
        map_original=heat(x),
        map_target=heat(torch.randn_like(x)),
        map_adv=heat(x_adv),
        logits_original=logits,
        logits_adv=net(x_adv).detach(),
    )
    loaded = LoadedModel(net, input_space=SPACE, size=8)
    settings = Settings(seed=7, recovery=(10.0, 1.0))
    return Judge(settings, loaded, method, ReachMap(), True), outcome


def test_the_controls_noise_is_as_large_as_the_change_and_one_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judge, outcome = judge_and_outcome()
    seen: list[Tensor] = []
    observe = judgement.observe

    def watching(model: object, method: object, x: Tensor, target: Tensor) -> object:
        seen.append(x)
        return observe(model, method, x, target)  # type: ignore[arg-type]

    monkeypatch.setattr(judgement, "observe", watching)
    found = judge.control(outcome, judge.noisy(outcome, CELLS))
    (noisy,) = seen
    assert bool((noisy.abs() < 2).all()), "nothing is clamped here"
    size = (outcome.x_adv - outcome.x).flatten(1).norm(dim=1)
    assert torch.allclose((noisy - outcome.x).flatten(1).norm(dim=1), size, rtol=1e-5)
    heat = heatmap(judge.explainer(judge.loaded.model, noisy, outcome.target_class))
    assert torch.allclose(found["noise_target_pcc"], pcc(heat, outcome.map_target), atol=1e-6)
    assert torch.allclose(found["noise_original_pcc"], pcc(heat, outcome.map_original), atol=1e-6)
    other = noise_like(Cell(9, 3, 6), judge.settings, outcome.x[0])
    assert not torch.allclose(other, noise_like(CELLS[0], judge.settings, outcome.x[0]))
    # The same whatever the number of the cell: it belongs to the pair.
    same = noise_like(Cell(99, 3, 5), judge.settings, outcome.x[0])
    assert torch.equal(same, noise_like(CELLS[0], judge.settings, outcome.x[0]))


def test_noise_that_leaves_the_valid_images_is_clamped() -> None:
    judge, outcome = judge_and_outcome()
    space = judge.loaded.input_space
    far = torch.full_like(outcome.x, 1.99)
    shifted = Outcome(**{**vars(outcome), "x": far, "x_adv": far - 1.0})
    unit = torch.stack([noise_like(cell, judge.settings, far[0]) for cell in CELLS])
    size = (shifted.x_adv - far).flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    noisy = torch.minimum(far + size * unit, torch.tensor(space.high[0]))
    heat = heatmap(judge.explainer(judge.loaded.model, noisy.clamp(min=-2), outcome.target_class))
    found = judge.control(shifted, judge.noisy(shifted, CELLS))["noise_target_pcc"]
    assert torch.allclose(found, pcc(heat, outcome.map_target), atol=1e-6)


def test_the_maps_by_beta_are_those_of_figure_4() -> None:
    judge, outcome = judge_and_outcome()
    found = judge.with_model(outcome, CELLS)
    for beta in (10.0, 1.0):
        other = recovery(
            judge.loaded.model,
            outcome.x,
            outcome.x_adv,
            outcome.target_class,
            outcome.map_target,
            betas=(beta,),
        )
        target, same = found[f"beta_{beta:g}_target_pcc"], found[f"beta_{beta:g}_same_pcc"]
        assert torch.allclose(target, other.to_target.pcc[0], atol=1e-6)
        assert torch.allclose(same, other.to_original.pcc[0], atol=1e-6)
        from trompe.engine import smooth

        smoothed = smooth(judge.loaded.model, beta=beta)
        heat = heatmap(judge.explainer(smoothed, outcome.x_adv, outcome.target_class)).detach()
        original = found[f"beta_{beta:g}_original_pcc"]
        assert torch.allclose(original, pcc(heat, outcome.map_original), atol=1e-6)
        assert not torch.allclose(original, target, atol=1e-3)
    unsmoothed_only = Judge(judge.settings, judge.loaded, judge.explainer, judge.objective, False)
    assert set(unsmoothed_only.with_model(outcome, CELLS)) == {
        "noise_target_pcc",
        "noise_original_pcc",
    }


def test_flags_follow_from_what_is_kept_of_a_long_attack_too() -> None:
    from trompe.attacks import manipulate

    judge, outcome = judge_and_outcome()
    result = manipulate(
        judge.loaded.model,
        outcome.x,
        outcome.map_target,
        input_space=SPACE,
        preset="paper",
        iterations=130,
    )
    arrays = kept_arrays(result, 1)
    assert arrays["history_map_pcc"].shape == (100,)
    assert torch.equal(arrays["loss"], result.history["loss"][:, 1])
    values = metrics_of(result.x[1:], arrays, SPACE) | {"noise_target_pcc": 0.0}
    kept = flags_of(values, arrays)
    from trompe.audit.flags import flags

    history = {name: result.history[name][:, 1] for name in ("loss", "map_pcc", "beta")}
    zero = bool(result.provenance["vanishing_gradient"][1])
    assert kept == flags(values, history, zero=zero, stopped=result.stopped)
    assert torch.equal(outcome_of(result.x[1:], arrays).target_class, result.target_class[1:])


def test_the_controls_noise_is_drawn_from_seed_image_and_target() -> None:
    """By the formula written out: (7 * 1009 + 3) * 1000003 + 5."""
    cell = SimpleNamespace(image=3, target=5)
    found = judgement.noise_like(cell, Settings(seed=7), torch.zeros(3, 8, 8))  # type: ignore[arg-type]
    drawn = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(7_066_021_203))
    torch.testing.assert_close(found, drawn / drawn.norm())
