"""Bit slices of weights and activations (arithmetic.md sections 2 to 4).

Sources: Sibia (HPCA 2023) for the signed bit-slice representation (SBR); Panacea (HPCA 2025) for
asymmetric activation slices, distribution-based bit-slicing (DBS) and zero-point manipulation (ZPM).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sliceforge.sim import checks

__all__ = ["bit_slices", "sbr_slices", "sliced_activations", "zero_point_manipulation"]


def sbr_slices(w: npt.ArrayLike, weight_bits: int) -> tuple[npt.NDArray[np.int8], ...]:
    """Signed 4-bit slices of ``w``, low first: ``w = sum_i 8^i * slice_i``.

    w: integers in ``-2^(b-1) .. 2^(b-1) - 1`` of any shape, b = weight_bits = 4, 7 or 10.
    Returns (b - 1) / 3 int8 arrays of that shape. Raises ValueError outside those ranges.
    """
    count = weight_slice_count(weight_bits)
    return split_weights(checks.weights("w", w, weight_bits).astype(np.int16), count)


def weight_slice_count(weight_bits: int) -> int:
    """``n + 1`` slices for ``weight_bits = 3n + 4``. Raises ValueError unless it is 4, 7 or 10."""
    return (checks.choice("weight_bits", weight_bits, checks.WEIGHT_BITS) - 1) // 3


def split_weights(rest: npt.NDArray[np.int16], count: int) -> tuple[npt.NDArray[np.int8], ...]:
    """The ``count`` slices of weights that are known to be in range (see `sbr_slices`)."""
    slices = []
    for _ in range(count - 1):
        sign = rest >> 15  # -1 where negative, else 0
        slices.append(((rest & 7) | (sign & -8)).astype(np.int8))  # for 0..7, t | -8 is t - 8
        rest = (rest >> 3) - sign
    slices.append(rest.astype(np.int8))
    return tuple(slices)


def bit_slices(x: npt.ArrayLike, lo_bits: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """``(x_high, x_low)`` with ``x_high = x >> l`` (8 - l bits), ``x_low = (x >> (l - 4)) & 15``.

    x: integers 0..255 of any shape; lo_bits l = 4, 5 or 6. Raises ValueError outside those ranges.
    """
    values = checks.activations("x", x)
    l = checks.lo_bits(lo_bits)
    return values >> np.uint8(l), (values >> np.uint8(l - 4)) & np.uint8(15)


def sliced_activations(x: npt.ArrayLike, lo_bits: int) -> npt.NDArray[np.uint8]:
    """``x_hat = (x_high << l) + (x_low << (l - 4))``: x with its l - 4 lowest bits dropped (DBS)."""
    values = checks.activations("x", x)
    drop = checks.lo_bits(lo_bits) - 4
    return (values >> np.uint8(drop)) << np.uint8(drop)


def zero_point_manipulation(zero_point: int, lo_bits: int) -> int:
    """The middle of the zero point's bucket of ``2^l`` values (ZPM):
    ``2^l * floor((zp - 2^(l-1)) / 2^l + 1/2) + 2^(l-1)``, which is ``((zp >> l) << l) + 2^(l-1)``.
    """
    zp = checks.zero_point(zero_point)
    l = checks.lo_bits(lo_bits)
    return ((zp >> l) << l) + (1 << (l - 1))
