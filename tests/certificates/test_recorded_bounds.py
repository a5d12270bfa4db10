"""Proved bounds are what they were before the code was rearranged, up to their last digits.

The numbers were recorded from the version of 25 November 2026 on random small networks.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from random_nets import random_case

from trompe.certificates.ball import ball
from trompe.certificates.methods import proved
from trompe.certificates.prepared import Prepared

RECORDED = json.loads((Path(__file__).parent / "data" / "recorded_bounds.json").read_text("utf-8"))


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: f"{row['seed']}-{row['radius']:.2g}")
def test_bounds_are_those_recorded(row: dict[str, Any]) -> None:
    net, x, *_ = random_case(row["seed"])
    prepared = Prepared(net, x, row["target"])
    for method, recorded in row["bounds"].items():
        found = proved(prepared, ball(row["radius"], row["norm"]), method)
        for quantity, bound in {**found.bounds[method], "curvature": found.curvature}.items():
            before = math.inf if recorded[quantity] is None else recorded[quantity]
            assert bound == pytest.approx(before, rel=2e-7, abs=1e-13), (method, quantity)
        assert [found.kept(1), found.kept(2)] == recorded["kept"], method
