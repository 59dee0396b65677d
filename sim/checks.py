"""Argument checks shared by the golden model, the engines and the command line.

Each raises TypeError or ValueError with one sentence that names the argument, its value and what is
allowed, and returns the checked value. The command line prints the same sentence.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from sliceforge.gen.config import AcceleratorConfig

WEIGHT_BITS = (4, 7, 10)
LO_BITS = (4, 5, 6)


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """``value`` as an int in ``low..high``; numpy integers are fine, bools and floats are not."""
    allowed = f"{low}..{high}" if high is not None else f"{low} or more"
    number = _index(name, value, allowed)
    if number < low or (high is not None and number > high):
        raise ValueError(f"{name} must be {allowed}, not {number}")
    return number


def choice(name: str, value: Any, allowed: tuple[int, ...]) -> int:
    """``value`` as an int that is one of ``allowed``."""
    listed = f"one of {', '.join(map(str, allowed))}"
    number = _index(name, value, f"and {listed}")
    if number not in allowed:
        raise ValueError(f"{name} must be {listed}, not {number}")
    return number


def _index(name: str, value: Any, allowed: str) -> int:
    if not isinstance(value, (bool, np.bool_)):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{name} must be an integer {allowed}, not {value!r}")


def positive(name: str, value: Any) -> float:
    """``value`` as a finite float above 0."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a finite number above 0, not {value!r}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a finite number above 0, not {value}")
    return float(value)


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return bool(value)


def vector(value: Any) -> int:
    """A vector's length. One longer than any matrix is as good as one of 2^40, with which numpy can count."""
    return min(integer("vector", value, 1), 1 << 40)


def weight_bits(value: Any, machine: AcceleratorConfig) -> int:
    """Bits of weights that ``machine`` can hold."""
    bits = choice("weight_bits", value, WEIGHT_BITS)
    if bits > machine.max_weight_bits:
        raise ValueError(
            f"weight_bits must be at most {machine.max_weight_bits} on config {machine.name!r} "
            f"(weight_slices = {machine.weight_slices}), not {bits}"
        )
    return bits


def lo_bits(value: Any) -> int:
    return choice("lo_bits", value, LO_BITS)


def zero_point(value: Any) -> int:
    return integer("zero_point", value, 0, 255)


def integer_array(name: str, value: npt.ArrayLike, low: int, high: int) -> npt.NDArray[Any]:
    """``value`` as an integer array (not a copy) whose every element is in ``low..high``."""
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} must be an array of integers {low}..{high}, not ragged") from None
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be an array of integers {low}..{high}, not a masked array")
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an array of integers {low}..{high}, not of {array.dtype}")
    if array.size and (int(array.min()) < low or int(array.max()) > high):
        bad = int(array.min()) if int(array.min()) < low else int(array.max())
        raise ValueError(f"{name} must have all elements in {low}..{high}, not {bad}")
    return array


def weights(name: str, value: npt.ArrayLike, weight_bits: Any) -> npt.NDArray[Any]:
    bits = choice("weight_bits", weight_bits, WEIGHT_BITS)
    return integer_array(name, value, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def activations(name: str, value: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    return integer_array(name, value, 0, 255).astype(np.uint8)


def gemm_operands(
    weights_value: npt.ArrayLike,
    activations_value: npt.ArrayLike,
    bias: npt.ArrayLike | None,
    weight_bits: Any,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """``(weights (M, K), activations (K, N), bias (M,))`` of a GEMM; a bias of None is all 0.

    The arguments are called ``weights``, ``activations`` and ``bias`` in the errors; the weights are
    returned in the dtype that they came in, without a copy.
    """
    w = matrix("weights", weights("weights", weights_value, weight_bits), "(M, K)")
    x = matrix("activations", activations("activations", activations_value), "(K, N)")
    if len(x) != w.shape[1]:
        raise ValueError(f"activations must have K = {w.shape[1]} rows as weights have columns, not {len(x)}")
    if bias is None:
        return w, x, np.zeros(len(w), np.int64)
    b = integer_array("bias", bias, -(1 << 31), (1 << 31) - 1)
    if b.shape != (len(w),):
        raise ValueError(f"bias must have shape (M,) = ({len(w)},) as weights have rows, not {b.shape}")
    return w, x, b.astype(np.int64)


def matrix(name: str, array: npt.NDArray[Any], shape: str) -> npt.NDArray[Any]:
    """``array`` if it has two dimensions, neither of them 0; ``shape`` names them in the error."""
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be a 2-D array {shape} with no side 0, not of shape {array.shape}")
    return array
