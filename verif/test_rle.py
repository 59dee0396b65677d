"""Run-length coding of high-order vectors (section 6)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sliceforge.sim.rle import RleEntries, kept_with_fillers, rle_decode, rle_encode

DATA = Path(__file__).parent / "data"
CASES = json.loads((DATA / "rle.json").read_text())


def entries_by_definition(kept: list[bool], run_bits: int) -> list[tuple[int, int, bool]]:
    """(skip, position, filler) by walking along one tile."""
    most = (1 << run_bits) - 1
    entries, previous = [], -1
    for k in (k for k, is_kept in enumerate(kept) if is_kept):
        while k - previous - 1 > most:
            previous += 1 + most
            entries.append((most, previous, True))
        entries.append((k - previous - 1, k, False))
        previous = k
    return entries


def vectors_with(kept: np.ndarray[Any, Any], vector: int, frequent: int, seed: int) -> np.ndarray[Any, Any]:
    """(K, v) slices that are all ``frequent`` exactly where not kept; a kept one may differ in one column."""
    rng = np.random.default_rng(seed)
    vectors = np.full((len(kept), vector), frequent, np.uint8)
    for k in np.flatnonzero(kept):
        column = rng.integers(vector)
        vectors[k] = rng.integers(0, 16, vector) if rng.integers(2) else frequent
        vectors[k, column] = (frequent + rng.integers(1, 16)) % 16
    return vectors


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
@pytest.mark.parametrize("frequent", [0, 9])
def test_entries_reproduce_the_vectors(case: dict[str, Any], frequent: int) -> None:
    kept = np.isin(np.arange(case["length"]), case["kept"])
    vectors = vectors_with(kept, 4, frequent, seed=len(case["kept"]))
    entries = rle_encode(vectors, frequent, case["run_bits"])
    ours = [{"skip": entry.skip, "k": entry.position, "filler": entry.filler} for entry in entries]
    assert ours == case["entries"]
    assert len(entries) == len(case["entries"])
    np.testing.assert_array_equal(entries.data, vectors[entries.positions])
    decoded = rle_decode(entries, case["length"], frequent, case["run_bits"])
    np.testing.assert_array_equal(decoded, vectors)


@given(
    kept=st.lists(st.sampled_from([False] * 9 + [True]), min_size=1, max_size=200),
    run_bits=st.integers(1, 8),
    vector=st.sampled_from([1, 2, 4, 8]),
    frequent=st.integers(0, 15),
    seed=st.integers(0, 999),
)
def test_round_trip(kept: list[bool], run_bits: int, vector: int, frequent: int, seed: int) -> None:
    vectors = vectors_with(np.array(kept), vector, frequent, seed)
    entries = rle_encode(vectors, frequent, run_bits)
    assert [(e.skip, e.position, e.filler) for e in entries] == entries_by_definition(kept, run_bits)
    decoded = rle_decode(entries, len(kept), frequent, run_bits)
    assert decoded.dtype == vectors.dtype
    np.testing.assert_array_equal(decoded, vectors)


@given(
    groups=st.integers(1, 4),
    length=st.integers(1, 90),
    tile_k=st.integers(1, 100),
    run_bits=st.integers(1, 4),
    seed=st.integers(0, 999),
)
def test_fillers_of_many_streams(groups: int, length: int, tile_k: int, run_bits: int, seed: int) -> None:
    kept = np.random.default_rng(seed).random((groups, length)) < 0.1
    expected = np.zeros_like(kept)
    for group in range(groups):
        for start in range(0, length, tile_k):
            tile = kept[group, start : start + tile_k].tolist()
            for _, position, _ in entries_by_definition(tile, run_bits):
                expected[group, start + position] = True
    before = kept.copy()
    np.testing.assert_array_equal(kept_with_fillers(kept, tile_k, run_bits), expected)
    np.testing.assert_array_equal(kept, before)


def test_signed_slices_and_small_integers() -> None:
    weights = np.array([[0, 0], [-8, 7], [0, 0]], np.int8)
    entries = rle_encode(weights, 0, 4)
    assert [(e.skip, e.position, e.data, e.filler) for e in entries] == [(1, 1, (-8, 7), False)]
    np.testing.assert_array_equal(rle_decode(entries, 3, 0, 4), weights)
    narrow = RleEntries(np.array([255], np.uint8), np.array([[1]]), np.array([False]))
    assert narrow.positions.tolist() == [255]
    assert entries == rle_encode(weights, 0, 4) and entries != rle_encode(weights[1:], 0, 4)


def test_trailing_compressed_vectors_have_no_entry() -> None:
    assert len(rle_encode(np.full((100, 4), 3), 3, 4)) == 0
    decoded = rle_decode(rle_encode(np.full((100, 4), 3), 3, 4), 100, 3, 4)
    np.testing.assert_array_equal(decoded, np.full((100, 4), 3))


GOOD = rle_encode(np.array([[0, 0], [1, 2], [0, 0], [3, 4]]), 0, 4)


@pytest.mark.parametrize(
    ("change", "length", "message"),
    [
        ({}, 3, r"entries must have positions 0\.\.2 in a tile of length 3, not 3"),
        ({"skip": np.array([1, 16])}, 4, r"entries\.skip must have all elements in 0\.\.15, not 16"),
        ({"skip": np.array([-1, 1])}, 4, r"entries\.skip must have all elements in 0\.\.15, not -1"),
        ({"skip": np.array([1])}, 4, r"entries\.skip must have shape \(2,\), one for each row .* not \(1,\)"),
        ({"filler": np.zeros(3, bool)}, 4, r"entries\.filler must have shape \(2,\), one .* not \(3,\)"),
        ({"data": np.array([1, 2])}, 4, r"entries\.data must be a 2-D array \(n, v\) .* not of shape \(2,\)"),
        ({"data": np.array([[1, 2], [3, 16]])}, 4, r"entries\.data must have all .* -8\.\.15, not 16"),
        ({"filler": np.array([True, False])}, 4, r"entries must hold the frequent slice 0 throughout .*"),
    ],
)
def test_malformed_streams(change: dict[str, Any], length: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        rle_decode(replace(GOOD, **change), length, 0, 4)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"^vectors must be a 2-D array \(K, v\) .* not of shape \(3,\)$"):
        rle_encode(np.zeros(3, int), 0, 4)
    with pytest.raises(ValueError, match=r"^frequent must be -8\.\.15, not 16$"):
        rle_encode(np.zeros((3, 4), int), 16, 4)
    with pytest.raises(ValueError, match=r"^run_bits must be 1\.\.16, not 0$"):
        rle_encode(np.zeros((3, 4), int), 0, 0)
    with pytest.raises(ValueError, match=r"^length must be 1 or more, not 0$"):
        rle_decode(GOOD, 0, 0, 4)
    with pytest.raises(TypeError, match=r"^entries must be RleEntries from rle_encode, not list$"):
        rle_decode([], 4, 0, 4)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^kept must be a 2-D bool array \(groups, K\), not 1-D of int64$"):
        kept_with_fillers(np.zeros(3, np.int64), 4, 4)


@pytest.mark.parametrize("length", [65_536, 65_537, 131_073])
def test_the_longest_runs(length: int) -> None:
    vectors = np.zeros((length, 1), np.uint8)
    vectors[-1] = 1
    entries = rle_encode(vectors, 0, 16)
    assert [(entry.skip, entry.position, entry.filler) for entry in entries] == entries_by_definition(
        (vectors[:, 0] != 0).tolist(), 16
    )
