"""Tables of activation functions against their definitions, rounding, and how the next layer slices them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sliceforge.sim.activation_table import FUNCTIONS, activation_table
from sliceforge.sim.quantize import quantize_activations
from sliceforge.sim.slices import sliced_activations

DEFINITIONS: dict[str, Callable[[float], float]] = {
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "silu": lambda x: x / (1 + math.exp(-x)),
    "relu": lambda x: max(x, 0.0),
    "identity": lambda x: x,
}


def test_every_function_is_tested() -> None:
    assert set(DEFINITIONS) == set(FUNCTIONS)


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(sorted(DEFINITIONS)),
    scale_in=st.floats(1e-4, 1.0),
    scale_out=st.floats(1e-4, 1.0),
    zero_in=st.integers(0, 255),
    zero_out=st.integers(0, 255),
    next_lo_bits=st.sampled_from([4, 5, 6]),
)
def test_equals_its_definition(
    name: str, scale_in: float, scale_out: float, zero_in: int, zero_out: int, next_lo_bits: int
) -> None:
    table = activation_table(
        name, scale_in=scale_in, zero_in=zero_in, scale_out=scale_out, zero_out=zero_out,
        next_lo_bits=next_lo_bits,
    )  # fmt: skip
    assert table.dtype == np.uint8 and table.shape == (256,)
    rounding = {4: 0, 5: 1, 6: 2}[next_lo_bits]
    for q in range(256):
        exact = DEFINITIONS[name]((q - zero_in) * scale_in) / scale_out
        allowed = {round(exact + tiny) for tiny in (-1e-9 * (1 + abs(exact)), 1e-9 * (1 + abs(exact)))}
        assert table[q] in {max(0, min(255, value + zero_out + rounding)) for value in allowed}, q


def table_of(function: Any, **changes: Any) -> list[int]:
    scales = {"scale_in": 1, "zero_in": 0, "scale_out": 1, "zero_out": 0}
    return activation_table(function, **{**scales, **changes}).tolist()


def test_identity_and_relu() -> None:
    assert table_of("identity") == list(range(256))
    assert table_of("identity", zero_in=100, zero_out=90) == [max(0, q - 10) for q in range(256)]
    assert table_of("relu", zero_in=100, zero_out=8) == [8] * 100 + [
        min(255, q - 92) for q in range(100, 256)
    ]


def test_rounds_half_to_even() -> None:
    table = table_of("identity", scale_out=2, zero_in=8, zero_out=100)
    assert table[:17] == [96, 96, 97, 98, 98, 98, 99, 100, 100, 100, 101, 102, 102, 102, 103, 104, 104]


def test_a_callable() -> None:
    table = table_of(lambda x: np.sqrt(x) * 16)
    assert table == [min(255, round(16 * math.sqrt(q))) for q in range(256)]
    assert table_of(lambda x: np.full(256, math.inf)) == [255] * 256
    assert table_of(lambda x: np.where(x < 5, -math.inf, 3), zero_out=9) == [0] * 5 + [12] * 251


@pytest.mark.parametrize("name", sorted(DEFINITIONS))
def test_very_small_and_large_scales(name: str) -> None:
    """No warning of numpy; far from 0 each function is 0 or x."""
    low = 0 if name == "identity" else 50
    wide = {"zero_in": 128, "zero_out": 50}
    for scales in ({"scale_in": 1e300, "scale_out": 1.0}, {"scale_in": 1e6, "scale_out": 1e-300}):
        assert table_of(name, **wide, **scales) == [low] * 128 + [50] + [255] * 127
    assert table_of(name, **wide, scale_in=1e-300, scale_out=1) == [50] * 256


@pytest.mark.parametrize("next_lo_bits", [4, 5, 6])
def test_slicing_rounds_on_the_grid(next_lo_bits: int) -> None:
    """What the next layer sees is within half a step of its grid of the 8-bit value, ties upwards."""
    step = 1 << (next_lo_bits - 4)
    plain = np.array(table_of("gelu", scale_in=0.02, zero_in=128, scale_out=0.011, zero_out=24))
    table = table_of(
        "gelu", scale_in=0.02, zero_in=128, scale_out=0.011, zero_out=24, next_lo_bits=next_lo_bits
    )
    seen = sliced_activations(np.array(table, np.uint8), next_lo_bits).astype(int)
    np.testing.assert_array_equal(seen, np.minimum((plain + step // 2) // step * step, 256 - step))


def test_agrees_with_the_quantizer() -> None:
    """With lo_bits = 4 a value goes to what `quantize_activations` makes of it, the rounding of ties too."""
    values = np.linspace(-0.5, 2.05, 256)
    quantized = quantize_activations(values[None, :])
    table = activation_table(
        lambda x: values, scale_in=1, zero_in=0, scale_out=quantized.scale, zero_out=quantized.zero_point
    )
    assert np.abs(table.astype(int) - quantized.values[0]).max() <= 1  # ties of x + zero point, and of x
    assert (table == quantized.values[0]).mean() > 0.99


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"function": "tanh"}, ValueError, r"function must be one of gelu, .* or callable, not 'tanh'"),
        ({"function": None}, ValueError, r"function must be one of gelu, .* or callable, not None"),
        (
            {"function": lambda x: x[:3]},
            ValueError,
            r"function must map 256 numbers to as many, not to shape \(3,\)",
        ),
        ({"function": lambda x: x * math.nan}, ValueError, r"function must map 256 numbers .* not to NaN"),
        ({"scale_in": 0}, ValueError, r"scale_in must be a finite number above 0, not 0"),
        ({"scale_in": math.inf}, ValueError, r"scale_in must be a finite number above 0, not inf"),
        ({"scale_out": math.nan}, ValueError, r"scale_out must be a finite number above 0, not nan"),
        ({"scale_out": "1"}, TypeError, r"scale_out must be a finite number above 0, not '1'"),
        ({"scale_out": True}, TypeError, r"scale_out must be a finite number above 0, not True"),
        ({"zero_in": 256}, ValueError, r"zero_in must be 0\.\.255, not 256"),
        ({"zero_out": -1}, ValueError, r"zero_out must be 0\.\.255, not -1"),
        ({"zero_out": 1.0}, TypeError, r"zero_out must be an integer 0\.\.255, not 1\.0"),
        ({"next_lo_bits": 7}, ValueError, r"next_lo_bits must be one of 4, 5, 6, not 7"),
    ],
)
def test_wrong_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    good: dict[str, Any] = {
        "function": "gelu", "scale_in": 0.1, "zero_in": 3,
        "scale_out": np.float32(0.1), "zero_out": np.uint8(3),
    }  # fmt: skip
    assert activation_table(**good).shape == (256,)
    with pytest.raises(error, match=f"^{message}$"):
        activation_table(**{**good, **change})
