"""Layers whose tiles leave the array in any dataflow, and where their partial sums lie: plain loops.

The order is that of `Schedule`; the rest is written from arithmetic.md section 8.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from sliceforge.gen.dataflow import Dataflow
from sliceforge.sim.schedule import Schedule

__all__ = ["DATAFLOWS", "Layer", "LeavingTile", "output_rows", "some_layer", "stored_case"]

DATAFLOWS = [flow.name for flow in Dataflow]


@dataclass(frozen=True)
class LeavingTile:
    """A tile that leaves the array: its row and column of tiles, K-chunk, and what follows from these.

    number : in its K-chunk. position : of the K-chunk in its group. adds : stored tiles that are added to it.
    """

    row: int
    column: int
    chunk: int
    rows: int
    columns: int
    first_chunk: bool
    last_chunk: bool
    chunk_ends: bool
    block_ends: bool
    frees_rows: bool
    last: bool
    number: int
    position: int
    adds: int


@dataclass(frozen=True)
class Layer:
    """(m, k, n) in tiles of (tile_m, tile_n) and K-chunks of ``chunk``; group 0: sums at full width."""

    tile_m: int
    tile_n: int
    m: int
    k: int
    n: int
    chunk: int
    dataflow: str
    block: int
    group: int

    @cached_property
    def schedule(self) -> Schedule:
        config: Any = SimpleNamespace(tile_m=self.tile_m, tile_n=self.tile_n)
        return Schedule(
            config=config, m=self.m, k=self.k, n=self.n, chunk=self.chunk, k_tile=1,
            dataflow=Dataflow[self.dataflow], block=self.block, psum_group=self.group,
        )  # fmt: skip

    @property
    def steps(self) -> int:
        return self.schedule.steps

    def loops(self) -> dict[str, Any]:
        """Fields of `nest_layout`."""
        return {
            "m": self.m, "n": self.n, "k": self.k, "dataflow": Dataflow[self.dataflow].value,
            "block": self.block, "chunk": self.chunk, "k_tile": 1,
        }  # fmt: skip

    def _chunk_of(self, tile: tuple[int, int, int]) -> tuple[int, ...]:
        """The same for tiles of one K-chunk."""
        i, j, c = tile
        if self.schedule.weight_stationary:
            return (j // self.block, i, c)
        return (i // self.block, j, c) if self.schedule.input_stationary else tile

    def tiles(self) -> Iterator[LeavingTile]:
        order = list(self.schedule.tiles())
        columns, number = self.schedule.columns, 0
        for index, tile in enumerate(order):
            i, j, c = tile
            following = order[index + 1] if index + 1 < len(order) else None
            chunk_ends = following is None or self._chunk_of(following) != self._chunk_of(tile)
            last_chunk, position = c == self.steps - 1, c % max(1, self.group)
            if self.schedule.weight_stationary:
                block, following_block = j // self.block, following and following[1] // self.block
                last_column = j == columns - 1 or (j + 1) % self.block == 0
            else:
                by_rows = self.schedule.input_stationary
                block, following_block = (
                    (i // self.block, following and following[0] // self.block) if by_rows else (0, 0)
                )
                last_column = by_rows or j == columns - 1
            adds = position if last_chunk else 0
            if position == 0:
                adds = 0 if c == 0 else max(1, self.group)
            yield LeavingTile(
                row=i,
                column=j,
                chunk=c,
                rows=min(self.tile_m, self.m - i * self.tile_m),
                columns=min(self.tile_n, self.n - j * self.tile_n),
                first_chunk=c == 0,
                last_chunk=last_chunk,
                chunk_ends=chunk_ends,
                block_ends=following is None or block != following_block,
                frees_rows=last_chunk and last_column,
                last=following is None,
                number=number,
                position=position,
                adds=adds,
            )
            number = 0 if chunk_ends else number + 1

    def stride(self, words: int, bus_bits: int) -> int:
        """Bytes from one stored tile of ``words`` words to the next: whole beats of the bus."""
        return -(-32 * words // bus_bits) * bus_bits // 8

    def group_address(self, tile: LeavingTile, address: int, stride: int) -> int:
        """Where position 0 of the tile's group is stored."""
        return address + tile.number * max(1, self.group) * stride


def some_layer(
    rng: random.Random,
    p: dict[str, Any],
    dataflow: str,
    group: int,
    *,
    steps: int | None = None,
    most: int = 3,
) -> Layer:
    """Up to ``most`` tiles each way, ragged or not, of a group of K-chunks, one more or less, or a prime."""
    tile_m, tile_n = p["tile_m"], p["tile_n"]
    m, n = (
        rng.choice(
            [size, max(1, size * rng.randint(1, most) - rng.choice([0, 0, 1])), rng.randint(1, size * most)]
        )
        for size in (tile_m, tile_n)
    )
    if steps is None:
        steps = rng.choice([1, 2, max(1, group - 1), max(1, group), group + 1, 2 * group + 1, 5, 7])
    chunk = rng.randint(1, ((1 << p["k_bits"]) - 1) // steps)
    k = chunk * steps - (rng.randrange(chunk) if steps > 1 else 0)
    block = rng.choice([1, 2, most]) if dataflow != "OUTPUT_STATIONARY" else 1
    return Layer(tile_m, tile_n, m, k, n, chunk, dataflow, block, group)


def output_rows(
    layer: Layer, p: dict[str, Any], address: int | None, stride: int, psum_address: int | None
) -> Iterator[dict[str, int]]:
    """What is written, in order: rows of Y at ``address``, and tiles of partial sums; None: none of them.

    Fields of `output_row_layout`, and ``tile``, which counts the tiles that are written.
    """
    psum_words = p["narrow_words"] if layer.group else p["full_words"]
    psum_stride, count = layer.stride(psum_words, p["bus_bits"]), 0
    for tile in layer.tiles():
        if not tile.last_chunk and psum_address is not None:
            place = layer.group_address(tile, psum_address, psum_stride) + tile.position * psum_stride
            yield {"address": place, "words": psum_words, "first_of_tile": 1, "is_psum": 1, "tile": count}
            count += 1
        if tile.last_chunk and address is not None:
            first = address + tile.row * layer.tile_m * stride + 4 * tile.column * layer.tile_n
            for i in range(tile.rows):
                row = {"address": first + i * stride, "words": tile.columns, "first_of_tile": int(i == 0)}
                yield {**row, "is_psum": 0, "tile": count}
            count += 1


def stored_case(bus_bits: int, address_bits: int, tile_m: int, tile_n: int, sums: int) -> dict[str, int]:
    """Parameters of the units that store and load; partial sums of a tile as AcceleratorConfig.psum_words."""
    full = tile_m * tile_n
    return {
        "bus_bits": bus_bits, "address_bits": address_bits, "tile_m": tile_m, "tile_n": tile_n, "sums": sums,
        "k_bits": 6, "full_words": full, "narrow_words": full // sums * max(1, sums // 4),
    }  # fmt: skip
