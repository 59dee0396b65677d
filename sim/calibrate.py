"""Calibration of APSQ exponents (arithmetic.md section 8) on operands of a layer.

Source: APSQ (DAC 2025), which learns step sizes and rounds them to powers of two. Here the powers of two are
chosen without training, for the least mean squared error of the result on calibration data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sliceforge.sim import checks
from sliceforge.sim.apsq import MAX_EXPONENT, check_exponents, psum_tiles, round_shift, store, walk

__all__ = ["PER", "PsumQuality", "calibrate_exponents", "psum_quality", "tile_exponents"]

IntArray = npt.NDArray[np.int64]

PER = ("layer", "step")
MOST_SWEEPS = 16  # of the descent; on MiniLM's layers 1 to 12 find a minimum
BLOCK = 1 << 13  # elements that a trial of the descent takes at a time: they stay in the cache


def calibrate_exponents(
    weights: npt.ArrayLike,
    activations: npt.ArrayLike,
    *,
    zero_point: int,
    weight_bits: int = 7,
    lo_bits: int = 4,
    psum_group: int,
    psum_chunk: int = 32,
    per: str = "layer",
) -> list[int]:
    """``p = ceil(K / psum_chunk)`` exponents, each 0..31, for `apsq_gemm` with the same arguments.

    What is small is the mean of ``(result with APSQ - exact result)^2`` over the calibration data:

    - per="layer": all exponents are equal, to the one with the least mean. Ties: the smaller exponent.
    - per="step": first each ``e_i`` minimizes ``sum (D(Q_i(t)) - t)^2``, step by step, with t formed from
      the steps already stored (the errors of all steps add up in the result). From this or from the best
      common exponent, whichever is better, a coordinate descent moves one exponent at a time by 1 while that
      lowers the mean. So it is never above that of per="layer", and no exponent can be moved by 1 with profit
      (unless 16 sweeps over all steps did not suffice); a lower minimum farther away may exist. Ties: the
      smaller exponent in the first part; the descent stays where it is.

    weights (M, K), activations (K, N), zero_point, weight_bits, lo_bits: as for `aqs_gemm`; psum_group: group
    size, 1 or more; psum_chunk: positions along K in a step, 1 or more. N columns of activations are N
    samples. Raises TypeError or ValueError for a wrong argument.
    """
    tiles = psum_tiles(
        weights, activations, zero_point, weight_bits, lo_bits, checks.integer("psum_chunk", psum_chunk, 1)
    )
    return tile_exponents(tiles, psum_group, per)


def tile_exponents(tiles: IntArray, psum_group: int, per: str = "layer") -> list[int]:
    """`calibrate_exponents` on partial-sum tiles (p, M, N), which `psum_tiles` gives."""
    group = checks.integer("psum_group", psum_group, 1)
    if per not in PER:
        raise ValueError(f"per must be one of {', '.join(PER)}, not {per!r}")
    exact = tiles.sum(axis=0)
    common = min(
        ([e] * len(tiles) for e in _useful(tiles)),
        key=lambda exponents: _squares(_result(tiles, exponents, group) - exact),
    )
    if per == "layer":
        return common
    start = min(
        (common, _step_by_step(tiles, group)),
        key=lambda exponents: _squares(_result(tiles, exponents, group) - exact),
    )
    return _descent(tiles, exact, group, start)


@dataclass(frozen=True)
class PsumQuality:
    """How far the result with APSQ is from the exact one.

    ``relative_error = |Y_apsq - Y| / |Y|`` (norms over all elements, Y without bias; None where Y is all 0);
    ``snr_db = -20 log10(relative_error)`` (None where the error is 0 or None); ``clipped_share``: of the
    stored values, those that were beyond -128..127 before the clip.
    """

    relative_error: float | None
    snr_db: float | None
    clipped_share: float


def psum_quality(
    tiles: IntArray, exponents: npt.ArrayLike, psum_group: int, offset: npt.ArrayLike = 0
) -> PsumQuality:
    """The quality of ``exponents`` on partial-sum tiles (p, M, N); ``Y = sum of the tiles + offset``."""
    group = checks.integer("psum_group", psum_group, 1)
    chosen = check_exponents("exponents", exponents, len(tiles))
    clipped = 0
    result = np.zeros((), np.int64)
    for e, (quantized, stored, total) in zip(chosen, walk(tiles, chosen, group), strict=True):
        clipped += int(np.count_nonzero(round_shift(quantized, e) << e != stored))
        result = total
    exact = tiles.sum(axis=0)
    power, noise = _squares(exact + offset), _squares(result - exact)
    relative = math.sqrt(noise / power) if power else None
    return PsumQuality(relative, -20 * math.log10(relative) if relative else None, clipped / tiles.size)


def _useful(tiles: IntArray) -> range:
    """Exponents beyond which every stored value is 0."""
    largest = int(np.abs(tiles).max())
    return range(min(MAX_EXPONENT, largest.bit_length() + 1) + 1)


def _squares(values: IntArray) -> float:
    flat = values.astype(np.float64).ravel()
    return float(flat @ flat)


def _result(tiles: IntArray, exponents: Sequence[int], group: int) -> IntArray:
    *_, (_, _, total) = walk(tiles, exponents, group)
    return total


def _step_by_step(tiles: IntArray, group: int) -> list[int]:
    exponents: list[int] = []
    total = np.zeros((), np.int64)
    for i, tile in enumerate(tiles):
        head = i % group == 0
        t = tile + total if head else tile
        best = min(_useful(t), key=lambda e: _squares(store(t, e) - t))
        exponents.append(best)
        total = store(t, best) if head else total + store(t, best)
    return exponents


def _descent(tiles: IntArray, exact: IntArray, group: int, start: Sequence[int]) -> list[int]:
    """Moves one exponent at a time by 1 while the mean squared error of the result falls.

    Only a group's head depends on what came before it. So a group is its head's tile and ``rest``, the
    sum of its other stored values, and a trial at a step runs over the heads from there on.
    """
    tiles, exact = tiles.reshape(len(tiles), -1), exact.ravel()
    exponents = list(start)
    heads = range(0, len(tiles), group)
    nothing = np.zeros_like(exact)
    rest = [
        sum((store(tiles[i], exponents[i]) for i in range(h + 1, min(h + group, len(tiles)))), nothing)
        for h in heads
    ]

    def error_from(first: int, before: IntArray) -> float:
        """Of the result, with ``before`` of the group before group ``first``."""
        squares = 0.0
        for block in (slice(i, i + BLOCK) for i in range(0, exact.size, BLOCK)):
            total = before[block]
            for head, others in zip(heads[first:], rest[first:], strict=True):
                total = store(tiles[head, block] + total, exponents[head]) + others[block]
            squares += _squares(total - exact[block])
        return squares

    least = error_from(0, nothing)
    for _ in range(MOST_SWEEPS):
        before, swept = nothing, list(exponents)
        for g, head in enumerate(heads):
            for i in range(head, min(head + group, len(tiles))):
                kept = exponents[i], rest[g]
                for e in (kept[0] - 1, kept[0] + 1):
                    if not 0 <= e <= MAX_EXPONENT:
                        continue
                    exponents[i] = e
                    if i > head:
                        rest[g] = kept[1] + store(tiles[i], e) - store(tiles[i], kept[0])
                    error = error_from(g, before)
                    if error < least:
                        least = error
                        break
                    exponents[i], rest[g] = kept
            before = store(tiles[head] + before, exponents[head]) + rest[g]
        if exponents == swept:
            break
    return exponents
