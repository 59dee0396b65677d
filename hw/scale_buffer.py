"""Scale buffer: multiplier and shift of the rows of two tiles, one in use and one on its way in."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.payloads import nest_layout, word_layout
from sliceforge.hw.ram import add_ram
from sliceforge.hw.tile_nest import RowNest

__all__ = ["ScaleBuffer", "scale_layout"]


def scale_layout():
    """What a row's results are multiplied with, and then shifted right by."""
    return data.StructLayout({"multiplier": 31, "shift": 6})


class ScaleBuffer(wiring.Component):
    """Holds the scales (arithmetic.md section 9) of the rows of an output tile, to be read again and again.

    Two words a row: multiplier, then shift.

    Parameters
    ----------
    tile_m, tile_n, k_bits : of the `RowNest`.

    Members
    -------
    loops : in; constant from a layer's first word until reset.
    scales : stream in; the words, in the order of the `RowNest`.
    row, scale : in, out; the read port. Data stands one cycle after the row.
    available : out; the scales of the present tile's rows are here.
    bad_scale : out; high, until reset: a multiplier has more than 31 bits, or a shift is not 1 to 62.
    slot_freed : in; the present tile's rows are done. Only while ``available``.

    Latency: 1 cycle from row to scale; the first word is taken TileNest.SETTLES + 2 cycles after it came.
    Throughput: a word a cycle; w words of a row of tiles take w + 1 cycles, TileNest.SETTLES + 1 at least.
    Flow control: valid/ready on ``scales``.
    Tested range: tile_m 2..64; one to three tiles each way in every dataflow.
    """

    def __init__(self, *, tile_m, tile_n, k_bits):
        self.parameters = {"tile_m": tile_m, "tile_n": tile_n, "k_bits": k_bits}
        super().__init__(
            {
                "loops": In(nest_layout()),
                "scales": In(stream.Signature(word_layout())),
                "row": In(range(tile_m)),
                "scale": Out(scale_layout()),
                "available": Out(1),
                "bad_scale": Out(1),
                "slot_freed": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        half_rows = 1 << len(self.row)
        ram = add_ram(m, platform, "ram", shape=scale_layout(), depth=2 * half_rows)
        m.submodules.nest = nest = RowNest(**self.parameters)
        tiles = Signal(range(3))  # halves that are full
        write_half, read_half = Signal(), Signal()
        row = Signal.like(self.row)
        second = Signal()  # the next word is a shift
        multiplier = Signal(31)
        taken, tile_ends = Signal(), Signal()
        walks = Signal()  # the first word has come: from now on the loops stand
        m.d.comb += [
            self.scales.ready.eq((tiles != 2) & nest.valid),
            taken.eq(self.scales.valid & self.scales.ready),
            tile_ends.eq(taken & second & (row + 1 == nest.rows.length)),
            nest.loops.eq(self.loops),
            nest.run.eq(walks),
            nest.next.eq(tile_ends),
            ram.write.eq(taken & second),
            ram.write_address.eq(Cat(row, write_half)),
            ram.write_data.multiplier.eq(multiplier),
            ram.write_data.shift.eq(self.scales.p.word),
            ram.read_address.eq(Cat(self.row, read_half)),
            self.scale.eq(ram.read_data),
            self.available.eq(tiles != 0),
        ]
        m.d.sync += tiles.eq(tiles + tile_ends - self.slot_freed)
        with m.If(self.scales.valid):
            m.d.sync += walks.eq(1)
        with m.If(taken):
            m.d.sync += [second.eq(~second), multiplier.eq(self.scales.p.word)]
            with m.If(second):
                m.d.sync += row.eq(row + 1)
        word = self.scales.p.word
        with m.If(taken & Mux(second, (word == 0) | (word > 62), word[31])):
            m.d.sync += self.bad_scale.eq(1)
        with m.If(tile_ends):
            m.d.sync += [row.eq(0), write_half.eq(~write_half)]
        with m.If(self.slot_freed):
            m.d.sync += read_half.eq(~read_half)
        return m
