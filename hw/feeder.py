"""Feeder: reads the tiles of one bank and turns them into a stream of records, one for each k."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.gen.config import COUNT_BITS
from sliceforge.hw.payloads import lo_granules, record_layout, tile_layout
from sliceforge.hw.rle_decoder import RLEDecoder, entry_layout
from sliceforge.hw.stream_fifo import StreamFIFO

__all__ = ["Feeder"]

_GRANULES_AHEAD = 3  # covers the cycles from the last fetch of a tile to the arrival of the next one's first
_TILES_AHEAD = 4  # lets the feeders of an array drift apart by some tiles


class Feeder(wiring.Component):
    """Reads tile images from a bank: header, LO and HO granules; gives a record a position.

    The granules of a tile are fetched ahead of their use, LO and HO through one read port, so that the next
    tile starts without a gap. HO vectors are run-length decoded (`RLEDecoder`).

    Parameters
    ----------
    layout : TileLayout of the bank's slots.
    address_bits : width of a granule's address.

    Members
    -------
    dense : in; LO slices a position in this layer (1..layout.dense), constant during a layer.
    forbidden : in; bits that no slice of an HO vector may have set, constant during a layer.
    tiles : stream in; the tiles to read.
    address, read, granule : out, out, in; the bank's read port. Data stands one cycle after ``read``.
    records : stream out.
    slot_freed : out; high for a cycle when a tile that was to be released has been read.
    malformed : out; high, until reset, after an entry that lies past its tile.
    bad_slice : out; high, until reset, after an HO slice with a forbidden bit.

    Latency: 6 cycles from tile to first record, 7 if the tile has HO entries.
    Throughput: a record a cycle; with two LO slices, fewer than 16 positions, or two entries a granule, a
    tile may take a cycle more. But no tile takes fewer cycles than it has granules in its slot, header
    included, and one more.
    Flow control: valid/ready on both streams.
    Tested range: vector 2, 4, 8; dense 1, 2; run_bits 1..8; tile_k 4..128.
    """

    def __init__(self, *, layout, address_bits):
        self.parameters = {"layout": layout, "address_bits": address_bits}
        self._layout = layout
        self._tile = tile_layout(layout.tile_k, address_bits)
        super().__init__(
            {
                "dense": In(range(layout.dense + 1)),
                "forbidden": In(4),
                "tiles": In(stream.Signature(self._tile)),
                "address": Out(address_bits),
                "read": Out(1),
                "granule": In(layout.granule_bits),
                "records": Out(stream.Signature(record_layout(layout.vector, layout.dense))),
                "slot_freed": Out(1),
                "malformed": Out(1),
                "bad_slice": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        layout = self._layout

        m.submodules.tile_fifo = tiles = StreamFIFO(self._tile, depth=_TILES_AHEAD)
        wiring.connect(m, wiring.flipped(self.tiles), tiles.i)
        # What the decoding side must know of a tile that is being fetched.
        info_layout = data.StructLayout(
            {"length": range(layout.tile_k + 1), "count": COUNT_BITS, "release": 1, "last": 1}
        )
        m.submodules.info_fifo = infos = StreamFIFO(info_layout, depth=2)
        m.submodules.lo_fifo = lo = StreamFIFO(layout.granule_bits, depth=_GRANULES_AHEAD)
        m.submodules.ho_fifo = ho = StreamFIFO(layout.granule_bits, depth=_GRANULES_AHEAD)
        self._fetch(m, tiles.o, infos.i, lo, ho)
        self._decode(m, infos.o, lo.o, ho.o)
        return m

    def _fetch(self, m, tiles, infos, lo, ho):
        """Header first, then LO and HO granules as their FIFOs have room."""
        layout, tile = self._layout, tiles.p
        lo_left = Signal(range(layout.ho_base))  # granules
        ho_left = Signal(COUNT_BITS)  # entries
        lo_address, ho_address = Signal.like(self.address), Signal.like(self.address)
        lo_coming, ho_coming = Signal(), Signal()  # the granule read in the cycle before
        lo_room, ho_room = Signal(), Signal()
        lo_reads, ho_reads = Signal(), Signal()
        m.d.comb += [
            lo.i.payload.eq(self.granule),
            lo.i.valid.eq(lo_coming),
            ho.i.payload.eq(self.granule),
            ho.i.valid.eq(ho_coming),
            lo_room.eq(lo.level + lo_coming < _GRANULES_AHEAD),
            ho_room.eq(ho.level + ho_coming < _GRANULES_AHEAD),
        ]
        m.d.sync += [lo_coming.eq(0), ho_coming.eq(0)]
        with m.FSM(name="fetch"):
            with m.State("HEADER"):
                with m.If(tiles.valid & infos.ready):
                    m.d.comb += [self.address.eq(tile.base), self.read.eq(1)]
                    m.next = "COUNT"
            with m.State("COUNT"):
                count = self.granule[:COUNT_BITS]
                m.d.comb += [
                    infos.p.length.eq(tile.length),
                    infos.p.count.eq(count),
                    infos.p.release.eq(tile.release),
                    infos.p.last.eq(tile.last),
                    infos.valid.eq(1),
                    tiles.ready.eq(1),
                ]
                m.d.sync += [
                    lo_left.eq(lo_granules(tile.length, self.dense, layout.dense)),
                    ho_left.eq(count),
                    lo_address.eq(tile.base + 1),
                    ho_address.eq(tile.base + layout.ho_base),
                ]
                m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += [
                    lo_reads.eq((lo_left != 0) & lo_room),
                    ho_reads.eq(~lo_reads & (ho_left != 0) & ho_room),
                ]
                with m.If(lo_reads):
                    m.d.comb += [self.address.eq(lo_address), self.read.eq(1)]
                    m.d.sync += [lo_coming.eq(1), lo_left.eq(lo_left - 1), lo_address.eq(lo_address + 1)]
                with m.Elif(ho_reads):
                    m.d.comb += [self.address.eq(ho_address), self.read.eq(1)]
                    m.d.sync += [ho_coming.eq(1), ho_address.eq(ho_address + 1)]
                    with m.If(ho_left > layout.entries_per_granule):
                        m.d.sync += ho_left.eq(ho_left - layout.entries_per_granule)
                    with m.Else():
                        m.d.sync += ho_left.eq(0)
                ho_ends = (ho_left == 0) | (ho_reads & (ho_left <= layout.entries_per_granule))
                with m.If((lo_left == lo_reads) & ho_ends):
                    m.next = "HEADER"

    def _decode(self, m, infos, lo, ho):
        """Joins the LO vectors of a position with its HO vector."""
        layout, info = self._layout, infos.p
        m.submodules.rle_decoder = decoder = RLEDecoder(
            vector=layout.vector, run_bits=layout.run_bits, tile_k=layout.tile_k,
            max_count=(1 << COUNT_BITS) - 1,
        )  # fmt: skip
        vector = decoder.vectors.p
        moves, tile_ends = Signal(), Signal()

        # HO: the entries of a granule one after another; what a tile leaves of its last granule is dropped.
        entries = layout.entries_per_granule
        ho_index, ho_next = Signal(range(entries)), Signal(range(entries + 1))
        entry = entry_layout(layout.vector, layout.run_bits)
        entry_taken, ho_done = Signal(), Signal()
        m.d.comb += [
            decoder.tiles.p.length.eq(info.length),
            decoder.tiles.p.count.eq(info.count),
            decoder.tiles.valid.eq(infos.valid),
            infos.ready.eq(decoder.tiles.ready),
            decoder.entries.payload.eq(ho.payload.word_select(ho_index, entry.size)),
            decoder.entries.valid.eq(ho.valid),
            entry_taken.eq(decoder.entries.valid & decoder.entries.ready),
            ho_next.eq(ho_index + entry_taken),
            ho_done.eq((ho_next == entries) | (tile_ends & (ho_next != 0))),
            ho.ready.eq(ho_done),
        ]
        m.d.sync += ho_index.eq(Mux(ho_done, 0, ho_next))

        # LO: a granule holds 4 positions of one slice, or 2 of two.
        lo_index = Signal(2)
        lo_done = Signal()
        record = Signal.like(self.records.payload)
        for s in range(layout.dense):
            place = lo_index if layout.dense == 1 else Mux(self.dense == 2, Cat(s, lo_index[0]), lo_index)
            m.d.comb += record.lo[s].eq(lo.payload.word_select(place, 4 * layout.vector))
        m.d.comb += [
            record.hi.eq(vector.data),
            record.kept.eq(vector.kept),
            record.last.eq(vector.last & info.last),
            lo_done.eq(tile_ends | (lo_index == (3 if layout.dense == 1 else Mux(self.dense == 2, 1, 3)))),
            lo.ready.eq(moves & lo_done),
        ]
        with m.If(moves):
            m.d.sync += lo_index.eq(Mux(lo_done, 0, lo_index + 1))

        # Two records between the feeder and the array that they are broadcast to: no path leads from all the
        # lanes back through the decoder.
        m.submodules.record_fifo = fifo = StreamFIFO(self.records.payload.shape(), depth=2)
        wiring.connect(m, fifo.o, wiring.flipped(self.records))
        m.d.comb += [
            fifo.i.payload.eq(record),
            fifo.i.valid.eq(moves),
            decoder.vectors.ready.eq(fifo.i.ready & lo.valid),
            moves.eq(decoder.vectors.valid & decoder.vectors.ready),
            tile_ends.eq(moves & vector.last),
            self.slot_freed.eq(tile_ends & info.release),
            self.malformed.eq(decoder.malformed),
        ]
        with m.If(moves & (vector.data & self.forbidden.replicate(layout.vector)).any()):
            m.d.sync += self.bad_slice.eq(1)
