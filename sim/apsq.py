"""Additive partial sum quantization (APSQ, arithmetic.md section 8).

Source: APSQ (DAC 2025). K is cut into steps; the partial-sum tile of each step is stored in 8 bits with
a power-of-two scale, and a group's head adds the previous group's stored tiles before quantizing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sliceforge.sim import checks
from sliceforge.sim.golden import GemmResult, exact_float, report
from sliceforge.sim.slices import sliced_activations
from sliceforge.sim.work import layer_work

__all__ = [
    "apsq",
    "apsq_gemm",
    "check_exponents",
    "dequantize",
    "psum_tiles",
    "quantize",
    "round_shift",
    "store",
    "walk",
]

IntArray = npt.NDArray[np.int64]

MAX_EXPONENT = 31
TILE_LIMIT = 1 << 62


def quantize(tile: npt.ArrayLike, exponent: int) -> npt.NDArray[np.int8]:
    """``Q(t) = clip((t + (2^e >> 1)) >> e, -128, 127)``: arithmetic shift, round half up; e = 0 only clips.

    tile: integers of any shape, less than 2^62 in magnitude; exponent e: 0..31.
    """
    values = checks.integer_array("tile", tile, 1 - TILE_LIMIT, TILE_LIMIT - 1).astype(np.int64)
    rounded = round_shift(values, checks.integer("exponent", exponent, 0, MAX_EXPONENT))
    return rounded.clip(-128, 127).astype(np.int8)


def dequantize(stored: npt.ArrayLike, exponent: int) -> IntArray:
    """``D(q) = q << e`` for stored partial sums q in -128..127."""
    values = checks.integer_array("stored", stored, -128, 127).astype(np.int64)
    return values << checks.integer("exponent", exponent, 0, MAX_EXPONENT)


def apsq(tiles: npt.ArrayLike, exponents: npt.ArrayLike, group_size: int) -> IntArray:
    """The integer result of accumulating ``tiles`` with stored sums of 8 bits, without bias.

    tiles: integers (p, ...), p >= 1, less than 2^62 in magnitude; exponents: one integer 0..31 or p of them;
    group_size gs >= 1. ``q_i = Q_i(T_i + sum of D(q_j) over the previous group)`` at a group's head
    (i mod gs = 0), else ``q_i = Q_i(T_i)``; the result is the sum of ``D(q_j)`` over the last group.
    Returns int64 of the shape of one tile. Raises TypeError or ValueError for a wrong argument.
    """
    steps = checks.integer_array("tiles", tiles, 1 - TILE_LIMIT, TILE_LIMIT - 1)
    if steps.ndim == 0 or len(steps) == 0:
        raise ValueError(f"tiles must have shape (p, ...) with p >= 1, not {steps.shape}")
    return _accumulate(
        (step.astype(np.int64) for step in steps),
        check_exponents("exponents", exponents, len(steps)),
        checks.integer("group_size", group_size, 1),
    )


def psum_tiles(
    weights: npt.ArrayLike,
    activations: npt.ArrayLike,
    zero_point: int,
    weight_bits: int = 7,
    lo_bits: int = 4,
    chunk: int = 32,
) -> IntArray:
    """(p, M, N): ``T_i = W[:, chunk i] @ (x_hat[chunk i] - 2^l r)``, exact, for ``p = ceil(K / chunk)``.

    Arguments as for `aqs_gemm`; chunk: positions along K in a step, 1 or more.
    """
    w, x, _ = checks.gemm_operands(weights, activations, None, weight_bits)
    size = checks.integer("chunk", chunk, 1)
    tiles = np.empty((-(-w.shape[1] // size), len(w), x.shape[1]), np.int64)
    for i, tile in enumerate(_psum_steps(w, _centered(x, zero_point, lo_bits), size, weight_bits)):
        tiles[i] = tile
    return tiles


def apsq_gemm(
    weights: npt.ArrayLike,
    activations: npt.ArrayLike,
    *,
    zero_point: int,
    psum_exponents: npt.ArrayLike,
    psum_group: int,
    psum_chunk: int = 32,
    weight_bits: int = 7,
    lo_bits: int = 4,
    bias: npt.ArrayLike | None = None,
    vector: int = 4,
) -> GemmResult:
    """The GEMM with APSQ: ``apsq(T, exponents, group) + bias - (zp - 2^l r) sum_k W[:, k]``.

    psum_exponents: one integer 0..31 or ``p = ceil(K / psum_chunk)`` of them; psum_group: group size, 1 or
    more; psum_chunk: positions along K in a step, 1 or more; the rest, the work counts and the errors
    as for `aqs_gemm`. The report also has the three psum arguments.
    """
    w, x, offset = checks.gemm_operands(weights, activations, bias, weight_bits)
    zero = checks.zero_point(zero_point)
    bits = checks.lo_bits(lo_bits)
    v = checks.vector(vector)
    chunk = checks.integer("psum_chunk", psum_chunk, 1)
    group = checks.integer("psum_group", psum_group, 1)
    exponents = check_exponents("psum_exponents", psum_exponents, -(-w.shape[1] // chunk))

    steps = _psum_steps(w, _centered(x, zero, bits), chunk, weight_bits)
    folded = offset - (zero - ((zero >> bits) << bits)) * w.sum(axis=1, dtype=np.int64)
    output = _accumulate(steps, exponents, group) + folded[:, None]
    work = layer_work(w, x, zero, weight_bits, bits, v)
    shape = (*w.shape, x.shape[1])
    psum = {"psum_group": group, "psum_chunk": chunk, "psum_exponents": exponents}
    base = report(shape, work, zero_point=zero, weight_bits=weight_bits, lo_bits=bits)
    return GemmResult(output, {**base, **psum})


def check_exponents(name: str, value: npt.ArrayLike, steps: int) -> list[int]:
    """``steps`` exponents from one integer or as many of them, each 0..31."""
    exponents = checks.integer_array(name, value, 0, MAX_EXPONENT)
    if exponents.ndim == 0:
        return [int(exponents)] * steps
    if exponents.shape != (steps,):
        raise ValueError(
            f"{name} must be one integer 0..{MAX_EXPONENT} or p = {steps} of them, one a step, "
            f"not of shape {exponents.shape}"
        )
    return [int(exponent) for exponent in exponents]


def round_shift(tile: IntArray, exponent: int) -> IntArray:
    """``(t + (2^e >> 1)) >> e``, what Q clips (int64, arguments not checked)."""
    rounded: IntArray = (tile + ((1 << exponent) >> 1)) >> exponent
    return rounded


def store(tile: IntArray, exponent: int) -> IntArray:
    """``D(Q(t))``: what a step's store keeps of its partial sums (int64, arguments not checked)."""
    return round_shift(tile, exponent).clip(-128, 127) << exponent


