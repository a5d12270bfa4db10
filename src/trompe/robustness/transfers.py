"""Whether a manipulation of one method and one network fools others as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trompe.attack_result import AttackResult
from trompe.attacks.observation import observe
from trompe.engine import adapted, frozen
from trompe.engine.adapt import as_module
from trompe.errors import TrompeError, UsageError
from trompe.explain import as_explainer
from trompe.explain.base import Method
from trompe.metrics import pcc
from trompe.per_image import per_image
from trompe.types import Explainer, InputSpace


@dataclass(frozen=True)
class Transfer:
    """What one attack's images do to other methods and other networks, M by E, of B images.

    Similarities are Pearson correlations of heat maps; a cell that could not be computed is not a
    number, and ``failures`` says why.

    Args:
        models: names of the networks, M.
        explainers: names of the methods, E.
        original: similarity of the maps of the manipulated and the original images, [M, E, B].
        noise: the same of the original images with random noise of the change's Euclidean size.
        target: similarity of the maps of the manipulated images to the map that the attack aimed
            at, [M, E, B]; ``None`` if it aimed at none.
        target_before: the same of the original images.
        kept: whether the network answers the manipulated image as the original one, bool [M, B].
        found: whether the attack found anything, bool [B]; other images count for nothing.
        failures: by network and method why a cell could not be computed.
    """

    models: tuple[str, ...]
    explainers: tuple[str, ...]
    original: Tensor
    noise: Tensor
    target: Tensor | None
    target_before: Tensor | None
    kept: Tensor
    found: Tensor
    failures: Mapping[tuple[str, str], str]

    @property
    def counts(self) -> Tensor:
        """Which images count, bool [M, B]: something was found, and the network's answer stays."""
        return self.kept & self.found

    def matrix(self, what: str = "original") -> Tensor:
        """The mean over the images that count, [M, E]; not a number where none does.

        Args:
            what: ``original``, ``noise``, ``target`` or ``target_before``.

        Raises:
            UsageError: if there is no such number.
        """
        known = ("original", "noise", "target", "target_before")
        values = getattr(self, what) if what in known else None
        if values is None:
            raise UsageError(
                f"no similarity '{what}' here: choose from "
                f"{', '.join(name for name in known if getattr(self, name) is not None)}"
            )
        counts = self.counts.unsqueeze(1).expand_as(values)
        return torch.where(counts, values, torch.nan).nanmean(dim=2)

    def table(self, what: str = "original") -> str:
        """The matrix as text: a line per network, a column per method.

        Args:
            what: see ``matrix``.
        """
        matrix, counts = self.matrix(what), self.counts.sum(dim=1)
        first = max(len("network"), *map(len, self.models))
        wide = [max(6, len(name)) for name in self.explainers]
        heads = "  ".join(f"{name:>{w}}" for name, w in zip(self.explainers, wide, strict=True))
        lines = [f"{'network':<{first}}  {heads}  images"]
        for name, row, count in zip(self.models, matrix.tolist(), counts.tolist(), strict=True):
            cells = ("-" if value != value else f"{value:.3f}" for value in row)
            numbers = "  ".join(f"{cell:>{w}}" for cell, w in zip(cells, wide, strict=True))
            lines.append(f"{name:<{first}}  {numbers}  {count:>6}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        """The table, with what it is."""
        return f"Transfer: correlation with the original map, 1 is unchanged\n{self.table()}"

    def summary(self) -> str:
        """The table, random noise beside it, and what did not count, in plain lines."""
        found, count = int(self.found.sum()), len(self.found)
        parts = [
            "correlation of the manipulated image's map with the original one's (1: unchanged):",
            self.table(),
            "the same for random noise of the same size:",
            self.table("noise"),
        ]
        if self.target is not None:
            parts += [
                "correlation with the map that was aimed at:",
                self.table("target"),
                "the same before the attack:",
                self.table("target_before"),
            ]
        parts.append(
            f"of {count} images {found} were manipulated; a network counts those of them whose "
            "class it keeps"
        )
        parts += [f"{m}, {e}: not computed: {why}" for (m, e), why in self.failures.items()]
        return "\n".join(parts)


@torch.inference_mode(False)
def transfer(
    result: AttackResult,
    *,
    explainers: Sequence[str | Explainer] | Mapping[str, str | Explainer],
    models: Any,
    generator: torch.Generator | None = None,
) -> Transfer:
    """Show a result's images to other methods and other networks.

    Each network sees the images by its own normalisation, at the size of the attack. Maps explain
    the class that the attack explained where a network has as many outputs as the attacked one,
    and the class it predicts on the original image itself where it has not.

    Args:
        result: of ``trompe.manipulate``.
        explainers: the methods, by name or as objects; a mapping gives them names.
        models: the networks: one, several by name, or a sequence; loaded ones have their name.
        generator: of the noise; seeded with 0 if not given.

    Returns:
        A matrix of similarities.

    Raises:
        UsageError: if there is no method or no network, or two have one name.

    Example:
        >>> import torch, trompe
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
        >>> result = trompe.manipulate(net, torch.rand(2, 3, 4, 4), torch.rand(4, 4), iterations=2)
        >>> trompe.transfer(result, explainers=["gradient"], models={"own": net}).models
        ('own',)
    """
    nets = _named(models, "network")
    methods = _named(explainers, "method")
    size = (len(nets), len(methods), len(result.x))
    draw = generator or torch.Generator().manual_seed(0)
    noise = torch.randn(result.x.shape, generator=draw).to(result.x)
    numbers = {name: torch.full(size, torch.nan) for name in _NUMBERS}
    kept = torch.zeros(len(nets), len(result.x), dtype=torch.bool)
    failures: dict[tuple[str, str], str] = {}
    for row, (name, model) in enumerate(nets.items()):
        try:
            seen = _Network(model, result, noise)
        except (TrompeError, RuntimeError) as error:
            failures |= {(name, method): _in_words(error) for method in methods}
            continue
        kept[row] = seen.kept
        for column, (method, given) in enumerate(methods.items()):
            try:
                for what, values in seen.likeness(given).items():
                    numbers[what][row, column] = values
            except (TrompeError, RuntimeError) as error:
                failures[name, method] = _in_words(error)
    aimed = result.map_target is not None
    return Transfer(
        models=tuple(nets),
        explainers=tuple(methods),
        original=numbers["original"],
        noise=numbers["noise"],
        target=numbers["target"] if aimed else None,
        target_before=numbers["target_before"] if aimed else None,
        kept=kept,
        found=result.found,
        failures=failures,
    )


_NUMBERS = ("original", "noise", "target", "target_before")


class _Network:
    """One network, and the images of a result as it sees them."""

    def __init__(self, model: Any, result: AttackResult, noise: Tensor) -> None:
        own = result.input_space
        pixels = [own.to_pixels(one) for one in (result.x, result.x_adv)]
        length = (pixels[1] - pixels[0]).flatten(1).norm(dim=1)
        unit = noise / per_image(noise.flatten(1).norm(dim=1), noise)
        pixels.append((pixels[0] + per_image(length, unit) * unit).clamp(0, 1))
        module, space = as_module(model)
        self.space: InputSpace = space or own
        place = next(module.parameters(), result.x).device
        x, adv, noisy = (self.space.from_pixels(one).to(place) for one in pixels)
        given = adapted(model, x, evaluation=True, differentiable=False)
        self.model, self.result = frozen(given.model), result
        self.x, self.adv, self.noisy = given.x, adv, noisy
        with torch.no_grad():
            before, after = self.model(self.x), self.model(self.adv)
        self.kept = given.outputs.kept(after, before).cpu()
        same = before.shape[1] == result.logits_original.shape[1]
        self.target = result.target_class.to(place) if same else given.predicted()

    def likeness(self, explainer: str | Explainer) -> dict[str, Tensor]:
        """How alike the maps of one method are, [B] each."""
        method = as_explainer(explainer, self.space)
        if isinstance(method, Method):
            method = method.within(self.space)
        with torch.no_grad():
            before, after, noisy = (
                observe(self.model, method, x, self.target).map.cpu()
                for x in (self.x, self.adv, self.noisy)
            )
        found = {"original": pcc(after, before), "noise": pcc(noisy, before)}
        aim = self.result.map_target
        if aim is not None and aim.shape == after.shape:
            found |= {"target": pcc(after, aim), "target_before": pcc(before, aim)}
        return found


def _in_words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _named(given: Any, what: str) -> dict[str, Any]:
    """Networks or methods by name."""
    if isinstance(given, Mapping):
        named = {str(name): one for name, one in given.items()}
    else:
        several = list(given) if isinstance(given, list | tuple) else [given]
        names = [
            one if isinstance(one, str) else str(getattr(one, "name", "") or type(one).__name__)
            for one in several
        ]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"two {what}s are called '{name}': give a mapping with names")
        named = dict(zip(names, several, strict=True))
    if not named:
        raise UsageError(f"give at least one {what}")
    return named
