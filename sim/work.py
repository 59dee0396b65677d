"""Work of a layer: outer products and sparsities over the data (arithmetic.md section 7).

Everything is counted from two maps of kept high-order (HO) vectors: (ceil(M/v), K) for the weights
and (ceil(N/v), K) for the activations. A partly filled vector counts as one; only its real elements
decide whether it is compressed. Sources: Panacea (HPCA 2025).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sliceforge.sim import checks
from sliceforge.sim.rle import kept_with_fillers
from sliceforge.sim.slices import bit_slices, split_weights, weight_slice_count

__all__ = [
    "WorkCounts",
    "any_per_vector",
    "count_filler",
    "count_work",
    "kept_activation_vectors",
    "kept_weight_vectors",
    "layer_work",
    "row_blocks",
]

BoolArray = npt.NDArray[np.bool_]

BLOCK_ELEMENTS = 1 << 20  # weights that are sliced at a time: bounds the temporaries, fits the caches


@dataclass(frozen=True)
class WorkCounts:
    """Outer products that are done and that a dense machine would do, and shares of compressed vectors."""

    done: int
    full: int
    weight_vector_sparsity: float
    activation_vector_sparsity: float


def kept_weight_vectors(weights: npt.ArrayLike, weight_bits: int = 7, vector: int = 4) -> BoolArray:
    """(ceil(M/v), K): where the HO slices of v rows at one k are not all 0; all kept with one slice."""
    w = checks.matrix("weights", checks.weights("weights", weights, weight_bits), "(M, K)")
    v = checks.vector(vector)
    count = weight_slice_count(weight_bits)
    kept = np.ones((-(-len(w) // v), w.shape[1]), np.bool_)
    if count > 1:
        for rows in row_blocks(w, v):
            high = split_weights(w[rows].astype(np.int16), count)[-1]
            kept[rows.start // v : -(-rows.stop // v)] = any_per_vector(high, v)
    return kept


def kept_activation_vectors(
    activations: npt.ArrayLike, zero_point: int, lo_bits: int = 4, vector: int = 4
) -> BoolArray:
    """(ceil(N/v), K): where the HO slices of v columns at one k are not all ``r = zp >> l``."""
    x = checks.matrix("activations", checks.activations("activations", activations), "(K, N)")
    frequent = checks.zero_point(zero_point) >> checks.lo_bits(lo_bits)
    return any_per_vector(bit_slices(x, lo_bits)[0].T != frequent, checks.vector(vector))


def count_work(weight_kept: BoolArray, activation_kept: BoolArray, weight_bits: int = 7) -> WorkCounts:
    """Counts from the maps of `kept_weight_vectors` (MG, K) and `kept_activation_vectors` (NG, K).

    ``done = sum_k (n * MG + kept weight vectors at k) * (NG + kept activation vectors at k)`` for
    ``weight_bits = 3n + 4`` (with n = 0 the one slice is dense and its map all kept);
    ``full = MG * NG * K * 2(n + 1)``.
    """
    if weight_kept.shape[1] != activation_kept.shape[1]:
        raise ValueError(
            f"activation_kept must have K = {weight_kept.shape[1]} columns as weight_kept has, "
            f"not {activation_kept.shape[1]}"
        )
    count = weight_slice_count(weight_bits)
    return WorkCounts(
        done=_products(weight_kept, activation_kept, count),
        full=len(weight_kept) * len(activation_kept) * weight_kept.shape[1] * 2 * count,
        weight_vector_sparsity=1.0 - float(np.mean(weight_kept)),
        activation_vector_sparsity=1.0 - float(np.mean(activation_kept)),
    )


def layer_work(
    weights: npt.ArrayLike,
    activations: npt.ArrayLike,
    zero_point: int,
    weight_bits: int = 7,
    lo_bits: int = 4,
    vector: int = 4,
) -> WorkCounts:
    """`count_work` of the operands' maps: weights (M, K), activations (K, N)."""
    return count_work(
        kept_weight_vectors(weights, weight_bits, vector),
        kept_activation_vectors(activations, zero_point, lo_bits, vector),
        weight_bits,
    )


def count_filler(
    weight_kept: BoolArray, activation_kept: BoolArray, weight_bits: int = 7, *, tile_k: int, run_bits: int
) -> int:
    """Outer products that exist only because filler entries are kept vectors: the products with the
    fillers of streams of ``tile_k`` positions and skips of ``run_bits`` bits, less ``done``.
    """
    count = weight_slice_count(weight_bits)
    with_fillers = _products(
        kept_with_fillers(weight_kept, tile_k, run_bits),
        kept_with_fillers(activation_kept, tile_k, run_bits),
        count,
    )
    return with_fillers - _products(weight_kept, activation_kept, count)


def any_per_vector(slices: npt.NDArray[Any], vector: int) -> BoolArray:
    """(ceil(R/v), K): whether any of v rows of ``slices`` (R, K) is not 0; the last may have fewer rows."""
    rows, columns = slices.shape
    whole = rows // vector
    result = np.empty((-(-rows // vector), columns), np.bool_)
    vectors = slices[: whole * vector].reshape(whole, vector if whole else 1, columns)
    result[:whole] = np.bitwise_or.reduce(vectors, axis=1)
    if whole < len(result):
        result[whole] = np.bitwise_or.reduce(slices[whole * vector :], axis=0)
    return result


def row_blocks(weights: npt.NDArray[Any], vector: int) -> list[slice]:
    """Slices of rows of ``weights`` (M, K), whole vectors of rows each, of a size that is quick to handle."""
    rows = len(weights)
    step = max(1, BLOCK_ELEMENTS // (weights.shape[1] * vector)) * vector
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _products(weight_kept: BoolArray, activation_kept: BoolArray, count: int) -> int:
    weight_vectors = np.count_nonzero(weight_kept, axis=0) + (count - 1) * len(weight_kept)
    activation_vectors = np.count_nonzero(activation_kept, axis=0) + len(activation_kept)
    return int(weight_vectors.astype(np.int64) @ activation_vectors.astype(np.int64))
