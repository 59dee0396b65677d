"""Tile nest: the loops over rows, columns and K-chunks of tiles, in the order of a layer's dataflow."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.gen.dataflow import Dataflow
from sliceforge.hw.loop_counter import LoopCounter
from sliceforge.hw.payloads import DIM_BITS, nest_layout

__all__ = ["RowNest", "TileNest"]


def _loop(most):
    """What the outside sees of a loop: the present tile's length, and whether it is the first or last."""
    return Out(data.StructLayout({"length": range(most + 1), "first": 1, "last": 1}))


class TileNest(wiring.Component):
    """Walks over the k-tiles of a layer. A step of the nest is a k-tile; a tile is all of a K-chunk's.

        output stationary    for each row of tiles, column, chunk, k-tile
        weight stationary    for each block of columns, row, chunk, column of the block, k-tile
        input stationary     for each block of rows, column, chunk, row of the block, k-tile

    A block holds the tiles whose partial sums wait at the same time. Source: tile reuse of Panacea (HPCA
    2025), dataflows as in APSQ (DAC 2025); blocks are our choice.

    Parameters
    ----------
    tile_m, tile_n, tile_k : rows, columns and positions along K of a tile, at most. ``k_bits`` : width of K.

    Members
    -------
    loops : in; ``m``, ``n``, ``k``, ``dataflow``, ``block`` (tiles in a block), ``chunk``, ``k_tile``
        (positions along K in a chunk and in a k-tile); the layer, constant while the nest is walked.
    once_rows, once_columns, once_blocks : in; that loop has one iteration, of its first tile: for what is
        loaded once and used again. ``whole_chunks`` : in; a step of the nest is a tile, all of its k-tiles.
    next : in; go on with the next k-tile.
    rows, columns, chunks, positions, blocks : out; the loops at the present k-tile: ``length``, ``first``,
        ``last``.
    tile_ends, rows_end, columns_end, chunk_ends, block_ends, ends : out; this k-tile is the last of its tile;
        of all that goes before the next row, column, chunk, block of tiles; of the layer. So ``columns_end``
        is the end of what does not depend on the column, the weights, and may be used again for the next one.

    After the layer's last k-tile comes its first again. Latency: 0. Throughput: a k-tile a cycle.
    Tested range: M and N of 1 to 4 tiles; blocks of 1 to 5 and of 2^24 - 1; 1 to 3 chunks of 1 to 3 k-tiles,
    and all of k_bits in one.
    """

    def __init__(self, *, tile_m, tile_n, tile_k, k_bits):
        self.parameters = {"tile_m": tile_m, "tile_n": tile_n, "tile_k": tile_k, "k_bits": k_bits}
        super().__init__(
            {
                "loops": In(nest_layout()),
                "once_rows": In(1),
                "once_columns": In(1),
                "once_blocks": In(1),
                "whole_chunks": In(1),
                "next": In(1),
                "rows": _loop(tile_m),
                "columns": _loop(tile_n),
                "chunks": _loop((1 << k_bits) - 1),
                "positions": _loop(tile_k),
                "blocks": _loop((1 << DIM_BITS) - 1),
                "tile_ends": Out(1),
                "rows_end": Out(1),
                "columns_end": Out(1),
                "chunk_ends": Out(1),
                "block_ends": Out(1),
                "ends": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p, layer = self.parameters, self.loops
        counters = {
            "rows": LoopCounter(width=DIM_BITS, most=p["tile_m"]),
            "columns": LoopCounter(width=DIM_BITS, most=p["tile_n"]),
            "chunks": LoopCounter(width=p["k_bits"], most=(1 << p["k_bits"]) - 1),
            "positions": LoopCounter(width=p["k_bits"], most=p["tile_k"]),
            "blocks": LoopCounter(width=DIM_BITS, most=((1 << DIM_BITS) - 1) * max(p["tile_m"], p["tile_n"])),
        }
        for name, counter in counters.items():
            m.submodules[f"{name}_loop"] = counter
            loop = getattr(self, name)
            m.d.comb += [
                loop.length.eq(counter.length),
                loop.first.eq(counter.first),
                loop.last.eq(counter.last),
            ]
        rows, columns, chunks, positions, blocks = counters.values()
        output, weight, inputs = Signal(), Signal(), Signal()
        m.d.comb += [
            output.eq(layer.dataflow == Dataflow.OUTPUT_STATIONARY),
            weight.eq(layer.dataflow == Dataflow.WEIGHT_STATIONARY),
            inputs.eq(layer.dataflow == Dataflow.INPUT_STATIONARY),
            # The innermost of the tiles' loops runs over a block. Without blocks there is one, of any length.
            blocks.total.eq(Mux(self.once_blocks | output, 1, Mux(inputs, layer.m, layer.n))),
            blocks.step.eq(layer.block * Mux(inputs, p["tile_m"], p["tile_n"])),
            rows.total.eq(Mux(self.once_rows, 1, Mux(inputs, blocks.length, layer.m))),
            columns.total.eq(Mux(self.once_columns, 1, Mux(weight, blocks.length, layer.n))),
            chunks.total.eq(layer.k),
            chunks.step.eq(layer.chunk),
            positions.total.eq(Mux(self.whole_chunks, 1, chunks.length)),
            positions.step.eq(layer.k_tile),
        ]
        m.d.comb += [
            self.tile_ends.eq(positions.last),
            self.rows_end.eq(self.tile_ends & (inputs | (chunks.last & columns.last))),
            self.columns_end.eq(self.tile_ends & (weight | (chunks.last & (output | rows.last)))),
            self.chunk_ends.eq(self.tile_ends & (output | Mux(weight, columns.last, rows.last))),
            self.block_ends.eq(self.tile_ends & chunks.last & rows.last & columns.last),
            self.ends.eq(self.block_ends & blocks.last),
            positions.next.eq(self.next),
            rows.next.eq(self.next & self.rows_end),
            columns.next.eq(self.next & self.columns_end),
            chunks.next.eq(self.next & self.chunk_ends),
            blocks.next.eq(self.next & self.block_ends),
        ]
        return m


class RowNest(wiring.Component):
    """The rows of tiles in the order in which their results come: the `TileNest` without chunks and, but for
    the input-stationary order, without columns.

    Members: as of the `TileNest`; ``next``: go on with the next row of tiles.
    """

    def __init__(self, *, tile_m, tile_n, k_bits):
        self.parameters = {"tile_m": tile_m, "tile_n": tile_n, "k_bits": k_bits}
        super().__init__(
            {
                "loops": In(nest_layout()),
                "next": In(1),
                "rows": _loop(tile_m),
                "columns": _loop(tile_n),
                "ends": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.nest = nest = TileNest(**self.parameters, tile_k=1)
        m.d.comb += [
            nest.loops.eq(self.loops),
            nest.loops.k.eq(1),
            nest.loops.chunk.eq(1),
            nest.loops.k_tile.eq(1),
            nest.once_columns.eq(self.loops.dataflow != Dataflow.INPUT_STATIONARY),
            nest.next.eq(self.next),
            self.rows.eq(nest.rows),
            self.columns.eq(nest.columns),
            self.ends.eq(nest.ends),
        ]
        return m
