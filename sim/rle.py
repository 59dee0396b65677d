"""Run-length encoding (RLE) of high-order (HO) vectors along K (arithmetic.md section 6).

Source: Panacea (HPCA 2025); the width of the skip field and the filler rule are our choices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sliceforge.sim import checks

__all__ = ["RleEntries", "RleEntry", "kept_with_fillers", "rle_decode", "rle_encode"]

MAX_RUN_BITS = 16


@dataclass(frozen=True)
class RleEntry:
    """One entry: ``position = previous position + 1 + skip``, the first with previous position -1."""

    skip: int
    position: int
    data: tuple[int, ...]
    filler: bool


@dataclass(frozen=True, eq=False)
class RleEntries:
    """The n entries of one tile's stream, a sequence of `RleEntry`.

    ``skip`` (n,) compressed vectors before each entry, ``data`` (n, v) slices of 4 bits, ``filler`` (n,)
    bool: the entry holds the frequent vector itself, to break a run that `skip` cannot count.
    """

    skip: npt.NDArray[np.int64]
    data: npt.NDArray[Any]
    filler: npt.NDArray[np.bool_]

    @cached_property
    def positions(self) -> npt.NDArray[np.int64]:
        """k of each entry: ``cumsum(skip + 1) - 1``."""
        return np.cumsum(np.asarray(self.skip, np.int64) + 1) - 1

    def __len__(self) -> int:
        return len(self.skip)

    def __getitem__(self, index: int) -> RleEntry:
        data = tuple(int(slice_) for slice_ in self.data[index])
        return RleEntry(int(self.skip[index]), int(self.positions[index]), data, bool(self.filler[index]))

    def __iter__(self) -> Iterator[RleEntry]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RleEntries):
            return NotImplemented
        pairs = ((self.skip, other.skip), (self.data, other.data), (self.filler, other.filler))
        return all(np.array_equal(mine, others) for mine, others in pairs)


def rle_encode(vectors: npt.ArrayLike, frequent: int, run_bits: int) -> RleEntries:
    """The entries of one tile's stream.

    vectors: (K, v) slices (-8..15), K and v >= 1; frequent: the slice that a compressed vector holds in
    every column (0 for weights, r for activations); run_bits: width of skip, 1..16.
    The data keep the dtype of ``vectors``. Raises ValueError or TypeError for a wrong argument.
    """
    slices = checks.matrix("vectors", checks.integer_array("vectors", vectors, -8, 15), "(K, v)")
    value = _frequent(frequent)
    kept = (slices != value).any(axis=1)
    positions = np.flatnonzero(kept_with_fillers(kept[None], len(kept), run_bits)[0])
    skip = np.diff(positions, prepend=-1) - 1
    return RleEntries(skip.astype(np.int64), slices[positions], ~kept[positions])


def rle_decode(entries: RleEntries, length: int, frequent: int, run_bits: int) -> npt.NDArray[Any]:
    """The (length, v) vectors that ``entries`` stand for; compressed ones hold ``frequent`` throughout.

    Raises ValueError for a malformed stream: arrays of different counts, data that are not (n, v) slices,
    a skip beyond ``2^run_bits - 1``, a position past the tile, a filler that is not the frequent vector.
    """
    if not isinstance(entries, RleEntries):
        raise TypeError(f"entries must be RleEntries from rle_encode, not {type(entries).__name__}")
    tile = checks.integer("length", length, 1)
    value = _frequent(frequent)
    most = (1 << _run_bits(run_bits)) - 1
    data = checks.integer_array("entries.data", entries.data, -8, 15)
    skip = checks.integer_array("entries.skip", entries.skip, 0, most)
    filler = np.asarray(entries.filler)
    if data.ndim != 2 or data.shape[1] == 0:
        raise ValueError(f"entries.data must be a 2-D array (n, v) with v >= 1, not of shape {data.shape}")
    for name, array in (("skip", skip), ("filler", filler)):
        if array.shape != (len(data),):
            raise ValueError(
                f"entries.{name} must have shape ({len(data)},), one for each row of data, not {array.shape}"
            )
    if len(data) and int(entries.positions[-1]) >= tile:
        raise ValueError(
            f"entries must have positions 0..{tile - 1} in a tile of length {tile}, "
            f"not {int(entries.positions[-1])}"
        )
    if (data[filler.astype(bool)] != value).any():
        raise ValueError(f"entries must hold the frequent slice {value} throughout where filler is set")
    dtype = data.dtype if data.dtype.kind == "i" or value >= 0 else np.dtype(np.int8)
    vectors = np.full((tile, data.shape[1]), value, dtype)
    vectors[entries.positions] = data
    return vectors


def kept_with_fillers(kept: npt.NDArray[np.bool_], tile_k: int, run_bits: int) -> npt.NDArray[np.bool_]:
    """Where streams have entries: ``kept`` (groups, K) and the fillers that long runs need.

    Each tile of ``tile_k`` positions (the last may be shorter) starts afresh. Within one, the d-th
    compressed vector since a kept vector or the start is a filler when d is a multiple of
    ``2^run_bits`` and a kept vector follows: trailing compressed vectors have no entry.
    Returns a new array of the same shape.
    """
    if kept.ndim != 2 or kept.dtype != np.bool_:
        raise TypeError(f"kept must be a 2-D bool array (groups, K), not {kept.ndim}-D of {kept.dtype}")
    tile_k = checks.integer("tile_k", tile_k, 1)
    run = 1 << _run_bits(run_bits)
    groups, length = kept.shape
    tile_k = min(tile_k, length)
    if tile_k <= run:  # no run with a kept vector after it is long enough
        return kept.copy()
    tiles = -(-length // tile_k)
    by_position = np.zeros((tiles * tile_k, groups), np.bool_)
    by_position[:length] = kept.T
    by_position = by_position.reshape(tiles, tile_k, groups)
    entries = np.empty_like(by_position)
    distance = np.zeros((tiles, groups), np.uint16)  # d, or 0 at a kept vector; modulo 2^16 is enough
    for k in range(tile_k):
        distance += 1
        distance *= ~by_position[:, k]
        entries[:, k] = (distance & (run - 1)) == 0
    followed = np.zeros((tiles, groups), np.bool_)  # a kept vector is here or later in the tile
    for k in reversed(range(tile_k)):
        followed |= by_position[:, k]
        entries[:, k] &= followed
    return np.ascontiguousarray(entries.reshape(tiles * tile_k, groups)[:length].T)


def _frequent(value: Any) -> int:
    return checks.integer("frequent", value, -8, 15)


def _run_bits(value: Any) -> int:
    return checks.integer("run_bits", value, 1, MAX_RUN_BITS)
