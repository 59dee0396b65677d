"""Random operands with a wanted sparsity, for benches and benchmarks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["random_operands"]

# Weights in this range, and only they, have a zero HO slice (arithmetic.md section 2).
_ZERO_HO_RANGE = {7: (-8, 7), 10: (-72, 63)}


def random_operands(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    *,
    vector: int,
    weight_bits: int,
    lo_bits: int,
    zero_point: int,
    weight_sparsity: float,
    activation_sparsity: float,
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """``(weights (M, K), activations (K, N))``; each HO vector is compressed with the wanted probability,
    independently of all others. A sparsity of 0 or 1 is exact. Weights of 4 bits are simply random.
    """
    m, k, n = shape
    top = 1 << (weight_bits - 1)
    weights: npt.NDArray[Any] = rng.integers(-top, top, (m, k))
    if weight_bits > 4:
        lowest, highest = _ZERO_HO_RANGE[weight_bits]
        kept = rng.integers(1 - lowest, top, (m, k)) * rng.choice([-1, 1], (m, k))
        compressed = np.repeat(rng.random((-(-m // vector), k)) < weight_sparsity, vector, axis=0)[:m]
        weights = np.where(compressed, rng.integers(lowest, highest + 1, (m, k)), kept)
    buckets = 256 >> lo_bits
    frequent = zero_point >> lo_bits
    other = (frequent + rng.integers(1, buckets, (k, n))) % buckets
    compressed = np.repeat(rng.random((k, -(-n // vector))) < activation_sparsity, vector, axis=1)[:, :n]
    high = np.where(compressed, frequent, other)
    activations = (high << lo_bits) + rng.integers(0, 1 << lo_bits, (k, n))
    return weights.astype(np.int16), activations.astype(np.uint8)
