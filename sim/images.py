"""Memory images: tensors as the tile images that the hardware loads (docs/memory-format.md), and back.

An image holds one k-tile of all banks of WMEM (the row groups of a row of tiles) or of AMEM (the column
groups of a column of tiles): header, LO section, HO section; in beats of `ways` granules.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sliceforge.gen.config import AcceleratorConfig, TileLayout
from sliceforge.sim.rle import kept_with_fillers
from sliceforge.sim.slices import bit_slices, sbr_slices

__all__ = ["OperandImages", "activation_images", "image_beats", "unpack_image", "weight_images"]

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class OperandImages:
    """All tile images of one operand.

    images[t][kt] : bytes (beats, ways * granule_bytes) of row or column of tiles t, k-tile kt.
    """

    images: list[list[Bytes]]

    @property
    def nbytes(self) -> int:
        """Bytes of all images together: each loaded once."""
        return sum(image.nbytes for row in self.images for image in row)


def weight_images(
    weights: npt.NDArray[Any],
    *,
    weight_bits: int,
    config: AcceleratorConfig,
    chunk: int | None = None,
    k_tile: int | None = None,
) -> OperandImages:
    """Images of W (M, K): a bank a PEA, ``vector`` rows each; rows past M are zero.

    An image has ``k_tile`` positions, tile_k by default; the last of each ``chunk`` positions what is left.
    """
    slices = sbr_slices(weights, weight_bits)
    dense = slices[: max(1, len(slices) - 1)]
    hi = slices[-1] if len(slices) > 1 else np.zeros_like(slices[0])
    # A compressed vector is all zero, so what is not zero is kept.
    return _operand_images(
        [_groups(s, config.tile_m, config.vector, 0) for s in dense],
        _groups(hi, config.tile_m, config.vector, 0),
        0,
        chunk,
        banks=config.pea_count,
        ways=config.load_ways,
        layout=replace(config.weight_layout, tile_k=k_tile or config.tile_k),
    )


def activation_images(
    activations: npt.NDArray[Any],
    *,
    zero_point: int,
    lo_bits: int,
    config: AcceleratorConfig,
    chunk: int | None = None,
    k_tile: int | None = None,
) -> OperandImages:
    """Images of X (K, N): a bank a lane, ``vector`` columns each; columns past N are the zero point.

    chunk, k_tile: as of `weight_images`.
    """
    high, low = bit_slices(activations, lo_bits)
    pad_high, pad_low = bit_slices(np.array(zero_point), lo_bits)
    return _operand_images(
        [_groups(low.T, config.tile_n, config.vector, int(pad_low))],
        _groups(high.T, config.tile_n, config.vector, int(pad_high)),
        zero_point >> lo_bits,
        chunk,
        banks=config.lanes,
        ways=config.load_ways,
        layout=replace(config.activation_layout, tile_k=k_tile or config.tile_k),
    )


def _groups(slices: npt.NDArray[Any], tile: int, vector: int, pad: int) -> Bytes:
    """(rows, K) slices as vectors (groups, K, vector) of nibbles, padded to whole tiles."""
    rows, k = slices.shape
    padded = np.full((-(-rows // tile) * tile, k), pad, dtype=np.int8)
    padded[:rows] = slices
    return (padded.reshape(-1, vector, k).transpose(0, 2, 1) & 15).astype(np.uint8)


def _operand_images(
    lo: list[Bytes], hi: Bytes, frequent: int, chunk: int | None, *, banks: int, ways: int, layout: TileLayout
) -> OperandImages:
    k = hi.shape[1]
    size = k if chunk is None or chunk % layout.tile_k == 0 else chunk  # cut there, if not there anyway
    rows: list[list[Bytes]] = [[] for _ in range(0, len(hi), banks)]
    for start in range(0, k, size):
        here = slice(start, start + size)
        images = _chunk_images(
            [s[:, here] for s in lo], hi[:, here], frequent, banks=banks, ways=ways, layout=layout
        )
        for row, found in zip(rows, images, strict=True):
            row += found
    return OperandImages(rows)


def _chunk_images(
    lo: list[Bytes], hi: Bytes, frequent: int, *, banks: int, ways: int, layout: TileLayout
) -> list[list[Bytes]]:
    groups, k, _ = hi.shape
    tiles = -(-k // layout.tile_k)
    counts, ho = _ho_granules((hi != frequent).any(axis=2), hi, layout)
    rows: list[list[Bytes]] = []
    for first in range(0, groups, banks):
        row = []
        for kt in range(tiles):
            span = slice(kt * layout.tile_k, min(k, (kt + 1) * layout.tile_k))
            lo_here = _lo_granules([s[first : first + banks, span] for s in lo], layout)
            here = slice(first, first + banks)
            row.append(_image(lo_here, ho[here, kt], counts[here, kt], ways, layout))
        rows.append(row)
    return rows


def _pack(bits: Bytes, granule_bits: int) -> Bytes:
    """Rows of bits (least significant first) as granules of bytes, filled up with zeros."""
    padded = np.zeros((*bits.shape[:-1], granule_bits), dtype=np.uint8)
    padded[..., : bits.shape[-1]] = bits
    return np.packbits(padded, axis=-1, bitorder="little")


def _bits(values: npt.NDArray[Any], width: int) -> Bytes:
    """Bits of each value, least significant first, along a new last axis."""
    return ((values[..., None] >> np.arange(width)) & 1).astype(np.uint8)


def _lo_granules(lo: list[Bytes], layout: TileLayout) -> Bytes:
    """(banks, granules, bytes): position after position, a position's slices side by side, low first."""
    words = np.stack(lo, axis=2)  # (banks, length, dense, vector)
    banks, length = words.shape[:2]
    granules = layout.lo_granules(length, len(lo))
    nibbles = np.zeros((banks, granules * 4 * layout.vector), dtype=np.uint8)
    nibbles[:, : words[0].size] = words.reshape(banks, -1)
    packed: Bytes = (nibbles[:, 0::2] | nibbles[:, 1::2] << 4).astype(np.uint8)
    return packed.reshape(banks, granules, -1)


