"""The golden model of AQS-GEMM (arithmetic.md sections 1 to 5): slices, skipping, compensation.

Source: Panacea (HPCA 2025). Every product of slices is an exact integer: the matrix products run in
float32 or float64 only where no partial sum can leave the integers that the type holds exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sliceforge.sim import checks
from sliceforge.sim.slices import bit_slices, split_weights, weight_slice_count
from sliceforge.sim.work import WorkCounts, any_per_vector, count_work, row_blocks

__all__ = ["AqsProduct", "GemmResult", "aqs_gemm", "aqs_product", "exact_float", "report"]


@dataclass(frozen=True, eq=False)
class GemmResult:
    """``output``: int64 (M, N); ``report``: the keys and JSON values of interface.md."""

    output: npt.NDArray[np.int64]
    report: dict[str, Any]


@dataclass(frozen=True, eq=False)
class AqsProduct:
    """``output`` int64 (M, N), and the maps of kept HO vectors: (ceil(M/v), K) and (ceil(N/v), K)."""

    output: npt.NDArray[np.int64]
    weight_kept: npt.NDArray[np.bool_]
    activation_kept: npt.NDArray[np.bool_]


def aqs_gemm(
    weights: npt.ArrayLike,
    activations: npt.ArrayLike,
    *,
    zero_point: int,
    weight_bits: int = 7,
    lo_bits: int = 4,
    bias: npt.ArrayLike | None = None,
    vector: int = 4,
) -> GemmResult:
    """``Y = W @ (x_hat - zero_point) + bias`` through slices, skipping and compensation.

    weights: integers (M, K) in ``-2^(b-1) .. 2^(b-1) - 1``, b = weight_bits = 4, 7 or 10;
    activations: integers (K, N) in 0..255; zero_point: 0..255; lo_bits: 4, 5 or 6; bias: integers (M,)
    of 32 bits, or None; vector: rows or columns in a HO vector, any from 1. Any M, N, K >= 1.
    Returns the exact result and a report in which everything that depends on a machine is None.
    Raises TypeError or ValueError with one sentence that names the argument, the value and the rule.
    """
    product = aqs_product(
        weights,
        activations,
        zero_point=zero_point,
        weight_bits=weight_bits,
        lo_bits=lo_bits,
        bias=bias,
        vector=vector,
    )
    m, n = product.output.shape
    work = count_work(product.weight_kept, product.activation_kept, weight_bits)
    shape = (m, product.weight_kept.shape[1], n)
    return GemmResult(
        product.output,
        report(shape, work, zero_point=zero_point, weight_bits=weight_bits, lo_bits=lo_bits),
    )


def aqs_product(
    weights: npt.ArrayLike,
    activations: npt.ArrayLike,
    *,
    zero_point: int,
    weight_bits: int = 7,
    lo_bits: int = 4,
    bias: npt.ArrayLike | None = None,
    vector: int = 4,
) -> AqsProduct:
    """What `aqs_gemm` computes, without counts (its arguments and errors). For slice i of the weights:

    ``outer products = 8^i (2^(l-4) W_i @ X_L + 2^l W_i @ (X_H where the vector is kept, else 0))``,
    ``compensation = 8^i 2^l r W_i @ kept`` (a column of 0 and 1 a column group), and
    ``Y = bias + (2^l r - zp) sum_k W + sum_i (outer products - compensation)``.
    The vectors of W_n that are not kept hold only 0, so they are in the product without effect.
    """
    w, x, offset = checks.gemm_operands(weights, activations, bias, weight_bits)
    zero = checks.zero_point(zero_point)
    low_bits = checks.lo_bits(lo_bits)
    v = checks.vector(vector)
    count = weight_slice_count(weight_bits)
    rows, depth = w.shape
    columns = x.shape[1]
    frequent = zero >> low_bits

    x_high, x_low = (np.ascontiguousarray(part.T) for part in bit_slices(x, low_bits))
    activation_kept = any_per_vector(x_high != frequent, v)
    group = np.arange(columns) // v  # column group of each column
    # Largest magnitudes: 8 of a weight slice, 15 of an activation slice.
    dtype = exact_float(8 * 15 * depth)
    groups = len(activation_kept)
    right = np.empty((2 * columns + groups + 1, depth), dtype)
    right[:columns] = x_low
    np.multiply(x_high, activation_kept[group], out=right[columns : 2 * columns], casting="unsafe")
    right[2 * columns : 2 * columns + groups] = activation_kept
    right[-1] = 1

    output = np.empty((rows, columns), np.int64)
    weight_kept = np.ones((-(-rows // v), depth), np.bool_)
    for block in row_blocks(w, v):
        slices = split_weights(w[block].astype(np.int16, copy=False), count)
        if count > 1:
            weight_kept[block.start // v : -(-block.stop // v)] = any_per_vector(slices[-1], v)
        sums = np.zeros((len(slices[0]), len(right)), np.int64)
        for i, part in enumerate(slices):
            sums += (part.astype(dtype) @ right.T).astype(np.int64) << (3 * i)
        low, high, kept_sums, total = np.split(sums, [columns, 2 * columns, 2 * columns + groups], axis=1)
        folded = offset[block, None] + ((frequent << low_bits) - zero) * total
        compensation = (frequent << low_bits) * kept_sums[:, group]
        output[block] = folded + (low << (low_bits - 4)) + (high << low_bits) - compensation
    return AqsProduct(output, weight_kept, activation_kept)


def report(
    shape: tuple[int, int, int],
    work: WorkCounts,
    *,
    zero_point: int,
    weight_bits: int,
    lo_bits: int,
    engine: str = "golden",
) -> dict[str, Any]:
    """A report with all keys of interface.md, in order; ``shape`` is (M, K, N).

    What only a machine or its configuration can tell is None, for the engine to fill in.
    """
    return {
        "config": None,
        "shape": [int(side) for side in shape],
        "weight_bits": int(weight_bits),
        "lo_bits": int(lo_bits),
        "zero_point": int(zero_point),
        "engine": engine,
        "outer_products_done": work.done,
        "outer_products_full": work.full,
        "outer_products_filler": None,
        "weight_vector_sparsity": work.weight_vector_sparsity,
        "activation_vector_sparsity": work.activation_vector_sparsity,
        "operators": None,
        "cycles": None,
        "total_cycles": None,
        "cycle_bound": None,
        "utilization": None,
        "utilization_total": None,
        "dram_bytes_read": None,
        "dram_bytes_written": None,
    }


def exact_float(bound: int) -> type[np.float32] | type[np.float64]:
    """The narrowest float in which sums of integers are exact, in any order, when the sum of their
    magnitudes is at most ``bound``: float32 below 2^24, else float64 (below 2^53)."""
    if bound >= 1 << 53:
        raise ValueError(f"K must keep sums of magnitudes below 2^53, not at {bound}")
    return np.float32 if bound < 1 << 24 else np.float64
