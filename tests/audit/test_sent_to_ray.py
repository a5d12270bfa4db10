"""What is sent to Ray's workers, without Ray: whose code has to travel with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from trompe.audit import Settings
from trompe.audit.on_ray import RayProcess
from trompe.registry import load_plugin
from trompe.zoo import ModelSpec

PLUGIN = """
from dataclasses import dataclass
from trompe.attacks.constraints import LInfBall, constraints

@constraints.register("own_ball")
@dataclass(frozen=True)
class OwnBall(LInfBall):
    pass
"""


def travelled(settings: Settings, model: str, patch: pytest.MonkeyPatch) -> bool:
    """Whether the user's own modules are sent along with a worker."""
    seen: list[str] = []

    @contextmanager
    def travel() -> Iterator[None]:
        seen.append("own")
        yield

    patch.setattr("trompe.audit.on_ray.own_modules_travel", travel)
    process = RayProcess.__new__(RayProcess)
    process.settings = settings
    process.ray = SimpleNamespace(put=lambda worker: worker)
    process.worker = lambda model, kind: SimpleNamespace(  # type: ignore[assignment]
        move=lambda device: seen.append(str(torch.device(device)))
    )
    process._sent(model, ("gradient", "none", "fast"))
    assert "cpu" in seen, "the others may have no other device"
    return "own" in seen


def test_code_travels_where_it_is_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_ball_plugin.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TROMPE_PLUGINS", "")
    from trompe.attacks.constraints import constraints

    plain = Settings(models=(ModelSpec("tiny-vgg"),))
    assert not travelled(plain, "tiny-vgg", monkeypatch)
    assert travelled(plain, "smallnet:net", monkeypatch), "a function of the user's made the model"
    try:
        load_plugin("own_ball_plugin")
        own = Settings(models=(ModelSpec("tiny-vgg"),), constraint="own_ball:0.1")
        assert travelled(own, "tiny-vgg", monkeypatch), "a module of the user's has a part"
    finally:
        sys.modules.pop("own_ball_plugin", None)
        constraints._parts.pop("own_ball", None)
