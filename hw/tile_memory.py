# amaranth: UnusedElaboratable=no
# (a block that is placed as an instance of a shared module only lends its ports)
"""Tile memory (WMEM or AMEM): a loader, a bank for each PEA or lane, and the accounting of slots."""

from amaranth import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.hierarchy import place
from sliceforge.hw.payloads import DIM_BITS, beat_layout, nest_layout, record_layout, tile_layout
from sliceforge.hw.tile_bank import TileBank
from sliceforge.hw.tile_loader import TileLoader

__all__ = ["TileMemory"]


class TileMemory(wiring.Component):
    """A ring of `slots` tiles of one operand: filled in order, read as often as the controller says.

    A slot is free again when every bank has read a tile that was marked ``release``. Loading runs ahead
    of reading as far as slots are free: that is the double buffering of arithmetic and transfer.

    Parameters
    ----------
    name : "weight" or "activation", for the module names of the banks.
    layout, banks, ways, slots, tile_m, tile_n, k_bits, reuse : as the loader's.

    Members
    -------
    loops, resident, blocks_share, span, dense, compressed, beats, complete, bad_count, bad_length : the
        loader's.
    tiles : stream in; tiles for all banks, in order. A broadcast: it is taken in the cycle in which
        valid and ready are both high, and valid may depend on ready.
    fresh : in; with ``tiles``: the tile is read for the first time, so it must have arrived.
    records_{b} : stream out; the records of bank b.
    forbidden : in; as the feeder's.
    bad_position, bad_slice : out; high, until reset, after a malformed stream or a forbidden bit in a bank.
    arrived : out; tiles that were loaded and that nobody has asked for yet.

    Latency: the loader's and the feeder's. Tested range: banks 1..16, ways 1, 2, 4; slots 2..18.
    """

    def __init__(self, *, name, layout, banks, ways, slots, tile_m, tile_n, k_bits, reuse):
        self.parameters = {
            "name": name, "layout": layout, "banks": banks, "ways": ways, "slots": slots,
            "tile_m": tile_m, "tile_n": tile_n, "k_bits": k_bits, "reuse": reuse,
        }  # fmt: skip
        address_bits = (slots * layout.slot_granules - 1).bit_length()
        records = stream.Signature(record_layout(layout.vector, layout.dense))
        super().__init__(
            {
                "loops": In(nest_layout()),
                "resident": In(1),
                "blocks_share": In(1),
                "span": In(DIM_BITS),
                "dense": In(range(layout.dense + 1)),
                "compressed": In(1),
                "forbidden": In(4),
                "beats": In(stream.Signature(beat_layout(layout.granule_bits, ways))),
                "tiles": In(stream.Signature(tile_layout(layout.tile_k, address_bits))),
                "fresh": In(1),
                **{f"records_{b}": Out(records) for b in range(banks)},
                "complete": Out(1),
                "bad_count": Out(1),
                "bad_length": Out(1),
                "bad_position": Out(1),
                "bad_slice": Out(1),
                "arrived": Out(range(slots + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = dict(self.parameters)
        name, layout, slots = p.pop("name"), p["layout"], p["slots"]

        loader = TileLoader(**p)
        m.submodules.loader = place(platform, loader, f"{name}_loader")
        wiring.connect(m, wiring.flipped(self.beats), loader.beats)
        m.d.comb += [
            loader.loops.eq(self.loops),
            loader.resident.eq(self.resident),
            loader.blocks_share.eq(self.blocks_share),
            loader.span.eq(self.span),
            loader.dense.eq(self.dense),
            loader.compressed.eq(self.compressed),
            self.complete.eq(loader.complete),
            self.bad_count.eq(loader.bad_count),
            self.bad_length.eq(loader.bad_length),
        ]

        banks = [TileBank(layout=layout, slots=slots) for _ in range(p["banks"])]
        passes = Signal()
        m.d.comb += [
            self.tiles.ready.eq(
                Cat(bank.tiles.ready for bank in banks).all() & (~self.fresh | (self.arrived != 0))
            ),
            passes.eq(self.tiles.valid & self.tiles.ready),
        ]
        loaded = Signal()
        m.d.sync += [
            loaded.eq(loader.loaded),  # with the last write
            self.arrived.eq(self.arrived + loaded - (passes & self.fresh)),
        ]

        all_released = Signal()
        released = []  # for each bank: it has read a tile that others still read
        for b, bank in enumerate(banks):
            m.submodules[f"bank_{b}"] = place(platform, bank, f"{name}_bank")
            wiring.connect(m, bank.records, wiring.flipped(getattr(self, f"records_{b}")))
            ahead = Signal(range(slots + 1), name=f"released_{b}")
            m.d.sync += ahead.eq(ahead + bank.slot_freed - all_released)
            released.append(ahead != 0)
            m.d.comb += [
                bank.dense.eq(self.dense),
                bank.forbidden.eq(self.forbidden),
                bank.tiles.payload.eq(self.tiles.payload),
                bank.tiles.valid.eq(passes),
            ]
            # Registers on the way to the banks, which lie wherever there is RAM.
            m.d.sync += [
                bank.write.eq(loader.write[b]),
                bank.write_address.eq(getattr(loader, f"write_address_{b % p['ways']}")),
                bank.write_granule.eq(getattr(loader, f"write_granule_{b % p['ways']}")),
                bank.write_header.eq(loader.write_header),
                bank.write_count.eq(loader.write_counts[b]),
            ]
        used = Signal(range(slots + 1))
        m.d.comb += [
            all_released.eq(Cat(released).all()),
            loader.space.eq(used != slots),
            self.bad_position.eq(Cat(bank.malformed for bank in banks).any()),
            self.bad_slice.eq(Cat(bank.bad_slice for bank in banks).any()),
        ]
        m.d.sync += used.eq(used + loaded - all_released)
        return m
