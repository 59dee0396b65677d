"""Calibration of APSQ exponents against a search over all exponents and the definition of the errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sliceforge.sim.apsq import apsq, apsq_gemm, psum_tiles
from sliceforge.sim.calibrate import BLOCK, calibrate_exponents, psum_quality, tile_exponents
from sliceforge.sim.golden import aqs_gemm

Tiles = np.ndarray[Any, np.dtype[np.int64]]


def squared_error(tiles: Tiles, exponents: int | list[int], group: int) -> int:
    """Of the result, summed, in Python integers."""
    error = apsq(tiles, exponents, group) - tiles.sum(axis=0)
    return sum(int(value) ** 2 for value in error.flat)


def random_tiles(seed: int, steps: int, shape: tuple[int, int] = (3, 4)) -> Tiles:
    """Every step of a magnitude of its own."""
    rng = np.random.default_rng(seed)
    size = 2.0 ** rng.uniform(2, 14, (steps, 1, 1))
    return np.rint(rng.normal(0, size, (steps, *shape))).astype(np.int64)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 9999), steps=st.integers(1, 7), group=st.integers(1, 8))
def test_per_layer_is_the_best_common_exponent(seed: int, steps: int, group: int) -> None:
    tiles = random_tiles(seed, steps)
    best = min(range(32), key=lambda e: squared_error(tiles, e, group))  # the smaller where two are as good
    assert tile_exponents(tiles, group) == [best] * steps


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 9999), steps=st.integers(1, 7), group=st.integers(1, 8))
def test_per_step_is_never_worse(seed: int, steps: int, group: int) -> None:
    tiles = random_tiles(seed, steps)
    common = tile_exponents(tiles, group, "layer")
    own = tile_exponents(tiles, group, "step")
    assert len(own) == steps and all(type(e) is int and 0 <= e <= 31 for e in own)
    assert squared_error(tiles, own, group) <= squared_error(tiles, common, group)
    if steps == 1:
        assert own == common


@pytest.mark.parametrize("group", [1, 2, 3, 6])
@pytest.mark.parametrize("seed", range(4))
def test_no_exponent_of_per_step_can_be_moved_with_profit(seed: int, group: int) -> None:
    tiles = random_tiles(seed, 6)
    own = tile_exponents(tiles, group, "step")
    least = squared_error(tiles, own, group)
    for i in range(6):
        for e in {max(0, own[i] - 1), min(31, own[i] + 1)}:
            assert squared_error(tiles, [*own[:i], e, *own[i + 1 :]], group) >= least


def test_per_step_beats_per_layer_where_steps_differ() -> None:
    tiles = random_tiles(1, 8) * np.array([1, 64] * 4)[:, None, None]
    errors = [squared_error(tiles, tile_exponents(tiles, 2, per), 2) for per in ("layer", "step")]
    assert 0 < errors[1] < 0.75 * errors[0]


def test_per_step_does_not_depend_on_how_the_work_is_cut() -> None:
    """More elements than fit one block, the same values again and again."""
    tiles = random_tiles(2, 5)
    repeated = np.tile(tiles, (1, 1, BLOCK // 12 + 7))
    assert repeated[0].size > BLOCK and repeated[0].size % BLOCK
    assert tile_exponents(repeated, 2, "step") == tile_exponents(tiles, 2, "step")


@pytest.mark.parametrize("per", ["layer", "step"])
def test_what_fits_8_bits_is_exact(per: str) -> None:
    tiles = np.random.default_rng(3).integers(-30, 31, (4, 3, 5))
    assert tile_exponents(tiles, 1, per) == [0] * 4
    assert tile_exponents(np.zeros_like(tiles), 2, per) == [0] * 4
    assert psum_quality(tiles, 0, 1).relative_error == 0
    assert psum_quality(tiles, 0, 1).snr_db is None


@pytest.mark.parametrize("per", ["layer", "step"])
def test_values_near_the_end_of_the_range(per: str) -> None:
    tiles = np.array([[[1 << 50, -(1 << 50)]], [[1 << 49, 1 << 48]]])
    assert tile_exponents(tiles, 1, per) == [31, 31]
    assert psum_quality(tiles, 31, 1).clipped_share == 1.0


@pytest.mark.parametrize("per", ["layer", "step"])
@pytest.mark.parametrize(("bits", "lo_bits", "zero_point"), [(7, 4, 136), (10, 5, 77), (4, 6, 0)])
def test_from_the_operands(bits: int, lo_bits: int, zero_point: int, per: str) -> None:
    rng = np.random.default_rng(bits)
    w = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), (5, 70))
    x = np.clip(np.rint(rng.normal(zero_point, 20, (70, 6))), 0, 255).astype(np.uint8)
    formats: dict[str, Any] = {"zero_point": zero_point, "weight_bits": bits, "lo_bits": lo_bits}
    psum = {"psum_group": 2, "psum_chunk": 16}
    exponents = calibrate_exponents(w, x, **formats, **psum, per=per)
    tiles = psum_tiles(w, x, zero_point, bits, lo_bits, 16)
    assert exponents == tile_exponents(tiles, 2, per)
    assert len(exponents) == 5

    exact = aqs_gemm(w, x, **formats).output
    result = apsq_gemm(w, x, **formats, **psum, psum_exponents=exponents).output
    relative = float(np.linalg.norm(result - exact) / np.linalg.norm(exact))
    assert 0 < relative < 0.1
    folded = exact - tiles.sum(axis=0)
    quality = psum_quality(tiles, exponents, 2, folded)
    assert quality.relative_error == pytest.approx(relative, rel=1e-12)
    assert quality.snr_db == pytest.approx(-20 * np.log10(relative))


def test_share_of_clipped_values() -> None:
    tiles = np.array([[127, 128, 300, -128], [1, 0, 0, -1], [0, 0, 0, -200]])[:, None, :]
    # Stored with e = 0: 127 128! 300! -128 | 128! 127 127 -129! | 127 127 127 -328!
    assert psum_quality(tiles, 0, 1).clipped_share == 5 / 12
    # In groups of 2: 127 128! 300! -128 | 1 0 0 -1 | 128! 127 127 -329!
    assert psum_quality(tiles, 0, 2).clipped_share == 4 / 12
    # With e = 1: 64 64 150! -64 | as it is, (128 + 1 + 1) >> 1 ...: only the third is beyond 127.
    assert psum_quality(tiles, 1, 4).clipped_share == 1 / 12
    assert psum_quality(np.zeros((2, 1, 1), np.int64), 3, 1).relative_error is None


W, X = np.ones((2, 40), np.int8), np.full((40, 3), 9, np.uint8)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"psum_group": 0}, ValueError, r"psum_group must be 1 or more, not 0"),
        ({"psum_group": 1.0}, TypeError, r"psum_group must be an integer 1 or more, not 1\.0"),
        ({"psum_chunk": 0}, ValueError, r"psum_chunk must be 1 or more, not 0"),
        ({"per": "row"}, ValueError, r"per must be one of layer, step, not 'row'"),
        ({"per": None}, ValueError, r"per must be one of layer, step, not None"),
        ({"zero_point": 256}, ValueError, r"zero_point must be 0\.\.255, not 256"),
        ({"lo_bits": 3}, ValueError, r"lo_bits must be one of 4, 5, 6, not 3"),
        ({"weight_bits": 8}, ValueError, r"weight_bits must be one of 4, 7, 10, not 8"),
        ({"weights": W * 100}, ValueError, r"weights must have all elements in -64\.\.63, not 100"),
        ({"activations": X[:39]}, ValueError, r"activations must have K = 40 rows .*, not 39"),
        ({"activations": X * 1.0}, TypeError, r"activations must be .* 0\.\.255, not of float64"),
    ],
)
def test_wrong_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    good: dict[str, Any] = {"weights": W, "activations": X, "zero_point": 5, "psum_group": 2}
    with pytest.raises(error, match=f"^{message}$"):
        calibrate_exponents(**{**good, **change})


def test_wrong_exponents_of_the_quality() -> None:
    with pytest.raises(ValueError, match=r"^exponents must be one integer 0\.\.31 or p = 3 of them"):
        psum_quality(random_tiles(1, 3), [1, 2], 1)
