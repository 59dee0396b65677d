"""Requantization at the output against the vectors and Python integers (section 9)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sliceforge.sim.requantize import requantize

DATA = Path(__file__).parent / "data"
CASES = json.loads((DATA / "requantize.json").read_text())
ARRAYS = np.load(DATA / "requantize.npz")

INT32 = st.one_of(st.sampled_from([-(1 << 31), (1 << 31) - 1, 0, -1]), st.integers(-(1 << 31), (1 << 31) - 1))
MULTIPLIER = st.one_of(st.sampled_from([0, 1, (1 << 31) - 1]), st.integers(0, (1 << 31) - 1))
SHIFT = st.integers(1, 62)


def by_definition(y: int, m: int, shift: int, zero_point: int, relu: bool, next_lo_bits: int = 4) -> int:
    rounding = 2 ** (next_lo_bits - 5) if next_lo_bits > 4 else 0
    value = (y * m + 2 ** (shift - 1)) // 2**shift + zero_point + rounding
    return int(max(zero_point if relu else 0, min(255, value)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_vectors(case: dict[str, Any]) -> None:
    parameters = {key: value for key, value in case.items() if key != "case"}
    result = requantize(ARRAYS["y"], **parameters)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, ARRAYS[case["case"]])


@given(INT32, MULTIPLIER, SHIFT, st.integers(0, 255), st.booleans(), st.sampled_from([4, 5, 6]))
def test_equals_python_integers(
    y: int, m: int, shift: int, zero_point: int, relu: bool, next_lo_bits: int
) -> None:
    expected = by_definition(y, m, shift, zero_point, relu, next_lo_bits)
    assert requantize(y, m, shift, zero_point, relu, next_lo_bits=next_lo_bits) == expected


@given(st.lists(st.tuples(INT32, INT32, MULTIPLIER, SHIFT), min_size=1, max_size=9), st.booleans())
def test_a_multiplier_and_a_shift_a_row(rows: list[tuple[int, int, int, int]], relu: bool) -> None:
    y = np.array([row[:2] for row in rows])
    result = requantize(y, [row[2] for row in rows], [row[3] for row in rows], 77, relu)
    expected = [[by_definition(value, m, shift, 77, relu) for value in (a, b)] for a, b, m, shift in rows]
    assert result.tolist() == expected


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y": [1 << 31]}, ValueError, r"y must have all elements in .*, not 2147483648"),
        ({"y": [1.0]}, TypeError, r"y must be an array of integers .*, not of float64"),
        ({"multiplier": 1 << 31}, ValueError, r"multiplier must have all .* 0\.\.2147483647, not 2147483648"),
        ({"multiplier": -1}, ValueError, r"multiplier must have all elements in 0\.\.2147483647, not -1"),
        ({"multiplier": [1, 2]}, ValueError, r"multiplier must be one .* of 3 rows of y, .* \(2,\)"),
        ({"shift": 0}, ValueError, r"shift must have all elements in 1\.\.62, not 0"),
        ({"shift": 63}, ValueError, r"shift must have all elements in 1\.\.62, not 63"),
        ({"shift": [[1]]}, ValueError, r"shift must be one integer 1\.\.62 .* not of shape \(1, 1\)"),
        ({"zero_point_out": 256}, ValueError, r"zero_point_out must be 0\.\.255, not 256"),
        ({"relu": 1}, TypeError, r"relu must be True or False, not 1"),
        ({"next_lo_bits": 7}, ValueError, r"next_lo_bits must be one of 4, 5, 6, not 7"),
    ],
)
def test_wrong_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    good: dict[str, Any] = {"y": [1, 2, 3], "multiplier": 1, "shift": 1, "zero_point_out": 0, "relu": False}
    with pytest.raises(error, match=f"^{message}$"):
        requantize(**{**good, **change})
