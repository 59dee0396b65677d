"""Bank of a tile memory: the RAM of one PEA's weights, or one lane's activations, and its feeder."""

from amaranth import Module, Mux
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.gen.config import COUNT_BITS
from sliceforge.hw.feeder import Feeder
from sliceforge.hw.payloads import record_layout, tile_layout
from sliceforge.hw.ram import add_ram

__all__ = ["TileBank"]


class TileBank(wiring.Component):
    """`slots` tile images in a simple dual-port RAM, written by the loader, read by the bank's feeder.

    Parameters
    ----------
    layout : TileLayout of a slot.
    slots : tiles that the bank holds.

    Members
    -------
    write, write_address, write_granule : in; a granule is written in this cycle.
    write_header, write_count : in; instead of the granule, the tile's entry count is written.
    dense, forbidden, tiles, records, slot_freed, malformed, bad_slice : the feeder's.

    Latency, throughput, flow control: the feeder's. Tested range: vector 2, 4, 8; dense 1, 2; slots 2..102.
    """

    def __init__(self, *, layout, slots):
        self.parameters = {"layout": layout, "slots": slots}
        self._layout = layout
        self._depth = slots * layout.slot_granules
        self._address_bits = address_bits = (self._depth - 1).bit_length()
        super().__init__(
            {
                "write": In(1),
                "write_address": In(address_bits),
                "write_granule": In(layout.granule_bits),
                "write_header": In(1),
                "write_count": In(COUNT_BITS),
                "dense": In(range(layout.dense + 1)),
                "forbidden": In(4),
                "tiles": In(stream.Signature(tile_layout(layout.tile_k, address_bits))),
                "records": Out(stream.Signature(record_layout(layout.vector, layout.dense))),
                "slot_freed": Out(1),
                "malformed": Out(1),
                "bad_slice": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        ram = add_ram(m, platform, "ram", shape=self._layout.granule_bits, depth=self._depth)
        m.submodules.feeder = feeder = Feeder(layout=self._layout, address_bits=self._address_bits)
        m.d.comb += [
            ram.write.eq(self.write),
            ram.write_address.eq(self.write_address),
            ram.write_data.eq(Mux(self.write_header, self.write_count, self.write_granule)),
            ram.read.eq(feeder.read),
            ram.read_address.eq(feeder.address),
            feeder.granule.eq(ram.read_data),
            feeder.dense.eq(self.dense),
            self.slot_freed.eq(feeder.slot_freed),
            feeder.forbidden.eq(self.forbidden),
            self.malformed.eq(feeder.malformed),
            self.bad_slice.eq(feeder.bad_slice),
        ]
        wiring.connect(m, wiring.flipped(self.tiles), feeder.tiles)
        wiring.connect(m, feeder.records, wiring.flipped(self.records))
        return m
