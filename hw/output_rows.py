"""Output rows: where in memory each row of each output tile goes."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.loop_counter import LoopCounter
from sliceforge.hw.payloads import DIM_BITS, output_row_layout

__all__ = ["OutputRows"]


class OutputRows(wiring.Component):
    """For each row of tiles, each column of tiles, each row of the tile: ``address`` and ``columns``.

    ``Y[i, j]`` lies at ``address + i * stride + 4 * j``.

    Parameters
    ----------
    address_bits : of the bus. ``tile_m``, ``tile_n`` : rows and columns of an output tile.

    Members
    -------
    start : in; a pulse. What follows is constant from then until reset.
    m, n : in; shape of Y. ``address``, ``stride`` : in; of Y, in bytes.
    rows : stream out; valid until the last row of the layer is taken.

    Latency: 1 cycle. Throughput: a row a cycle. Tested range: M and N of 1 to 4 tiles.
    """

    def __init__(self, *, address_bits, tile_m, tile_n):
        self.parameters = {"address_bits": address_bits, "tile_m": tile_m, "tile_n": tile_n}
        super().__init__(
            {
                "start": In(1),
                "m": In(DIM_BITS),
                "n": In(DIM_BITS),
                "address": In(address_bits),
                "stride": In(32),
                "rows": Out(stream.Signature(output_row_layout(address_bits, tile_n))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        m.submodules.tile_row_loop = tile_rows = LoopCounter(width=DIM_BITS, step=p["tile_m"])
        m.submodules.tile_column_loop = tile_columns = LoopCounter(width=DIM_BITS, step=p["tile_n"])
        row = Signal(range(p["tile_m"]))  # of the tile
        # Addresses have a bit more than the bus: every step is less than the space, so none is jumped over.
        tile_row = Signal(p["address_bits"] + 1)  # of the tile's first row, column 0
        here = Signal.like(tile_row)  # of this row, column 0
        column = Signal(p["address_bits"] + 1)  # bytes before the tile's first column
        below = Signal.like(here)
        taken, row_ends = Signal(), Signal()
        m.d.comb += [
            tile_rows.total.eq(self.m),
            tile_columns.total.eq(self.n),
            taken.eq(self.rows.valid & self.rows.ready),
            row_ends.eq(row + 1 == tile_rows.length),
            tile_columns.next.eq(taken & row_ends),
            tile_rows.next.eq(tile_columns.next & tile_columns.last),
            self.rows.p.address.eq(here + column),
            self.rows.p.columns.eq(tile_columns.length),
            self.rows.p.first_of_tile.eq(row == 0),
            below.eq(here + self.stride),
        ]
        with m.If(taken):
            m.d.sync += [row.eq(row + 1), here.eq(below)]
            with m.If(row_ends):
                m.d.sync += [row.eq(0), here.eq(tile_row), column.eq(column + 4 * p["tile_n"])]
                with m.If(tile_columns.last):
                    m.d.sync += [here.eq(below), tile_row.eq(below), column.eq(0)]
                    with m.If(tile_rows.last):
                        m.d.sync += self.rows.valid.eq(0)
        with m.If(self.start):
            m.d.sync += [
                here.eq(self.address), tile_row.eq(self.address), column.eq(0), self.rows.valid.eq(1)
            ]  # fmt: skip
        return m
