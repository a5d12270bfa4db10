"""Patterns: learned (against slow sums over patches), stored, applied, and refused."""

from __future__ import annotations

from pathlib import Path

import nets
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import trompe
from trompe.errors import PatternError
from trompe.rules.patterns import learn_patterns, load_patterns, save_patterns

X, TARGET = 0.6 * nets.images(), torch.tensor([2, 1])


def slow_pattern(patches: Tensor, y: Tensor, weight: Tensor, activated: bool) -> Tensor:
    """``a = (E+[xy] - E+[x] E[y]) / (w^T ...)`` for one neuron; patches [N, D], y [N]."""
    chosen = y > 0 if activated else torch.ones_like(y, dtype=torch.bool)
    if not bool(chosen.any()):
        return torch.zeros_like(patches[0])  # a neuron that is never active has no pattern
    both = torch.stack([patches[n] * y[n] for n in range(len(y)) if chosen[n]]).mean(dim=0)
    alone = torch.stack([patches[n] for n in range(len(y)) if chosen[n]]).mean(dim=0)
    covariance = both - alone * y.mean()
    return covariance / (weight.flatten() @ covariance)


def rows_of(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Patches [N, D] and outputs [N, out] over images and places."""
    y = layer(x)
    if isinstance(layer, nn.Linear):
        return x, y
    patches = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return patches.transpose(1, 2).flatten(0, 1), y.flatten(2).transpose(1, 2).flatten(0, 1)


def slow_patterns(net: nn.Sequential, x: Tensor) -> dict[str, Tensor]:
    found, layers = {}, list(net)
    for i, layer in enumerate(layers):
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            patches, y = rows_of(layer, x)
            activated = i + 1 < len(layers) and isinstance(layers[i + 1], nn.ReLU)
            rows = [
                slow_pattern(patches, y[:, j], layer.weight[j], activated)
                for j in range(y.shape[1])
            ]
            found[f"{i}.weight"] = torch.stack(rows).view_as(layer.weight)
        x = layer(x)
    return found


def active(net: nn.Sequential) -> nn.Sequential:
    """Biases high enough that most neurons are active sometimes."""
    for layer in net:
        if getattr(layer, "bias", None) is not None:
            layer.bias.abs_().add_(0.2)
    return net


def test_learned_as_by_slow_sums_whatever_the_batches() -> None:
    net = active(nets.plain().double())
    x = nets.images(12, seed=8)
    expected = slow_patterns(net, x)
    seen: list[int] = []
    for batches in ([x], list(x.split(5))):
        found = learn_patterns(net, batches, seen.append)
        assert found.keys() == expected.keys()
        for name, pattern in found.items():
            assert pattern.dtype == torch.float32
            nets.close(pattern.double(), expected[name], 1e-5)
    assert seen == [12, 5, 10, 12]


def test_a_pattern_is_the_signal_that_the_weight_extracts() -> None:
    """Kindermans et al.'s point: w^T a = 1, and a is the direction of the data, not of w."""
    net = nn.Sequential(nn.Linear(2, 1, bias=False))
    net[0].weight.data = torch.tensor([[1.0, -1.0]])
    generator = torch.Generator().manual_seed(0)
    signal, distractor = torch.randn(2, 4000, 1, generator=generator)
    data = signal * torch.tensor([1.0, 0.0]) + distractor * torch.tensor([1.0, 1.0])
    (pattern,) = learn_patterns(net, [data]).values()
    torch.testing.assert_close(pattern, torch.tensor([[1.0, 0.0]]), rtol=0, atol=0.05)


def test_grouped_and_strided_convolutions() -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2), nn.ReLU(), nn.Flatten())
    nets.seeded(net).double()
    x = torch.randn(6, 4, 5, 5, dtype=torch.float64)
    (found,) = learn_patterns(net, [x]).values()
    y = net[0](x)
    for j in range(4):
        part = x[:, 2 * (j // 2) : 2 * (j // 2) + 2]
        patches = F.unfold(part, 3, padding=1, stride=2).transpose(1, 2).flatten(0, 1)
        expected = slow_pattern(patches, y[:, j].flatten(), net[0].weight[j], True)
        nets.close(found[j].double().flatten(), expected, 1e-5)


def test_linear_layers_over_a_sequence() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Flatten())
    nets.seeded(net).double()
    x = torch.randn(6, 5, 3, dtype=torch.float64)
    (found,) = learn_patterns(net, [x]).values()
    (flat,) = learn_patterns(net[:2], [x.flatten(0, 1)]).values()
    nets.close(found, flat, 1e-6)


def test_the_model_is_as_before_even_in_training_mode() -> None:
    net = active(nets.plain())
    expected = learn_patterns(net, [nets.images(6, dtype=torch.float32)])
    trained = nn.Sequential(*net[:2], nn.Dropout(0.9), *net[2:]).train().requires_grad_(True)
    with torch.no_grad():
        found = learn_patterns(trained, [nets.images(6, dtype=torch.float32)])
    assert trained.training
    assert all(p.requires_grad for p in trained.parameters())
    for ours, theirs in zip(found.values(), expected.values(), strict=True):
        nets.close(ours, theirs, 1e-5)
    assert list(found) == ["0.weight", "4.weight", "7.weight", "9.weight"]


@pytest.mark.parametrize("smoothed", [False, True])
def test_attribution_multiplies_every_weight_by_its_pattern(smoothed: bool) -> None:
    net = nets.plain().double()
    patterns = nets.patterns_of(net)
    model = trompe.smooth(net, beta=4.0) if smoothed else net
    found = trompe.explainer("pattern_attribution", patterns=patterns)(model, X, TARGET)

    def act(z: Tensor) -> Tensor:
        return F.softplus(z, beta=4.0, threshold=60) if smoothed else z.relu()

    def slope(z: Tensor) -> Tensor:
        return torch.sigmoid(4.0 * z) if smoothed else (z > 0).to(z.dtype)

    products = {n: patterns[n] * dict(net.named_parameters())[n] for n in patterns}
    z1 = net[0](X)
    pooled, winners = F.max_pool2d(act(z1), 2, return_indices=True)
    z2 = net[3](pooled)
    z3 = net[6](act(z2).flatten(1))
    logits = net[8](act(z3))
    relevance = (F.one_hot(TARGET, 4) * logits) @ products["8.weight"]
    relevance = (relevance * slope(z3)) @ products["6.weight"]
    relevance = relevance.view_as(z2) * slope(z2)
    relevance = F.conv_transpose2d(relevance, products["3.weight"])
    relevance = F.max_unpool2d(relevance, winners, 2, output_size=z1.shape[2:])
    expected = F.conv_transpose2d(relevance * slope(z1), products["0.weight"], padding=1)
    nets.close(found, expected, 1e-10)


def test_patterns_of_ones_give_the_gradient() -> None:
    net = nets.plain().double()
    ones = {n: torch.ones_like(p) for n, p in net.named_parameters() if p.dim() > 1}
    relevance, logits = trompe.explainer("pattern_attribution", patterns=ones).explain(
        net, X, TARGET
    )
    scores = logits.gather(1, TARGET.view(-1, 1)).view(-1, 1, 1, 1)
    nets.close(relevance, scores * trompe.explainer("gradient")(net, X, TARGET), 1e-12)


def test_saved_and_read_again(tmp_path: Path) -> None:
    net = nets.plain()
    patterns = {n: p.float() for n, p in nets.patterns_of(net).items()}
    path = tmp_path / "patterns.safetensors"
    save_patterns(path, patterns)
    found = load_patterns(path, net)
    assert found.keys() == patterns.keys()
    assert all(torch.equal(found[n], patterns[n]) for n in patterns)
    assert [p.name for p in tmp_path.iterdir()] == ["patterns.safetensors"]


def test_the_layout_of_the_reference_implementation(tmp_path: Path) -> None:
    net = nets.plain()
    patterns = {n: p.float() for n, p in nets.patterns_of(net).items()}
    # layers.N in numerical order: 10 comes after 2; poolings have none, or an empty one.
    numbers = dict(zip(patterns, (0, 2, 10, 11), strict=True))
    stored = {f"layers.{numbers[n]}.pattern": p for n, p in reversed(patterns.items())}
    stored["layers.1.pattern"] = torch.zeros(0)
    stored["layers.0.weight"] = torch.ones(3)
    path = tmp_path / "model_vgg16_pattern_small.pth"
    torch.save(stored, path)
    found = load_patterns(path, net)
    assert all(torch.equal(found[n], patterns[n]) for n in patterns)
    del stored["layers.10.pattern"]
    torch.save(stored, path)
    with pytest.raises(PatternError, match="3 patterns, the model 4 layers"):
        load_patterns(path, net)


def broken_files(tmp_path: Path) -> dict[str, Path]:
    good = {n: p.float() for n, p in nets.patterns_of(nets.plain()).items()}
    files = {}

    def put(complaint: str, patterns: dict[str, Tensor]) -> None:
        files[complaint] = tmp_path / f"{len(files)}.safetensors"
        save_file(patterns, files[complaint])

    put("no pattern for '8.weight'", {n: p for n, p in good.items() if n != "8.weight"})
    put("'3.weight' has the shape", {**good, "3.weight": torch.ones(2, 2)})
    put("'3.weight' is all zero", {**good, "3.weight": torch.zeros_like(good["3.weight"])})
    put("'0.weight' is not finite", {**good, "0.weight": good["0.weight"] / 0})
    files["no such patterns file"] = tmp_path / "missing.safetensors"
    for name in ("text.safetensors", "text.pth"):
        path = tmp_path / name
        path.write_text("not patterns at all")
        files[f"{name} cannot be read"] = path
    files["torn.pth cannot be read"] = tmp_path / "torn.pth"
    files["torn.pth cannot be read"].write_bytes(b"\x80\x04junk")
    listed = tmp_path / "list.pth"
    torch.save([1, 2], listed)
    files["holds no patterns"] = listed
    return files


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    for complaint, path in broken_files(tmp_path).items():
        with pytest.raises(PatternError, match=complaint) as caught:
            load_patterns(path, nets.plain())
        assert "\n" not in str(caught.value)


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(PatternError, match="no image"):
        learn_patterns(nets.plain(), [])
    with pytest.raises(PatternError, match="all zero"):
        learn_patterns(nets.plain(), [torch.zeros(2, 3, 8, 8)])


def test_transposed_convolutions_are_refused() -> None:
    net = nn.Sequential(nn.ConvTranspose2d(3, 2, 2), nn.ReLU(), nn.Flatten())
    with pytest.raises(PatternError, match=r"'0\.weight' is the weight of a transposed"):
        learn_patterns(net, [torch.rand(2, 3, 4, 4)])


def test_patterns_that_do_not_fit_the_model_are_refused_when_used() -> None:
    net = nets.plain().double()
    patterns = nets.patterns_of(net)

    def attribution(**changed: Tensor) -> None:
        trompe.explainer("pattern_attribution", **changed)(net, X, TARGET)

    with pytest.raises(PatternError, match="needs patterns learned"):
        attribution()
    with pytest.raises(PatternError, match=r"no pattern for the weight '3\.weight'"):
        attribution(patterns={n: p for n, p in patterns.items() if n != "3.weight"})
    with pytest.raises(PatternError, match=r"'8\.weight' has the shape"):
        attribution(patterns={**patterns, "8.weight": torch.ones(2, 2)})
    normed = nets.normed().double()
    with pytest.raises(PatternError, match=r"batch_norm.*fold"):
        trompe.explainer("pattern_attribution", patterns=nets.patterns_of(normed))(
            normed, X, TARGET
        )
