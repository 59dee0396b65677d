"""Slices and zero-point manipulation against the vectors and the arithmetic (sections 2 to 4)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sliceforge.sim.slices import bit_slices, sbr_slices, sliced_activations, zero_point_manipulation

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("bits", [4, 7, 10])
def test_weight_slices_reproduce_the_vectors(bits: int) -> None:
    expected = np.load(DATA / "slices.npz")[f"w{bits}"]
    slices = sbr_slices(expected[0], bits)
    assert len(slices) == len(expected) - 1 == (bits - 1) // 3
    for part, wanted in zip(slices, expected[1:], strict=True):
        assert part.dtype == np.int8
        np.testing.assert_array_equal(part, wanted)
        assert part.min() >= -8 and part.max() <= 7
    total = sum(part.astype(int) << (3 * i) for i, part in enumerate(slices))
    np.testing.assert_array_equal(total, expected[0])


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_weight_slices_do_not_depend_on_the_dtype(dtype: type) -> None:
    values = np.arange(-64, 64).reshape(8, 16)
    for part, wanted in zip(sbr_slices(values.astype(dtype), 7), sbr_slices(values, 7), strict=True):
        np.testing.assert_array_equal(part, wanted)


def test_high_order_weight_slice_is_zero_where_the_specification_says() -> None:
    seven = np.arange(-64, 64)
    np.testing.assert_array_equal(sbr_slices(seven, 7)[-1] == 0, (seven >= -8) & (seven <= 7))
    ten = np.arange(-512, 512)
    np.testing.assert_array_equal(sbr_slices(ten, 10)[-1] == 0, (ten >= -72) & (ten <= 63))
    assert [int(part) for part in sbr_slices(np.array(-64), 7)] == [-8, -7]


def test_zero_point_manipulation_reproduces_the_vectors() -> None:
    expected = np.load(DATA / "slices.npz")["zpm"]
    ours = [[zero_point_manipulation(zp, lo_bits) for zp in range(256)] for lo_bits in (4, 5, 6)]
    np.testing.assert_array_equal(ours, expected)


@given(st.sampled_from([4, 5, 6]))
def test_activation_slices(lo_bits: int) -> None:
    x = np.arange(256, dtype=np.uint8)
    high, low = bit_slices(x, lo_bits)
    assert high.max() == 255 >> lo_bits and low.max() == 15
    x_hat = (high.astype(int) << lo_bits) + (low.astype(int) << (lo_bits - 4))
    np.testing.assert_array_equal(x_hat, sliced_activations(x, lo_bits))
    np.testing.assert_array_equal(x_hat, x - x % (1 << (lo_bits - 4)))


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"^w must have all elements in -64\.\.63, not 64$"):
        sbr_slices([64], 7)
    with pytest.raises(ValueError, match=r"^weight_bits must be one of 4, 7, 10, not 8$"):
        sbr_slices([1], 8)
    with pytest.raises(TypeError, match=r"^weight_bits must be an integer and one of 4, 7, 10, not 7\.0$"):
        sbr_slices([1], 7.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^w must be an array of integers -64\.\.63, not of float64$"):
        sbr_slices([1.0], 7)
    with pytest.raises(ValueError, match=r"^w must be an array of integers -64\.\.63, not ragged$"):
        sbr_slices([[1], [2, 3]], 7)
    with pytest.raises(ValueError, match=r"^x must have all elements in 0\.\.255, not -1$"):
        bit_slices([-1], 4)
    with pytest.raises(ValueError, match=r"^lo_bits must be one of 4, 5, 6, not 3$"):
        bit_slices([1], 3)
    with pytest.raises(ValueError, match=r"^zero_point must be 0\.\.255, not 256$"):
        zero_point_manipulation(256, 4)
    with pytest.raises(TypeError, match=r"^zero_point must be an integer 0\.\.255, not True$"):
        zero_point_manipulation(True, 4)
