"""Schedules: the order in which a layer's tiles are computed, what stays on chip, and what is loaded when.

Written from docs/architecture.md, not from hw/tile_nest.py: plain loops over rows and columns of tiles and
K-chunks. Sources: Panacea (HPCA 2025) for tile reuse, APSQ (DAC 2025) for the dataflows; blocks are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.dataflow import Dataflow

__all__ = ["Schedule", "Traffic", "dram_bytes"]

Images = list[tuple[int, int]]


@dataclass(frozen=True)
class Traffic:
    """Bytes that a tensor moves: ``dram`` over the bus, ``chip`` into and out of the memories on chip."""

    dram: int
    chip: int


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The order of tiles of one layer (M, K, N) on one machine, and what stays on chip.

    dataflow : which loop order. block : tiles in a block; see `tiles`. chunk : positions along K after which
        sums leave the array; k_tile : positions in a tile image.
    span : positions along K after which a region of activations ends, at the latest; None: only where the
        loops say so.
    psum_group : group size of APSQ, 0 for partial sums of 32 bits.
    weights_resident, activations_resident : stay in their memory over the tiles that use them one after the
        other. blocks_share : the stationary one stays over all blocks. psums_resident : stay in OMEM.
    """

    config: AcceleratorConfig
    m: int
    k: int
    n: int
    chunk: int
    k_tile: int
    dataflow: Dataflow = Dataflow.OUTPUT_STATIONARY
    block: int = 1
    span: int | None = None
    psum_group: int = 0
    weights_resident: bool = True
    activations_resident: bool = True
    blocks_share: bool = False
    psums_resident: bool = True

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return -(-self.m // self.config.tile_m)

    @property
    def columns(self) -> int:
        """Columns of tiles."""
        return -(-self.n // self.config.tile_n)

    @property
    def steps(self) -> int:
        """K-chunks, ``p`` in arithmetic.md."""
        return -(-self.k // self.chunk)

    @cached_property
    def k_tiles(self) -> list[range]:
        """Numbers of the tile images of each K-chunk; an image does not reach past its chunk."""
        ranges, first = [], 0
        for start in range(0, self.k, self.chunk):
            count = -(-min(self.chunk, self.k - start) // self.k_tile)
            ranges.append(range(first, first + count))
            first += count
        return ranges

    @cached_property
    def k_slices(self) -> list[slice]:
        """Positions along K of each tile image."""
        return [
            slice(start, min(start + self.k_tile, first + self.chunk, self.k))
            for first in range(0, self.k, self.chunk)
            for start in range(first, min(self.k, first + self.chunk), self.k_tile)
        ]

    @property
    def images(self) -> int:
        """Tile images of a row of tiles of W, or of a column of tiles of X."""
        return self.k_tiles[-1].stop

    @property
    def weight_stationary(self) -> bool:
        return self.dataflow == Dataflow.WEIGHT_STATIONARY

    @property
    def input_stationary(self) -> bool:
        return self.dataflow == Dataflow.INPUT_STATIONARY

    @property
    def row_blocks(self) -> list[range]:
        return _blocks(self.rows, self.block if self.input_stationary else self.rows)

    @property
    def column_blocks(self) -> list[range]:
        return _blocks(self.columns, self.block if self.weight_stationary else self.columns)

    def tiles(self) -> Iterator[tuple[int, int, int]]:
        """(row of tiles, column of tiles, K-chunk) in the order in which they leave the array.

        output stationary: for each row, column, chunk. weight stationary: for each block of columns, row,
        chunk, column of the block. input stationary: for each block of rows, column, chunk, row of the block.
        """
        chunks = range(self.steps)
        if self.weight_stationary:
            return (
                (i, j, c)
                for block in self.column_blocks
                for i in range(self.rows)
                for c in chunks
                for j in block
            )
        if self.input_stationary:
            return (
                (i, j, c)
                for block in self.row_blocks
                for j in range(self.columns)
                for c in chunks
                for i in block
            )
        return ((i, j, c) for i in range(self.rows) for j in range(self.columns) for c in chunks)

    def output_tiles(self) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of Y of each output tile, in the order in which they leave."""
        m, n = self.config.tile_m, self.config.tile_n
        for i, j, c in self.tiles():
            if c == self.steps - 1:
                yield slice(i * m, min(self.m, (i + 1) * m)), slice(j * n, min(self.n, (j + 1) * n))

    def parameter_rows(self) -> Iterator[slice]:
        """Rows of Y whose biases and scales are sent, in that order."""
        m = self.config.tile_m
        rows: Iterable[int] = range(self.rows)
        if self.weight_stationary:
            rows = (i for _ in self.column_blocks for i in range(self.rows))
        if self.input_stationary:
            rows = (i for block in self.row_blocks for _ in range(self.columns) for i in block)
        return (slice(i * m, min(self.m, (i + 1) * m)) for i in rows)

    # Regions: images that lie together in memory and are loaded in a row.

    def weight_regions(self) -> list[Images]:
        """(row of tiles, number of the image) of the images in each region of weights."""
        if self.weight_stationary:
            return [[(i, kt) for kt in tiles] for i in range(self.rows) for tiles in self.k_tiles]
        return [
            [(i, kt) for tiles in self.k_tiles for i in block for kt in tiles]
            for block in (self.row_blocks if self.input_stationary else ([i] for i in range(self.rows)))
        ]

    def activation_regions(self) -> list[Images]:
        """(column of tiles, number of the image) of the images in each region of activations."""
        if self.weight_stationary:
            regions = [
                [(j, kt) for tiles in self.k_tiles for j in block for kt in tiles]
                for block in self.column_blocks
            ]
        elif self.input_stationary:
            regions = [[(j, kt) for kt in tiles] for j in range(self.columns) for tiles in self.k_tiles]
        else:
            regions = [[(j, kt) for j in range(self.columns) for kt in range(self.images)]]
        return [part for region in regions for part in self._spans(region)]

    def _spans(self, region: Images) -> Iterator[Images]:
        """The region in parts of ``span`` positions."""
        part, positions = [], 0
        for image in region:
            part.append(image)
            positions += self.k_slices[image[1]].stop - self.k_slices[image[1]].start
            last_of_k = image[1] == self.images - 1
            if self.span is not None and (positions >= self.span or last_of_k):
                yield part
                part, positions = [], 0
        if part:
            yield part

    @property
    def weight_loads(self) -> tuple[int, int]:
        """(how often the chain of regions is walked, how often each region is loaded then)."""
        rounds = len(self.column_blocks) if self.weight_stationary and not self.blocks_share else 1
        return rounds, 1 if self.weights_resident else self.columns

    @property
    def activation_loads(self) -> tuple[int, int]:
        """As `weight_loads`."""
        again = 1 if self.activations_resident else self.rows
        if self.weight_stationary:
            return 1, again
        if self.input_stationary:
            return 1 if self.blocks_share else len(self.row_blocks), again
        return again, 1

    @property
    def header_bytes(self) -> tuple[int, int]:
        """Bytes of the headers of all regions of weights and of activations."""
        if self.weight_stationary:
            regions = self.rows * self.steps, len(self.column_blocks)
        elif self.input_stationary:
            regions = len(self.row_blocks), self.columns * self.steps
        else:
            regions = self.rows, 1
        parts = regions[1] if self.span is None else len(self.activation_regions())
        return regions[0] * self.config.load_beat_bytes, parts * self.config.load_beat_bytes

    # What fits, and what it costs.

    @property
    def legal(self) -> bool:
        """The machine can run it: memories hold what stays, and nothing is read again that cannot be."""
        c, all_images, chunk_images = self.config, self.images, len(self.k_tiles[0])
        # Images that stay: of each operand over its tiles, and over all blocks.
        weights, activations = all_images, all_images * self.columns
        if self.weight_stationary:
            weights, activations = chunk_images, all_images * min(self.block, self.columns)
            shared, slots = all_images * self.rows, c.weight_slots
            blocks, stays = len(self.column_blocks), self.weights_resident
        elif self.input_stationary:
            weights, activations = all_images * min(self.block, self.rows), chunk_images
            shared, slots = all_images * self.columns, c.activation_slots
            blocks, stays = len(self.row_blocks), self.activations_resident
        else:
            shared, slots, blocks, stays = 0, 0, 1, True
        return (
            (not self.weights_resident or weights <= c.weight_slots)
            and (not self.activations_resident or activations <= c.activation_slots)
            and (not self.blocks_share or (stays and shared <= slots))
            and (stays or blocks == 1)
            and self._parts_legal
            and (not self.psums_resident or self.steps == 1 or self.waiting_psums <= self.psum_room)
        )

    @property
    def _parts_legal(self) -> bool:
        """Activations in parts are loaded in one order: nothing less than all of them can be loaded again."""
        if self.span is None or self.dataflow == Dataflow.OUTPUT_STATIONARY:
            return True
        return self.activations_resident and not (self.weight_stationary and len(self.column_blocks) > 1)

    @property
    def waiting_psums(self) -> int:
        """Tiles whose partial sums wait at the same time, at most."""
        if self.weight_stationary:
            return min(self.block, self.columns)
        return min(self.block, self.rows) if self.input_stationary else 1

    @property
    def psum_room(self) -> int:
        """Tiles whose partial sums OMEM holds."""
        return self.config.psum_slots * {1: 4, 2: 2}.get(self.psum_group, 1)

    @property
    def psum_tile_bytes(self) -> int:
        """Bytes of a tile of partial sums."""
        return 4 * (self.config.psum_words if self.psum_group else self.config.tile_m * self.config.tile_n)

    def traffic(self, weight_bytes: int, activation_bytes: int) -> dict[str, Traffic]:
        """Estimated traffic by tensor. weight_bytes, activation_bytes: of all images of W and of X,
        without headers of regions, which the loop order decides and which are added.

        On chip: weights and activations are written once for each load and read for each tile; a tile of
        partial sums is written once and read once (in the group that follows, with APSQ); outputs leave
        OMEM. Results count as stored in 32 bits; of the parameters, biases count.
        """
        loads = [rounds * passes for rounds, passes in (self.weight_loads, self.activation_loads)]
        psums = 2 * self.rows * self.columns * (self.steps - 1) * self.psum_tile_bytes
        outputs = 4 * self.m * self.n
        headers = self.header_bytes
        again = {Dataflow.WEIGHT_STATIONARY: len(self.column_blocks), Dataflow.INPUT_STATIONARY: self.columns}
        biases = 4 * self.m * again.get(self.dataflow, 1)
        return {
            "weights": Traffic(
                loads[0] * (weight_bytes + headers[0]), (loads[0] + self.columns) * weight_bytes
            ),
            "activations": Traffic(
                loads[1] * (activation_bytes + headers[1]), (loads[1] + self.rows) * activation_bytes
            ),
            "parameters": Traffic(biases, biases),
            "partial_sums": Traffic(0 if self.psums_resident else psums, psums),
            "outputs": Traffic(outputs, outputs),
        }


def dram_bytes(traffic: Mapping[str, Traffic]) -> int:
    """Bytes over the bus, of all tensors."""
    return sum(tensor.dram for tensor in traffic.values())


def _blocks(count: int, size: int) -> list[range]:
    return [range(start, min(count, start + size)) for start in range(0, count, size)]
