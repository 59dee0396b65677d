"""Requantization at the output against the vectors and Python integers (section 9)."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sliceforge.sim.requantize import requantize, requantize_parameters

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


LOWEST, HIGHEST = 2.0**-32, 2.0**30 - 0.5  # of a ratio

RATIO = st.one_of(
    st.floats(LOWEST, HIGHEST),
    st.builds(math.ldexp, st.floats(1, 2, exclude_max=True), st.integers(-32, 29)),
    st.builds(lambda e: math.nextafter(2.0**e, 0), st.integers(-32, 30)).filter(lambda x: x <= HIGHEST),
)


@given(RATIO)
def test_parameters_are_nearest(ratio: float) -> None:
    m, shift = (int(value) for value in requantize_parameters(ratio))
    assert 1 << 30 <= m < 1 << 31 and 1 <= shift <= 62
    error = abs(Fraction(m, 1 << shift) - Fraction(ratio))
    # The neighbours are 2^-sh apart, below 2^30 half as far.
    assert error <= Fraction(1, 1 << (shift + 1))
    assert error <= abs(Fraction((1 << 31) - 1, 1 << min(62, shift + 1)) - Fraction(ratio))
    assert error / Fraction(ratio) <= Fraction(1, 1 << 31)


def test_parameters_of_rows() -> None:
    m, shift = requantize_parameters([1.0, 0.75, 0.001, 3])
    assert (m.dtype, shift.dtype) == (np.int64, np.int64)
    assert m.tolist() == [1 << 30, 3 << 29, round(0.001 * 2**40), 3 << 29]
    assert shift.tolist() == [30, 31, 40, 29]
    y = np.random.default_rng(1).integers(-99, 99, (4, 5))
    expected = np.floor(y * np.array([[1], [0.75], [0.001], [3]]) + 0.5) + 100
    np.testing.assert_array_equal(requantize(y, m, shift, 100), np.clip(expected, 0, 255))
    assert [value.shape for value in requantize_parameters(0.5)] == [(), ()]


@pytest.mark.parametrize("ratio", [0, -1.0, math.nan, math.inf, 2.0**30, 2.0**-33, [1, 2.0**-40]])
def test_ratios_out_of_range(ratio: Any) -> None:
    wrong = ratio[-1] if isinstance(ratio, list) else ratio
    with pytest.raises(
        ValueError, match=rf"^ratio must be within 2\^-32 .. 2\^30 - 1/2, not {float(wrong)}$"
    ):
        requantize_parameters(ratio)
    for end, values in ((LOWEST, (1 << 30, 62)), (HIGHEST, ((1 << 31) - 1, 1))):
        assert tuple(int(value) for value in requantize_parameters(end)) == values


@pytest.mark.parametrize("ratio", ["1", True, None, [1j]])
def test_ratios_that_are_no_numbers(ratio: Any) -> None:
    with pytest.raises(TypeError, match=r"^ratio must be real numbers, not of "):
        requantize_parameters(ratio)
