"""Tile walk: two pointers, to rows and to columns of tiles, that follow the loops of the `TileNest`."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sliceforge.gen.dataflow import Dataflow

__all__ = ["TileWalk"]


class TileWalk(wiring.Component):
    """Says where a finished output tile's row and column of tiles are; what "where" means, the parent says.

    Tiles are finished in the order of the `TileNest` without chunks: the inner loop is that over rows of
    tiles if input stationary, else that over columns of tiles; an outer loop over blocks goes back to the
    first row or column.

    Parameters
    ----------
    row_bits, column_bits : of the pointers.

    Members
    -------
    dataflow, rows_last, columns_last, block_ends : in; of the `TileNest` at the present tile.
    first_row : in; constant from ``start`` on. start : in; a pulse after reset: go there; the column is 0.
    next_row, next_column : in; the row behind the present one, the column beside it.
    next : in; a pulse: the present tile is finished.
    row, column : out; of the present tile. following_row : out; of the next tile.

    Latency: 0 to following_row, else 1. Throughput: a tile a cycle.
    Tested range: up to 5 tiles each way, blocks of 1 to 6; row_bits 3, 33; column_bits 24, 65.
    """

    def __init__(self, *, row_bits, column_bits):
        self.parameters = {"row_bits": row_bits, "column_bits": column_bits}
        super().__init__(
            {
                "dataflow": In(Dataflow),
                "rows_last": In(1),
                "columns_last": In(1),
                "block_ends": In(1),
                "start": In(1),
                "first_row": In(row_bits),
                "next_row": In(row_bits),
                "next_column": In(column_bits),
                "next": In(1),
                "row": Out(row_bits),
                "following_row": Out(row_bits),
                "column": Out(column_bits),
            }
        )

    def elaborate(self, platform):
        m = Module()
        block_row, block_column = Signal.like(self.row), Signal.like(self.column)  # where the block begins
        weight, inputs = Signal(), Signal()
        m.d.comb += [
            weight.eq(self.dataflow == Dataflow.WEIGHT_STATIONARY),
            inputs.eq(self.dataflow == Dataflow.INPUT_STATIONARY),
            self.following_row.eq(self.row),
        ]
        with m.If(inputs):
            back = self.rows_last & ~self.columns_last
            m.d.comb += self.following_row.eq(Mux(back, block_row, self.next_row))
        with m.Elif(self.columns_last):
            m.d.comb += self.following_row.eq(Mux(weight & self.rows_last, self.first_row, self.next_row))
        with m.If(self.next):
            m.d.sync += self.row.eq(self.following_row)
            with m.If(~inputs):
                m.d.sync += self.column.eq(Mux(self.columns_last, block_column, self.next_column))
            with m.Elif(self.rows_last):
                m.d.sync += self.column.eq(Mux(self.columns_last, 0, self.next_column))
            with m.If(self.block_ends):
                m.d.sync += block_row.eq(self.following_row)
                with m.If(weight):
                    m.d.sync += [self.column.eq(self.next_column), block_column.eq(self.next_column)]
        with m.If(self.start):
            m.d.sync += [self.row.eq(self.first_row), block_row.eq(self.first_row)]
        return m
