"""What the hardware cannot hold, refused before it starts (arithmetic.md section 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.hw.payloads import DIM_BITS, PSUM_BANKS

__all__ = ["check_hardware", "check_psums"]

_LIMIT = 1 << 31


def check_hardware(
    weights: npt.NDArray[Any],
    columns: int,
    bias: npt.NDArray[np.int64],
    zero_point: int,
    config: AcceleratorConfig,
) -> None:
    """ValueError for a layer whose sizes or sums the machine has no room for. weights (M, K), bias (M,);
    columns: N.
    """
    if weights.shape[1] > config.max_k:
        raise ValueError(
            f"weights must have at most max_k = {config.max_k} columns in hardware, not {weights.shape[1]}"
        )
    for name, side in (("weights", len(weights)), ("activations", columns)):
        if side >= 1 << DIM_BITS:
            kind = "rows" if name == "weights" else "columns"
            raise ValueError(f"{name} must have less than 2^{DIM_BITS} {kind} in hardware, not {side}")
    # |x_hat - zp| <= max(zp, 255 - zp), and folding adds |zp - 2^l r| <= zp times the same sum of weights.
    sums = np.abs(weights.astype(np.int64)).sum(axis=1)
    bound = int((np.abs(bias) + sums * max(zero_point, 255 - zero_point)).max())
    folded = int((np.abs(bias) + sums * 63).max())
    if max(bound, folded) >= _LIMIT:
        raise ValueError(
            f"bias must keep every result and folded bias within 32 bits in hardware: "
            f"with these weights they may reach {max(bound, folded)}"
        )


def check_psums(
    weights: npt.NDArray[Any],
    folded_bias: npt.NDArray[np.int64],
    zero_point: int,
    lo_bits: int,
    *,
    group: int,
    chunk: int,
    exponents: Sequence[int],
) -> None:
    """ValueError for an APSQ whose group is larger than the engine's, or whose sums may not fit its 32 bits.

    Walks through the steps with the largest sums that these weights (M, K) can give with any activations.
    """
    if group > PSUM_BANKS:
        raise ValueError(f"psum_group must be 1..{PSUM_BANKS} in hardware, not {group}")
    frequent = (zero_point >> lo_bits) << lo_bits
    largest = max(frequent, 255 - frequent)  # of |x_hat - 2^l r|
    total, most = 0, 0  # stored in the group so far, and the largest sum of all
    for i, exponent in enumerate(exponents):
        step = weights[:, i * chunk : (i + 1) * chunk].astype(np.int64)
        sums = int(np.abs(step).sum(axis=1).max()) * largest
        head = i % group == 0
        sums += total if head else 0
        half = (1 << exponent) >> 1
        stored = min(128, (sums + half) >> exponent) << exponent
        total = stored if head else total + stored
        most = max(most, sums, total)
    most += int(np.abs(folded_bias).max())
    if most >= _LIMIT:
        raise ValueError(
            f"psum_exponents must keep every sum within 32 bits in hardware: with these weights they may "
            f"reach {most}"
        )
