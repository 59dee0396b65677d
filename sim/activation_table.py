"""Activation functions as tables of the post-processing unit: exact functions of an 8-bit value."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sliceforge.sim import checks

__all__ = ["FUNCTIONS", "activation_function", "activation_table"]

FloatArray = npt.NDArray[np.float64]
Function = Callable[[FloatArray], FloatArray]


def _gelu(x: FloatArray) -> FloatArray:
    """``x Phi(x)``, Phi the normal distribution; erfc keeps the digits of its lower tail."""
    tail = np.array([math.erfc(value) for value in (x / -math.sqrt(2)).flat], np.float64)
    return 0.5 * x * tail.reshape(x.shape)


def _silu(x: FloatArray) -> FloatArray:
    """``x / (1 + exp(-x))``, without an overflow."""
    share: FloatArray = 0.5 * (1 + np.tanh(0.5 * x))
    return x * share


def _relu(x: FloatArray) -> FloatArray:
    larger: FloatArray = np.maximum(x, 0.0)
    return larger


def _identity(x: FloatArray) -> FloatArray:
    return x


FUNCTIONS: dict[str, Function] = {"gelu": _gelu, "silu": _silu, "relu": _relu, "identity": _identity}


def activation_function(function: str | Function) -> Function:
    """The function of that name on float64 arrays; a callable is returned as it is."""
    if isinstance(function, str) and function in FUNCTIONS:
        return FUNCTIONS[function]
    if not callable(function):
        raise ValueError(f"function must be one of {', '.join(FUNCTIONS)} or callable, not {function!r}")
    return function


def activation_table(
    function: str | Function,
    *,
    scale_in: float,
    zero_in: int,
    scale_out: float,
    zero_out: int,
    next_lo_bits: int = 4,
) -> npt.NDArray[np.uint8]:
    """The function from an 8-bit value to the next layer's 8-bit activation, uint8 (256,):

    ``table[q] = clip(rint(f((q - zero_in) scale_in) / scale_out) + zero_out + 2^(l-5), 0, 255)``

    in float64; rint rounds half to even, as in `quantize_activations`. The term 2^(l-5) is there only for
    l = next_lo_bits above 4 and makes slicing round on the DBS grid (arithmetic.md section 9).

    function f: "gelu" (x Phi(x), with erf), "silu", "relu", "identity", or a callable on float64 arrays;
    scale_in, scale_out: real numbers above 0, the value of one step; zero_in, zero_out: the 8-bit values that
    stand for 0.0, 0..255; next_lo_bits: 4, 5 or 6. Raises TypeError or ValueError for a wrong argument.
    """
    f = activation_function(function)
    step_in, step_out = checks.positive("scale_in", scale_in), checks.positive("scale_out", scale_out)
    origin, target = (
        checks.integer(name, value, 0, 255) for name, value in (("zero_in", zero_in), ("zero_out", zero_out))
    )
    bits = checks.choice("next_lo_bits", next_lo_bits, checks.LO_BITS)
    rounding = 1 << (bits - 4) >> 1
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large for a float is beyond 0..255
        values = np.asarray(f((np.arange(256.0) - origin) * step_in), np.float64)
        if values.shape != (256,) or np.isnan(values).any():
            found = f"shape {values.shape}" if values.shape != (256,) else "NaN"
            raise ValueError(f"function must map 256 numbers to as many, not to {found}")
        scaled = np.rint(values / step_out)
    table: npt.NDArray[np.uint8] = np.clip(scaled + target + rounding, 0, 255).astype(np.uint8)
    return table
