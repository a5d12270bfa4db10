"""Images in batches: as if it had been one attack, and smaller where memory does not suffice."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import nets
import pytest
import torch
from attacking import manipulate
from torch import Tensor, nn

import trompe
from trompe.errors import MemoryLimitError, ModelError, UsageError

SPACE = trompe.InputSpace((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
X = SPACE.clamp(0.6 * nets.images(5))
AIM = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
SOON: dict[str, Any] = {"input_space": SPACE, "iterations": 5, "learning_rate": 0.01}


class Small(nn.Module):
    """A network on a machine whose memory holds so many images."""

    seen: ClassVar[list[int]] = []  # of the class: the attack works on a copy

    def __init__(self, most: int, message: str = "[enforce fail] can't allocate memory") -> None:
        super().__init__()
        self.net = nets.plain().double()
        self.most, self.message = most, message

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        if len(x) > self.most:
            raise RuntimeError(self.message)
        return self.net(x)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 9])
def test_the_size_of_a_batch_changes_nothing(batch_size: int) -> None:
    def noisy() -> dict[str, Any]:
        return {"start_noise": 0.05, "generator": torch.Generator().manual_seed(3), **SOON}

    net = nets.plain().double()
    whole = manipulate(net, X, AIM, **noisy())
    parts = manipulate(net, X, AIM, batch_size=batch_size, **noisy())
    nets.close(parts.x_adv, whole.x_adv, 1e-6)  # Adam magnifies the last digit
    nets.close(parts.history["loss"], whole.history["loss"], 1e-6)  # Adam magnifies the last digit
    assert parts.history["loss"].shape == (5, 5)
    assert len(parts.provenance["vanishing_gradient"]) == 5


@pytest.mark.parametrize(
    "message",
    ["CUDA out of memory. Tried to allocate 2 GiB", "DefaultCPUAllocator: not enough memory"],
)
def test_a_batch_too_large_is_halved_and_said_so(
    message: str, caplog: pytest.LogCaptureFixture
) -> None:
    small = Small(2, message)
    small.seen.clear()
    with caplog.at_level(logging.WARNING, logger="trompe"):
        result = manipulate(small, X, AIM, **SOON)
    whole = manipulate(small.net, X, AIM, **SOON)
    nets.close(result.x_adv, whole.x_adv, 1e-6)  # Adam magnifies the last digit
    assert "going on with 2 images at once" in caplog.text
    tried = small.seen.index(5)  # after a look at the model by few images
    assert max(small.seen[:tried]) <= 2
    assert max(small.seen[tried + 1 :]) == 2


def test_not_even_one_image_fits() -> None:
    with pytest.raises(MemoryLimitError, match="memory does not suffice to attack one image"):
        manipulate(Small(0), X, AIM, **SOON)


def test_an_image_too_large_is_explained_in_smaller_chunks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    small = Small(3)
    small.seen.clear()
    method = trompe.explainer("integrated_grad", steps=10)
    with caplog.at_level(logging.WARNING, logger="trompe"):
        result = manipulate(small, X[:2], AIM[:2], explainer=method, **SOON)
    whole = manipulate(small.net, X[:2], AIM[:2], explainer=method, **SOON)
    nets.close(result.x_adv, whole.x_adv, 1e-6)
    notices = [record.message.split(": ")[1] for record in caplog.records]
    assert notices == [
        "going on with 1 images at once",
        *["going on with half as many copies of it at once"] * 2,  # of ten: five, two
    ]
    assert max(small.seen[-20:]) <= 3


def test_other_errors_are_not_taken_for_it() -> None:
    with pytest.raises(ModelError, match="mat1"):
        manipulate(Small(0, "mat1 and mat2 do not fit"), X, AIM, **SOON)


def test_an_interruption_leaves_out_the_batches_not_begun() -> None:
    def stop(done: int, total: int, numbers: Any) -> None:
        calls.append(done)
        if len(calls) == 7:
            raise KeyboardInterrupt

    calls: list[int] = []
    result = manipulate(nets.plain().double(), X, AIM, batch_size=2, progress=stop, **SOON)
    assert result.stopped == "interrupted"
    assert len(result.x) == 4
    assert torch.isnan(result.history["loss"][-1, 2:]).all()
    assert not torch.isnan(result.history["loss"][:, :2]).any()


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="batch_size must be at least 1"):
        manipulate(nets.plain().double(), X, AIM, batch_size=0, **SOON)
