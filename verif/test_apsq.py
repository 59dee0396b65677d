"""Additive partial sum quantization against the vectors and a step by step walk (section 8)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sliceforge.sim.apsq import apsq, apsq_gemm, dequantize, psum_tiles, quantize
from sliceforge.sim.golden import aqs_gemm
from sliceforge.sim.slices import sliced_activations

DATA = Path(__file__).parent / "data"
CASES = json.loads((DATA / "apsq.json").read_text())
ARRAYS = np.load(DATA / "apsq.npz")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_vectors(case: dict[str, Any]) -> None:
    result = apsq(ARRAYS[f"{case['case']}_tiles"], case["exponents"], case["group_size"])
    assert result.dtype == np.int64
    np.testing.assert_array_equal(result, ARRAYS[f"{case['case']}_result"])


def walk(tiles: list[int], exponents: list[int], group_size: int) -> int:
    """Section 8 for one element, in Python integers, all q_j kept."""
    stored: list[int] = []
    for i, (tile, e) in enumerate(zip(tiles, exponents, strict=True)):
        if i % group_size == 0 and i > 0:
            tile += sum(q << exponents[j] for j, q in enumerate(stored) if j >= i - group_size)
        stored.append(max(-128, min(127, (tile + (2**e >> 1)) // 2**e)))
    last = (len(tiles) - 1) // group_size * group_size
    return sum(q << exponents[j] for j, q in enumerate(stored) if j >= last)


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.one_of(st.integers(-3000, 3000), st.integers(-(1 << 61), 1 << 61)), st.integers(0, 31)),
        min_size=1,
        max_size=12,
    ),
    group_size=st.integers(1, 13),
)
def test_equals_a_walk(steps: list[tuple[int, int]], group_size: int) -> None:
    tiles, exponents = [tile for tile, _ in steps], [e for _, e in steps]
    assert apsq(np.array(tiles, np.int64), exponents, group_size) == walk(tiles, exponents, group_size)
    assert apsq(np.array(tiles, np.int64), 4, group_size) == walk(tiles, [4] * len(tiles), group_size)


def test_quantize_rounds_half_up_and_clips() -> None:
    assert quantize([-3, -2, -1, 0, 1, 2, 3], 1).tolist() == [-1, -1, 0, 0, 1, 1, 2]
    assert quantize([-129, -128, 127, 128], 0).tolist() == [-128, -128, 127, 127]
    assert quantize([-(1 << 40), 1 << 40], 31).tolist() == [-128, 127]
    assert quantize([5], 0).dtype == np.int8
    assert dequantize([-128, 127], 31).tolist() == [-128 << 31, 127 << 31]


@settings(max_examples=60, deadline=None)
@given(
    m=st.integers(1, 7),
    k=st.sampled_from([1, 5, 31, 32, 33, 70]),
    n=st.integers(1, 6),
    bits=st.sampled_from([4, 7, 10]),
    lo_bits=st.sampled_from([4, 5, 6]),
    zero_point=st.integers(0, 255),
    chunk=st.sampled_from([1, 8, 32, 100]),
    group=st.integers(1, 5),
    seed=st.integers(0, 999),
)
def test_gemm(
    m: int, k: int, n: int, bits: int, lo_bits: int, zero_point: int, chunk: int, group: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    w = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), (m, k))
    x = rng.integers(0, 256, (k, n))
    bias = rng.integers(-1000, 1000, m)
    steps = -(-k // chunk)
    exponents = rng.integers(6, 12, steps)
    tiles = psum_tiles(w, x, zero_point, bits, lo_bits, chunk)
    assert tiles.dtype == np.int64 and tiles.shape == (steps, m, n)
    frequent = (zero_point >> lo_bits) << lo_bits
    x_hat = sliced_activations(x, lo_bits).astype(np.int64)
    for i in range(steps):
        part = slice(i * chunk, (i + 1) * chunk)
        np.testing.assert_array_equal(tiles[i], w[:, part] @ (x_hat[part] - frequent))

    formats: dict[str, Any] = {"zero_point": zero_point, "weight_bits": bits, "lo_bits": lo_bits}
    formats["bias"] = bias
    folded = bias - (zero_point - frequent) * w.sum(axis=1)
    exact = aqs_gemm(w, x, **formats)
    np.testing.assert_array_equal(tiles.sum(axis=0) + folded[:, None], exact.output)
    result = apsq_gemm(w, x, **formats, psum_exponents=exponents, psum_group=group, psum_chunk=chunk)
    np.testing.assert_array_equal(result.output, apsq(tiles, exponents, group) + folded[:, None])
    extra = {"psum_group": group, "psum_chunk": chunk, "psum_exponents": exponents.tolist()}
    assert result.report == {**exact.report, **extra}


def test_large_steps_are_exact() -> None:
    w = np.full((1, 40_000), -512, np.int16)
    x = np.full((40_000, 1), 255, np.uint8)
    assert psum_tiles(w, x, 0, 10, 4, 40_000).item() == -512 * 255 * 40_000


TILES = np.zeros((3, 2, 2), np.int64)


@pytest.mark.parametrize(
    ("tiles", "exponents", "group_size", "error", "message"),
    [
        (TILES, 32, 1, ValueError, r"exponents must have all elements in 0\.\.31, not 32"),
        (TILES, [1, -1, 1], 1, ValueError, r"exponents must have all elements in 0\.\.31, not -1"),
        (TILES, [1, 2], 1, ValueError, r"exponents must be one integer 0\.\.31 or p = 3 .* shape \(2,\)"),
        (TILES, 1.0, 1, TypeError, r"exponents must be an array of integers 0\.\.31, not of float64"),
        (TILES, 1, 0, ValueError, r"group_size must be 1 or more, not 0"),
        (TILES[:0], 1, 1, ValueError, r"tiles must have shape \(p, \.\.\.\) with p >= 1, not \(0, 2, 2\)"),
        (TILES * 1.0, 1, 1, TypeError, r"tiles must be an array of integers .* not of float64"),
        (TILES - (1 << 62), 1, 1, ValueError, r"tiles must have all elements in .*, not -\d+"),
    ],
)
def test_wrong_arguments(
    tiles: Any, exponents: Any, group_size: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        apsq(tiles, exponents, group_size)


def test_wrong_arguments_of_the_gemm() -> None:
    w, x = np.ones((2, 40), np.int8), np.ones((40, 2), np.uint8)
    good: dict[str, Any] = {"zero_point": 5, "psum_exponents": 3, "psum_group": 2}
    with pytest.raises(ValueError, match=r"^psum_exponents must be one integer 0\.\.31 or p = 2 of them"):
        apsq_gemm(w, x, **{**good, "psum_exponents": [1, 2, 3]})
    with pytest.raises(ValueError, match=r"^psum_group must be 1 or more, not 0$"):
        apsq_gemm(w, x, **{**good, "psum_group": 0})
    with pytest.raises(ValueError, match=r"^psum_chunk must be 1 or more, not 0$"):
        apsq_gemm(w, x, **good, psum_chunk=0)
    with pytest.raises(ValueError, match=r"^chunk must be 1 or more, not 0$"):
        psum_tiles(w, x, 5, chunk=0)
    with pytest.raises(ValueError, match=r"^activations must have K = 40 rows .* not 39$"):
        psum_tiles(w, x[:39], 5)
