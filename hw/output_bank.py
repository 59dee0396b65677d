"""Output bank: the part of OMEM that holds the sums of one PEA until the result unit has sent them."""

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.payloads import index
from sliceforge.hw.ram import add_ram

__all__ = ["OutputBank", "output_words"]


def output_words(lanes, vector, result_lanes):
    """Words that the sums of one PEA's output tile take: `result_lanes` lanes stand side by side."""
    return vector * lanes // result_lanes


class OutputBank(wiring.Component):
    """A ring of `slots` output tiles of one PEA, written in the order in which the PEA's sums leave.

    The sums of `drain_lanes` lanes arrive side by side, `vector` rows one after the other; a word holds one
    row of `result_lanes` neighbouring lanes, at address
    ``slot * words + row * (lanes / result_lanes) + lane / result_lanes``.

    Parameters
    ----------
    lanes, vector, slots, result_lanes.
    drain_lanes : of the PEA; divides result_lanes.

    Members
    -------
    sums, sums_valid, tile_done : in; from the PEA, which never sends a tile without space for it.
    address, word : in, out; the read port. Data stands one cycle after the address.
    available : out; a complete tile is here.
    slot_freed : in; the oldest tile is not needed any more.

    Latency: 1 cycle from address to word. Flow control: credits; see `PEA.slot_freed`.
    Tested range: lanes 1..8, vector 2, 4, 8, slots 2..4, result_lanes 1, 2, 4, drain_lanes 1, 2.
    """

    def __init__(self, *, lanes, vector, slots, result_lanes, drain_lanes):
        self.parameters = {
            "lanes": lanes, "vector": vector, "slots": slots, "result_lanes": result_lanes,
            "drain_lanes": drain_lanes,
        }  # fmt: skip
        self._words = slots * output_words(lanes, vector, result_lanes)
        super().__init__(
            {
                "sums": In(data.ArrayLayout(32, drain_lanes * vector)),
                "sums_valid": In(1),
                "tile_done": In(1),
                "address": In(range(self._words)),
                "word": Out(32 * vector * result_lanes),
                "available": Out(1),
                "slot_freed": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        row_bits = 32 * p["vector"] * p["drain_lanes"]
        sides = p["result_lanes"] // p["drain_lanes"]  # writes of a word
        shape = data.ArrayLayout(row_bits, sides)
        ram = add_ram(m, platform, "ram", shape=shape, depth=self._words, parts=sides)

        groups = p["lanes"] // p["result_lanes"]  # words of a row
        base = Signal(range(self._words))  # of the tile that is being written
        offset = Signal(range(self._words // p["slots"]))
        group = Signal(index(groups))
        side = Signal(index(sides))  # which part of a word
        row = Signal(range(p["vector"]))
        m.d.comb += [
            ram.write_address.eq(base + offset),
            ram.write_data.eq(self.sums.as_value().replicate(sides)),
            ram.read_address.eq(self.address),
            self.word.eq(ram.read_data),
        ]
        for s in range(sides):
            m.d.comb += ram.write[s].eq(self.sums_valid & (side == s))
        with m.If(self.sums_valid):
            m.d.sync += [row.eq(row + 1), offset.eq(offset + groups)]
            with m.If(row == p["vector"] - 1):
                m.d.sync += [row.eq(0), side.eq(side + 1), offset.eq(group)]
                with m.If(side == sides - 1):
                    m.d.sync += [side.eq(0), group.eq(group + 1), offset.eq(group + 1)]
        with m.If(self.tile_done):
            tile_words = self._words // p["slots"]
            m.d.sync += [group.eq(0), offset.eq(0), base.eq(base + tile_words)]
            with m.If(base == self._words - tile_words):
                m.d.sync += base.eq(0)

        tiles = Signal(range(p["slots"] + 1))
        m.d.comb += self.available.eq(tiles != 0)
        m.d.sync += tiles.eq(tiles + self.tile_done - self.slot_freed)
        return m
