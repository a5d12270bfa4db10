"""What is written for a part is of the type that the part declares, or refused by name."""

from __future__ import annotations

import dataclasses

import pytest

from trompe.cli.parts import _HOMES, make_part, registry_of
from trompe.errors import TrompeError, UsageError

ODD = ("nan", "inf", "-inf", "1e999", "9" * 400, "x", "'", " ", "true", "1/0")
PARTS = [
    (kind, name, field.name, str(field.type))
    for kind in _HOMES
    if kind not in ("method", "certificate", "preset")
    for name in registry_of(kind).names()
    if dataclasses.is_dataclass(registry_of(kind)[name])
    for field in dataclasses.fields(registry_of(kind)[name])
    if field.init
]


@pytest.mark.parametrize(("kind", "name", "option", "declared"), PARTS)
def test_options_of_another_type_are_refused(
    kind: str, name: str, option: str, declared: str
) -> None:
    for word in ODD:
        if (word == "true" and "bool" in declared) or "str" in declared.split(" | "):
            continue
        with pytest.raises(UsageError):
            make_part(kind, f"{name}:{option}={word}")


def test_what_cannot_be_written_says_so() -> None:
    with pytest.raises(UsageError, match="mask cannot be 'x': it can be given from Python only"):
        make_part("objective", "region:mask=x")
    with pytest.raises(UsageError, match="k cannot be 'true': give a whole number"):
        make_part("objective", "topk:true")


@pytest.mark.parametrize("number", ["1e300", "-1e31", "9" * 35])
def test_numbers_that_no_tensor_holds_are_refused(number: str) -> None:
    with pytest.raises(UsageError, match=r"give a number within -1e\+30 and 1e\+30"):
        make_part("constraint", f"linf:{number}")


def test_a_whole_number_that_no_tensor_holds_is_taken_as_a_float() -> None:
    assert isinstance(make_part("constraint", f"linf:{'9' * 25}").radius, float)
    with pytest.raises(UsageError, match="give a whole number"):
        make_part("objective", f"topk:{'9' * 25}")


@pytest.mark.parametrize("factor", ["0", "-1", "17", "9" * 25])
def test_images_are_not_scaled_beyond_the_memory(factor: str) -> None:
    with pytest.raises(UsageError, match="the factor must be above 0 and at most 16"):
        make_part("channel", f"resize:{factor}")


def test_every_number_that_a_part_takes_may_be_written() -> None:
    assert make_part("constraint", "linf:8/255").radius == 8 / 255
    assert make_part("constraint", "linf:1").radius == 1
    assert make_part("objective", "topk:none").k is None
    assert make_part("objective", "reach_map:relative=true").relative is True
    assert make_part("channel", "jpeg:75,4:2:0").subsampling == "4:2:0"
    with pytest.raises(TrompeError):
        make_part("channel", "jpeg:75.5")


def test_options_of_several_numbers_have_colons_between_them() -> None:
    assert make_part("objective", "region:0.1:0.2:0.5:1/2").box == (0.1, 0.2, 0.5, 0.5)
    assert make_part("objective", "region:none").box is None
    assert make_part("objective", "shift:by=0.25:-0.5").by == (0.25, -0.5)
    patch = make_part("constraint", "patch:box=0:0:0.5:0.5,radius=8/255")
    assert (patch.box, patch.radius) == ((0, 0, 0.5, 0.5), 8 / 255)
    assert make_part("objective", "mass_centre:towards=0.9:0.9").towards == (0.9, 0.9)


@pytest.mark.parametrize("word", ["0.1", "0:0:1", "0:0:x:1", "0:0:nan:1", "0:0:1:1:1", "0::1:1"])
def test_another_number_of_numbers_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="give 4 numbers with colons between them"):
        make_part("objective", f"region:{word}")
