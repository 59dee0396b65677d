"""Tile nest: the loops over rows, columns and K-chunks of tiles, in the order of a layer's dataflow."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.gen.dataflow import Dataflow
from sliceforge.hw.loop_counter import LoopCounter
from sliceforge.hw.payloads import DIM_BITS, nest_layout

__all__ = ["RowNest", "TileNest"]


_LOOP_FIELDS = ("length", "first", "last")


def _loop(most):
    """What the outside sees of a loop: the present tile's length, and whether it is the first or last."""
    return Out(data.StructLayout(dict(zip(_LOOP_FIELDS, (range(most + 1), 1, 1), strict=True))))


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
    run : in; the inputs above are constant while it is high. Without it nothing is valid.
    valid : out; the outputs below are those of the present k-tile. All are registers.
    next : in; go on with the next k-tile. Only while ``valid``.
    rows, columns, chunks, positions, blocks : out; the loops at the present k-tile: ``length``, ``first``,
        ``last``.
    tile_ends, rows_end, columns_end, chunk_ends, block_ends, ends : out; this k-tile is the last of its tile;
        of all that goes before the next row, column, chunk, block of tiles; of the layer. So ``columns_end``
        is the end of what does not depend on the column, the weights, and may be used again for the next one.

    After the layer's last k-tile comes its first again. A reset is between two layers.
    Latency: valid SETTLES + 1 cycles after ``run`` rises. The next k-tile is got ready meanwhile: it is
    valid 2 cycles after the last one with ``next``, or SETTLES + 1 cycles after the present one, if later.
    Tested range: M and N of 1 to 4 tiles; blocks of 1 to 5 and of 2^24 - 1; 1 to 3 chunks of 1 to 3 k-tiles,
    and all of k_bits in one.
    """

    ENDS = ("tile_ends", "rows_end", "columns_end", "chunk_ends", "block_ends", "ends")
    # Two loops, one behind the other: blocks, and the loop over the tiles of a block; chunks and positions.
    SETTLES = 2 * LoopCounter.SETTLES

    def __init__(self, *, tile_m, tile_n, tile_k, k_bits):
        self.parameters = {"tile_m": tile_m, "tile_n": tile_n, "tile_k": tile_k, "k_bits": k_bits}
        super().__init__(
            {
                "loops": In(nest_layout()),
                "once_rows": In(1),
                "once_columns": In(1),
                "once_blocks": In(1),
                "whole_chunks": In(1),
                "run": In(1, init=1),
                "valid": Out(1),
                "next": In(1),
                "rows": _loop(tile_m),
                "columns": _loop(tile_n),
                "chunks": _loop((1 << k_bits) - 1),
                "positions": _loop(tile_k),
                "blocks": _loop((1 << DIM_BITS) - 1),
                **{name: Out(1) for name in self.ENDS},
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
        rows, columns, chunks, positions, blocks = counters.values()
        output, weight, inputs = Signal(), Signal(), Signal()
        block_step = Signal.like(blocks.step)
        m.d.sync += block_step.eq(Mux(inputs, layer.block * p["tile_m"], layer.block * p["tile_n"]))
        m.d.comb += [
            output.eq(layer.dataflow == Dataflow.OUTPUT_STATIONARY),
            weight.eq(layer.dataflow == Dataflow.WEIGHT_STATIONARY),
            inputs.eq(layer.dataflow == Dataflow.INPUT_STATIONARY),
            # The innermost of the tiles' loops runs over a block. Without blocks there is one, of any length.
            blocks.total.eq(Mux(self.once_blocks | output, 1, Mux(inputs, layer.m, layer.n))),
            blocks.step.eq(block_step),
            rows.total.eq(Mux(self.once_rows, 1, Mux(inputs, blocks.length, layer.m))),
            columns.total.eq(Mux(self.once_columns, 1, Mux(weight, blocks.length, layer.n))),
            chunks.total.eq(layer.k),
            chunks.step.eq(layer.chunk),
            positions.total.eq(Mux(self.whole_chunks, 1, chunks.length)),
            positions.step.eq(layer.k_tile),
        ]

        # The loops are ahead by a k-tile: when their outputs stand they wait for the present one to be over.
        advances, waited = Signal(), Signal(range(self.SETTLES + 1))
        stands = Signal()
        m.d.comb += [stands.eq(waited == self.SETTLES), advances.eq(self.run & stands & ~self.valid)]
        m.d.sync += waited.eq(Mux(~self.run | advances, 0, waited + ~stands))
        m.d.sync += self.valid.eq(self.run & (advances | (self.valid & ~self.next)))
        ahead = {name: Signal(name=f"{name}_ahead") for name in self.ENDS}
        tile_ends, rows_end, columns_end, chunk_ends, block_ends, ends = ahead.values()
        m.d.comb += [
            tile_ends.eq(positions.last),
            rows_end.eq(tile_ends & (inputs | (chunks.last & columns.last))),
            columns_end.eq(tile_ends & (weight | (chunks.last & (output | rows.last)))),
            chunk_ends.eq(tile_ends & (output | Mux(weight, columns.last, rows.last))),
            block_ends.eq(tile_ends & chunks.last & rows.last & columns.last),
            ends.eq(block_ends & blocks.last),
            positions.next.eq(advances),
            rows.next.eq(advances & rows_end),
            columns.next.eq(advances & columns_end),
            chunks.next.eq(advances & chunk_ends),
            blocks.next.eq(advances & block_ends),
        ]
        with m.If(advances):
            for name, counter in counters.items():
                m.d.sync += [getattr(self, name)[key].eq(getattr(counter, key)) for key in _LOOP_FIELDS]
            m.d.sync += [getattr(self, name).eq(value) for name, value in ahead.items()]
        return m


class RowNest(wiring.Component):
    """The rows of tiles in the order in which their results come: the `TileNest` without chunks and, but for
    the input-stationary order, without columns.

    Members and latency: as of the `TileNest`; ``next``: go on with the next row of tiles.
    """

    def __init__(self, *, tile_m, tile_n, k_bits):
        self.parameters = {"tile_m": tile_m, "tile_n": tile_n, "k_bits": k_bits}
        super().__init__(
            {
                "loops": In(nest_layout()),
                "run": In(1, init=1),
                "valid": Out(1),
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
            nest.run.eq(self.run),
            self.valid.eq(nest.valid),
            nest.next.eq(self.next),
            self.rows.eq(nest.rows),
            self.columns.eq(nest.columns),
            self.ends.eq(nest.ends),
        ]
        return m