def _ho_granules(
    kept: npt.NDArray[np.bool_], hi: Bytes, layout: TileLayout
) -> tuple[npt.NDArray[Any], Bytes]:
    """Counts (groups, tiles) and HO granules (groups, tiles, granules, bytes), zero-padded at the end."""
    groups, k = kept.shape
    tiles = -(-k // layout.tile_k)
    per = layout.entries_per_granule
    group, position = np.nonzero(kept_with_fillers(kept, layout.tile_k, layout.run_bits))
    tile = position // layout.tile_k
    counts = np.zeros((groups, tiles), dtype=np.int64)
    np.add.at(counts, (group, tile), 1)

    # Index of each entry in its tile, and the compressed vectors before it.
    starts = np.r_[True, (np.diff(group) != 0) | (np.diff(tile) != 0)] if len(group) else np.zeros(0, bool)
    first = np.maximum.accumulate(np.where(starts, np.arange(len(group)), 0))
    index = np.arange(len(group)) - first
    before = np.where(starts, tile * layout.tile_k - 1, np.r_[0, position[:-1]][: len(group)])
    skip = position - before - 1

    entry = np.concatenate(
        [_bits(skip, layout.run_bits), _bits(hi[group, position], 4).reshape(len(group), 4 * layout.vector)],
        axis=1,
    )
    depth = layout.ho_granules(layout.tile_k)
    bits = np.zeros((groups, tiles, depth, per * layout.entry_bits), dtype=np.uint8)
    slot = bits.reshape(groups, tiles, depth * per, layout.entry_bits)
    slot[group, tile, index] = entry
    return counts, _pack(bits, layout.granule_bits)


def _image(lo: Bytes, ho: Bytes, counts: npt.NDArray[Any], ways: int, layout: TileLayout) -> Bytes:
    """One tile image from its banks' granules."""
    granule_bytes = layout.granule_bits // 8
    columns = []
    for way in range(ways):
        mine = range(way, len(counts), ways)
        header = np.zeros(layout.header_beats(len(counts), ways) * granule_bytes, dtype=np.uint8)
        header[: len(mine)] = [counts[b] for b in mine]
        depth = -(-len(counts) // ways)
        lo_part = np.zeros((depth, *lo.shape[1:]), dtype=np.uint8)
        lo_part[: len(mine)] = lo[way::ways]
        ho_part = [ho[b, : layout.ho_granules(int(counts[b]))] for b in mine]
        columns.append(
            np.concatenate([header.reshape(-1, granule_bytes), lo_part.reshape(-1, granule_bytes), *ho_part])
        )
    beats = max(len(column) for column in columns)
    image = np.zeros((beats, ways, granule_bytes), dtype=np.uint8)
    for way, column in enumerate(columns):
        image[: len(column), way] = column
    return image.reshape(beats, ways * granule_bytes)


def image_beats(beats: Bytes, *, banks: int, ways: int, length: int, dense: int, layout: TileLayout) -> int:
    """How many of ``beats`` (any, ways * granule_bytes) the image that they start with has, by its header.

    length: positions of the tile; dense: LO slices a position. ValueError if not even the header is there.
    """
    header = layout.header_beats(banks, ways)
    by_way = [0] * ways
    for bank, count in enumerate(_counts(beats, banks, ways, layout)):
        by_way[bank % ways] += layout.ho_granules(count)
    return header + -(-banks // ways) * layout.lo_granules(length, dense) + max(by_way)


def _counts(beats: Bytes, banks: int, ways: int, layout: TileLayout) -> list[int]:
    """The banks' counts of HO entries, from the header."""
    header = layout.header_beats(banks, ways)
    if len(beats) < header:
        raise ValueError(f"image must have a header of {header} beats, not {len(beats)} beats in all")
    granules = beats[:header].reshape(header, ways, -1)
    return [int(granules[:, b % ways].reshape(-1)[b // ways]) for b in range(banks)]


def unpack_image(
    image: Bytes, *, banks: int, ways: int, length: int, dense: int, layout: TileLayout
) -> list[tuple[Bytes, npt.NDArray[np.int64], Bytes]]:
    """For each bank ``(lo, skips, data)``: LO nibbles (length, dense, vector), and its entries.

    The inverse of the packing; raises ValueError if the image's length does not match its header.
    """
    beats = np.asarray(image, dtype=np.uint8).reshape(len(image), ways, layout.granule_bits // 8)
    needed = image_beats(image, banks=banks, ways=ways, length=length, dense=dense, layout=layout)
    if needed != len(beats):
        raise ValueError(f"image must have {needed} beats by its header, not {len(beats)}")
    header = layout.header_beats(banks, ways)
    depth = -(-banks // ways)
    lo_granules = layout.lo_granules(length, dense)
    ho_at = [header + depth * lo_granules] * ways
    found = []
    for b, count in enumerate(_counts(image, banks, ways, layout)):
        column = beats[:, b % ways]
        lo_at = header + (b // ways) * lo_granules
        packed = column[lo_at : lo_at + lo_granules].reshape(-1)
        nibbles = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)
        lo = nibbles[: length * dense * layout.vector].reshape(length, dense, layout.vector)
        granules = layout.ho_granules(count)
        start = ho_at[b % ways]
        ho_at[b % ways] += granules
        bits = np.unpackbits(column[start : start + granules], axis=1, bitorder="little")
        per = layout.entries_per_granule
        entries = bits[:, : per * layout.entry_bits].reshape(-1, layout.entry_bits)[:count]
        weights = 1 << np.arange(max(layout.run_bits, 4))
        skips = entries[:, : layout.run_bits] @ weights[: layout.run_bits]
        data = entries[:, layout.run_bits :].reshape(-1, layout.vector, 4) @ weights[:4]
        found.append((lo, skips.astype(np.int64), data.astype(np.uint8)))
    return found