def walk(
    tiles: Iterable[IntArray], exponents: Iterable[int], group_size: int
) -> Iterator[tuple[IntArray, IntArray, IntArray]]:
    """For each step ``(t_i, D(q_i), sum of D(q_j) over its group so far)``: what is quantized, what is
    stored, and at the last step the result (arguments not checked)."""
    total = np.zeros((), np.int64)
    for i, (tile, exponent) in enumerate(zip(tiles, exponents, strict=True)):
        head = i % group_size == 0
        quantized = tile + total if head else tile
        stored = store(quantized, exponent)
        total = stored if head else total + stored
        yield quantized, stored, total


def _accumulate(tiles: Iterable[IntArray], exponents: list[int], group_size: int) -> IntArray:
    result = np.zeros((), np.int64)
    for _, _, total in walk(tiles, exponents, group_size):
        result = total
    return np.asarray(result, np.int64)


def _centered(x: npt.NDArray[np.uint8], zero_point: Any, lo_bits: Any) -> npt.NDArray[np.int16]:
    """``x_hat - 2^l r``, within -255..255."""
    zero = checks.zero_point(zero_point)
    bits = checks.lo_bits(lo_bits)
    return sliced_activations(x, bits).astype(np.int16) - np.int16((zero >> bits) << bits)


def _psum_steps(
    w: npt.NDArray[Any], centered: npt.NDArray[np.int16], chunk: int, weight_bits: int
) -> Iterator[IntArray]:
    depth = w.shape[1]
    dtype = exact_float((1 << (weight_bits - 1)) * 255 * min(chunk, depth))
    for start in range(0, depth, chunk):
        step = slice(start, start + chunk)
        yield (w[:, step].astype(dtype) @ centered[step].astype(dtype)).astype(np.int64)
