"""Requantization at the output: the post-processing unit (arithmetic.md section 9).

The rounding is TFLite's single-rounding rule; ReLU is a higher lower bound of the clip.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sliceforge.sim import checks

__all__ = ["requantize", "requantize_parameters"]


def requantize(
    y: npt.ArrayLike,
    multiplier: npt.ArrayLike,
    shift: npt.ArrayLike,
    zero_point_out: int,
    relu: bool = False,
    *,
    next_lo_bits: int = 4,
) -> npt.NDArray[np.uint8]:
    """``clip(((y * m + 2^(sh-1)) >> sh) + zp_out, 0, 255)``, exact; with ReLU the clip is zp_out..255.

    y: integers of 32 bits, any shape, rows first; multiplier m: 0 .. 2^31 - 1 and shift sh: 1..62, each
    one integer or one a row; zero_point_out: 0..255. next_lo_bits l (4, 5 or 6) is the next layer's:
    above 4, ``2^(l-5)`` is added before the clip, so that slicing there rounds on the DBS grid.
    Returns uint8 of the shape of y. Raises TypeError or ValueError for a wrong argument.
    """
    values = checks.integer_array("y", y, -(1 << 31), (1 << 31) - 1).astype(np.int64)
    factor = _per_row("multiplier", multiplier, 0, (1 << 31) - 1, values.shape)
    right = _per_row("shift", shift, 1, 62, values.shape)
    zero = checks.integer("zero_point_out", zero_point_out, 0, 255)
    lowest = zero if checks.flag("relu", relu) else 0
    bits = checks.choice("next_lo_bits", next_lo_bits, checks.LO_BITS)
    offset = zero + (1 << (bits - 4) >> 1)
    # |y * m| <= 2^62 and 2^(sh-1) <= 2^61: the sum fits 64 bits.
    scaled = (values * factor + (np.int64(1) << (right - 1))) >> right
    result: npt.NDArray[np.uint8] = np.clip(scaled + offset, lowest, 255).astype(np.uint8)
    return result


def requantize_parameters(
    ratio: npt.ArrayLike,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """``(m, sh)`` with ``m / 2^sh`` nearest to ``ratio``: m of 31 bits, 2^30 .. 2^31 - 1, and sh 1..62.

    ratio: real numbers of any shape, such as one for each row: input scale over output scale. They must round
    to 2^-32 .. (2^31 - 1) / 2, else ValueError; the relative error is at most 2^-31. Ties: m is even.
    Returns two int64 arrays of the shape of ratio.
    """
    ratios = np.asarray(ratio)
    if ratios.dtype.kind not in "fiu":
        raise TypeError(f"ratio must be real numbers, not of {ratios.dtype}")
    ratios = ratios.astype(np.float64)
    fraction, exponent = np.frexp(ratios)
    m = np.rint(np.where(np.isfinite(fraction), fraction, 0) * 2.0**31).astype(np.int64)
    carry = m >> 31  # 1 where the fraction was rounded up to 1
    m >>= carry
    shift = 31 - exponent.astype(np.int64) - carry
    wrong = (m < 1 << 30) | (shift < 1) | (shift > 62)
    if wrong.any():
        raise ValueError(f"ratio must be within 2^-32 .. 2^30 - 1/2, not {ratios[wrong].flat[0]}")
    return m, shift


def _per_row(
    name: str, value: npt.ArrayLike, low: int, high: int, shape: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    """``value`` shaped so that it broadcasts against rows of an array of ``shape``."""
    array = checks.integer_array(name, value, low, high).astype(np.int64)
    if array.ndim == 0:
        return array
    if array.shape != shape[:1]:
        rows = f"one for each of {shape[0]} rows of y" if shape else "y has no rows"
        raise ValueError(f"{name} must be one integer {low}..{high} or {rows}, not of shape {array.shape}")
    return array.reshape(-1, *(1 for _ in shape[1:]))
