"""Bias buffer: the folded biases of two rows of tiles, one in use and one on its way in."""

from amaranth import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.payloads import bias_layout, nest_layout
from sliceforge.hw.ram import add_ram
from sliceforge.hw.tile_nest import RowNest

__all__ = ["BiasBuffer"]


class BiasBuffer(wiring.Component):
    """Holds ``bias_folded`` (arithmetic.md section 5) of the rows of an output tile.

    It is read for all tiles of a row of tiles that follow each other.

    Parameters
    ----------
    tile_m, tile_n, k_bits : of the `TileNest`.

    Members
    -------
    loops : in; constant from one reset to the next.
    biases : stream in; a word for each row of the layer, in the order of the `RowNest`: once if output
        stationary, else for each block; if input stationary, those of a block for each column of tiles.
    row, bias : in, out; the read port. Data stands one cycle after the row.
    available : out; the biases of the present row of tiles are here.
    slot_freed : in; the present row of tiles is done.

    Latency: 1 cycle from row to bias; TileNest.SETTLES + 1 from reset to the first bias. Throughput: a bias a
    cycle; those of r rows take r + 1 cycles, TileNest.SETTLES + 1 at least. Flow control: valid/ready on
    ``biases``.
    Tested range: tile_m 2..20; M of 1 to 6 tiles once, of 1 to 3 again for up to 3 columns or blocks.
    """

    def __init__(self, *, tile_m, tile_n, k_bits):
        self.parameters = {"tile_m": tile_m, "tile_n": tile_n, "k_bits": k_bits}
        super().__init__(
            {
                "loops": In(nest_layout()),
                "biases": In(stream.Signature(bias_layout())),
                "row": In(range(tile_m)),
                "bias": Out(32),
                "available": Out(1),
                "slot_freed": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        half_rows = 1 << len(self.row)
        ram = add_ram(m, platform, "ram", shape=32, depth=2 * half_rows)
        m.submodules.nest = nest = RowNest(**self.parameters)
        tiles = Signal(range(3))  # halves that are full
        write_half, read_half = Signal(), Signal()
        row = Signal.like(self.row)
        taken, tile_ends = Signal(), Signal()
        complete = Signal()  # what comes now belongs to the next layer
        m.d.comb += [
            self.biases.ready.eq((tiles != 2) & nest.valid & ~complete),
            taken.eq(self.biases.valid & self.biases.ready),
            tile_ends.eq(taken & (row + 1 == nest.rows.length)),
            nest.loops.eq(self.loops),
            nest.next.eq(tile_ends),
            ram.write.eq(taken),
            ram.write_address.eq(Cat(row, write_half)),
            ram.write_data.eq(self.biases.p.bias),
            ram.read_address.eq(Cat(self.row, read_half)),
            self.bias.eq(ram.read_data),
            self.available.eq(tiles != 0),
        ]
        m.d.sync += tiles.eq(tiles + tile_ends - self.slot_freed)
        with m.If(taken):
            m.d.sync += row.eq(row + 1)
        with m.If(tile_ends):
            m.d.sync += [row.eq(0), write_half.eq(~write_half), complete.eq(nest.ends)]
        with m.If(self.slot_freed):
            m.d.sync += read_half.eq(~read_half)
        return m
