"""Output rows: where in memory each row of each output tile goes, and each tile of partial sums."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.payloads import nest_layout, output_row_layout
from sliceforge.hw.psum_nest import PsumNest
from sliceforge.hw.tile_walk import TileWalk

__all__ = ["OutputRows"]


class OutputRows(wiring.Component):
    """For each tile that leaves the array, in the order of the layer's dataflow: its rows, if its sums are
    results; else, if partial sums are stored in memory, one span with all of them.

    ``Y[i, j]`` lies at ``address + i * stride + 4 * j``; partial sums as the `PsumNest` says.

    Parameters
    ----------
    As of the `PsumNest`.

    Members
    -------
    start : in; a pulse. What follows is constant from then until reset.
    loops, psum_group, psum_address : in; of the `PsumNest`. ``psums_resident`` : in; they are not stored.
    results_stored : in; results are stored as rows of 32 bits; else their tiles are left out.
    address, stride : in; of Y, in bytes.
    rows : stream out; up to the last one of the layer.

    Latency: TileNest.SETTLES + 2 cycles from start to the first row. Throughput: a row a cycle; a tile of r
    rows takes r + 1 cycles, TileNest.SETTLES + 1 at least, as does one span or a tile without rows.
    Tested range: all dataflows, group sizes 0 to 4, up to 3 tiles each way and 9 K-chunks.
    """

    def __init__(self, **nest):
        self.parameters = nest
        self._nest = PsumNest(**nest)
        self._address_bits = nest["address_bits"]
        most_words = max(nest["tile_n"], nest["full_words"], nest["narrow_words"])
        super().__init__(
            {
                "start": In(1),
                "loops": In(nest_layout()),
                "psum_group": In(3),
                "psum_address": In(self._address_bits),
                "psums_resident": In(1),
                "results_stored": In(1),
                "address": In(self._address_bits),
                "stride": In(32),
                "rows": Out(stream.Signature(output_row_layout(self._address_bits, most_words))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        m.submodules.nest = nest = self._nest
        running, stored, taken = Signal(), Signal(), Signal()
        row = Signal(range(p["tile_m"]))  # of the tile
        row_ends = Signal()
        m.d.comb += [
            nest.loops.eq(self.loops),
            nest.psum_group.eq(self.psum_group),
            nest.psum_address.eq(self.psum_address),
            stored.eq(Mux(nest.keeps, ~self.psums_resident, self.results_stored)),
            nest.run.eq(running),
            self.rows.valid.eq(nest.valid & stored),
            taken.eq(nest.valid & (self.rows.ready | ~stored)),
            row_ends.eq(nest.keeps | ~stored | (row + 1 == nest.rows.length)),
            nest.next.eq(taken & row_ends),
        ]
        with m.If(taken):
            m.d.sync += row.eq(Mux(row_ends, 0, row + 1))
        with m.If(nest.next & nest.ends):
            m.d.sync += running.eq(0)
        with m.If(self.start):
            m.d.sync += running.eq(1)
        here, column = self._walk(m, nest, taken & ~nest.keeps, row_ends)
        psum_words = Mux(self.psum_group == 0, p["full_words"], p["narrow_words"])
        m.d.comb += [
            self.rows.p.address.eq(Mux(nest.keeps, nest.stored_address, here + column)),
            self.rows.p.words.eq(Mux(nest.keeps, psum_words, nest.columns.length)),
            self.rows.p.first_of_tile.eq(row == 0),
            self.rows.p.is_psum.eq(nest.keeps),
        ]
        return m

    def _walk(self, m, nest, taken, row_ends):
        """Address of the row, column 0, and bytes before the tile's column 0; ``taken``: a row of results."""
        # Addresses have a bit more than the bus: every step is less than the space, so none is jumped over.
        bits = self._address_bits + 1
        here, below = Signal(bits), Signal(bits)
        m.submodules.walk = walk = TileWalk(row_bits=bits, column_bits=bits)
        m.d.comb += [
            below.eq(here + self.stride),
            walk.dataflow.eq(self.loops.dataflow),
            walk.rows_last.eq(nest.rows.last),
            walk.columns_last.eq(nest.columns.last),
            walk.block_ends.eq(nest.block_ends),
            walk.start.eq(self.start),
            walk.first_row.eq(self.address),
            walk.next_row.eq(below),
            walk.next_column.eq(walk.column + 4 * self.parameters["tile_n"]),
            walk.next.eq(taken & row_ends),
        ]
        with m.If(taken):
            m.d.sync += here.eq(Mux(row_ends, walk.following_row, below))
        with m.If(self.start):
            m.d.sync += here.eq(self.address)
        return here, walk.column
