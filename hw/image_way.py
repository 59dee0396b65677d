"""Image way: encodes and holds one way of tile images until they are written to memory."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sliceforge.gen.config import COUNT_BITS
from sliceforge.hw.payloads import index
from sliceforge.hw.ram import add_ram
from sliceforge.hw.rle_decoder import entry_layout

__all__ = ["ImageWay"]


class ImageWay(wiring.Component):
    """Run-length codes the vectors of its banks as they come and gives them as the granules of a tile image.

    There are two halves: one tile is written while the tile before it is read. HO vectors are coded
    (arithmetic.md section 6; Panacea, HPCA 2025) without waiting: a filler is stored as soon as its run is
    full, and is counted only when a kept vector follows. So each vector stores one entry or none.

    Parameters
    ----------
    layout : TileLayout of activations. ``banks`` : of this way.

    Members
    -------
    frequent : in; the frequent slice, constant.
    write : in; bank ``bank`` of half ``write_half`` gets the vectors ``lo`` and ``hi`` of ``position``. Each
        bank that is used must be written at positions 0, 1, 2 .. of a tile, in this order.
    start : in; a pulse: give the tile in half ``read_half``, which is complete. It has ``lo_granules`` LO
        granules a bank, and only the first ``used`` banks were written; the others have LO 0 and no entry.
        All three are constant from then until ``ended``.
    granules : stream out; the counts in one granule or more, then LO, then HO, bank by bank; on offer in
        every cycle from the counts until ``ended``.
    ho_granules : out; how many granules of HO there are in all; when the counts are offered.
    ended : out; no granule is left. Low from the cycle after ``start`` on.

    Latency: 1 + banks cycles from ``start`` to the counts; 1 from the last write to ``start``.
    Throughput: a vector a cycle in; from the counts on, a granule a cycle out.
    Flow control: valid/ready on ``granules``; none on writes. Reset: drops the tiles.
    Tested range: vector 2, 4, 8; run_bits 2, 5, 8; tile_k 12..64; banks 1, 3, 9.
    """

    def __init__(self, *, layout, banks):
        self.parameters = {"layout": layout, "banks": banks}
        self._layout = layout
        self._banks = banks
        vector_bits = 4 * layout.vector
        self._most_lo = layout.lo_granules(layout.tile_k, 1)  # granules of a bank
        self._most_ho = layout.ho_granules(layout.tile_k)
        super().__init__(
            {
                "frequent": In(4),
                "write": In(1),
                "write_half": In(1),
                "bank": In(index(banks)),
                "position": In(range(layout.tile_k)),
                "lo": In(vector_bits),
                "hi": In(vector_bits),
                "start": In(1),
                "read_half": In(1),
                "lo_granules": In(range(self._most_lo + 1)),
                "used": In(range(banks + 1)),
                "granules": Out(stream.Signature(layout.granule_bits)),
                "ho_granules": Out(range(banks * self._most_ho + 1)),
                "ended": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        layout = self._layout
        tally_layout = data.StructLayout(
            {
                "count": COUNT_BITS,
                "granules": range(self._most_ho + 1),
                "last_place": range(layout.entries_per_granule),
            }
        )
        # A granule's address is its number in the bank, then the bank, then the half.
        depth = 2 << _bits(self._banks)
        lo_ram = add_ram(
            m, platform, "lo_ram",
            shape=data.ArrayLayout(4 * layout.vector, 4), depth=depth << _bits(self._most_lo), parts=4,
        )  # fmt: skip
        ho_ram = add_ram(
            m, platform, "ho_ram",
            shape=data.ArrayLayout(layout.entry_bits, layout.entries_per_granule),
            depth=depth << _bits(self._most_ho), parts=layout.entries_per_granule,
        )  # fmt: skip
        m.submodules.tallies = tallies = Memory(shape=tally_layout, depth=depth, init=[])
        self._write_lo(m, lo_ram)
        self._write_ho(m, ho_ram, tallies)
        self._read(m, lo_ram, ho_ram, tallies)
        return m

    def _address(self, half, bank, granule, most):
        return Cat(granule[: _bits(most)], bank[: _bits(self._banks)], half)

    def _write_lo(self, m, lo_ram):
        """Four vectors a granule; the first of them clears the places of the others."""
        place, first = self.position[:2], Signal()
        m.d.comb += [
            first.eq(place == 0),
            lo_ram.write_address.eq(
                self._address(self.write_half, self.bank, self.position >> 2, self._most_lo)
            ),
        ]
        for p in range(4):
            m.d.comb += [
                lo_ram.write[p].eq(self.write & (first | (place == p))),
                lo_ram.write_data[p].eq(Mux(first, 0, self.lo) if p else self.lo),
            ]

    def _write_ho(self, m, ho_ram, tallies):
        """Where each bank's next entry goes, and the tally of the entries up to its last kept vector."""
        layout = self._layout
        per = layout.entries_per_granule
        state_layout = data.StructLayout(
            {"run": layout.run_bits, "place": range(per), "granule": range(self._most_ho)}
        )
        m.submodules.states = states = Memory(
            shape=state_layout, depth=max(2, 1 << _bits(self._banks)), init=[]
        )
        states_read, states_write = states.read_port(domain="comb"), states.write_port()
        tally = tallies.write_port()

        before, after = Signal(state_layout), Signal(state_layout)
        kept, stores, fills, first = Signal(), Signal(), Signal(), Signal()
        entry = Signal(entry_layout(layout.vector, layout.run_bits))
        m.d.comb += [
            first.eq(self.position == 0),
            states_read.addr.eq(self.bank),
            before.eq(Mux(first, 0, states_read.data.as_value())),
            kept.eq(self.hi != self.frequent.replicate(layout.vector)),
            stores.eq(kept | before.run.all()),  # not kept: a filler, whose run is full
            fills.eq(stores & (before.place == per - 1)),
            after.run.eq(Mux(stores, 0, before.run + 1)),
            after.place.eq(Mux(fills, 0, before.place + stores)),
            after.granule.eq(before.granule + fills),
            states_write.addr.eq(self.bank),
            states_write.data.eq(after),
            states_write.en.eq(self.write),
            entry.skip.eq(before.run),
            entry.data.eq(self.hi),
            ho_ram.write_address.eq(self._address(self.write_half, self.bank, before.granule, self._most_ho)),
            tally.addr.eq(self._address(self.write_half, self.bank, before.granule, 1)),
            tally.en.eq(self.write & (kept | first)),
        ]
        for p in range(per):
            m.d.comb += [
                ho_ram.write[p].eq(self.write & stores & (before.place == p)),
                ho_ram.write_data[p].eq(entry),
            ]
        with m.If(kept):
            m.d.comb += [
                tally.data.count.eq(before.granule * per + before.place + 1),
                tally.data.granules.eq(before.granule + 1),
                tally.data.last_place.eq(before.place),
            ]

    def _read(self, m, lo_ram, ho_ram, tallies):
        """Goes through the banks three times: for the counts, for LO, for HO."""
        layout, banks, granules = self._layout, self._banks, self.granules
        header_granules = layout.header_beats(banks, 1)
        tally_read = tallies.read_port(domain="comb")
        bank, granule = Signal(index(banks)), Signal(range(max(self._most_lo, self._most_ho)))
        header = Signal(header_granules * layout.granule_bits)
        part = Signal(index(header_granules))
        pending, rest, first = Signal(banks), Signal(banks), Signal.like(bank)  # banks with HO left to read

        tally, used, last_bank, last_granule = tally_read.data, Signal(), Signal(), Signal()
        reads_lo, reads_ho, ends_lo = Signal(), Signal(), Signal()
        fetched, room = Signal(), Signal()  # a granule stands at a RAM's output; it does not, or it leaves
        m.d.comb += [
            tally_read.addr.eq(self._address(self.read_half, bank, granule, 1)),
            used.eq(bank < self.used),
            last_bank.eq(bank == banks - 1),
            ends_lo.eq(reads_lo & last_granule & last_bank),
            room.eq(~fetched | granules.ready),
        ]
        with m.FSM(name="section") as section:
            with m.State("ENDED"):
                m.d.sync += [header.eq(0), self.ho_granules.eq(0)]
                with m.If(self.start):
                    m.next = "COUNTS"
            with m.State("COUNTS"):
                with m.If(used):
                    m.d.sync += [
                        header.word_select(bank, COUNT_BITS).eq(tally.count),
                        self.ho_granules.eq(self.ho_granules + tally.granules),
                        pending.bit_select(bank, 1).eq(tally.granules != 0),
                    ]
                m.d.sync += bank.eq(bank + 1)
                with m.If(last_bank):
                    m.d.sync += bank.eq(0)
                    m.next = "HEADER"
            with m.State("HEADER"):
                with m.If(granules.ready):
                    m.d.sync += [header.eq(header >> layout.granule_bits), part.eq(part + 1)]
                    with m.If(part == header_granules - 1):
                        m.d.sync += part.eq(0)
                        m.d.comb += reads_lo.eq(1)
                        m.next = "LO"
                        with m.If(ends_lo):
                            m.next = "HO"
            with m.State("LO"):
                m.d.comb += reads_lo.eq(room)
                with m.If(ends_lo):
                    m.next = "HO"
            with m.State("HO"):
                with m.If(pending != 0):
                    m.d.comb += reads_ho.eq(room)
                with m.Elif(room):
                    m.next = "ENDED"

        in_lo = section.ongoing("HEADER") | section.ongoing("LO")
        m.d.comb += [
            last_granule.eq(granule + 1 == Mux(in_lo, self.lo_granules, tally.granules)),
            rest.eq(Mux(in_lo, pending, pending & (pending - 1))),  # of HO, the lowest is being read
        ]
        for b in reversed(range(banks)):
            with m.If(rest[b]):
                m.d.comb += first.eq(b)
        with m.If(reads_lo | reads_ho):
            m.d.sync += granule.eq(granule + 1)
            with m.If(last_granule):
                m.d.sync += [
                    granule.eq(0),
                    bank.eq(Mux(in_lo & ~last_bank, bank + 1, first)),
                    pending.eq(rest),
                ]

        # What is read: LO of a bank that is not used, and entries behind a bank's last, are masked.
        is_lo, shown = Signal(), Signal(layout.entries_per_granule)
        with m.If(reads_lo | reads_ho):
            m.d.sync += [fetched.eq(1), is_lo.eq(reads_lo)]
            for p in range(len(shown)):
                counts = ~last_granule | (tally.last_place >= p) if p else 1
                m.d.sync += shown[p].eq(Mux(reads_lo, used, counts))
        with m.Elif(granules.ready):
            m.d.sync += fetched.eq(0)
        entries = Cat(Mux(shown[p], ho_ram.read_data[p], 0) for p in range(len(shown)))
        m.d.comb += [
            lo_ram.read_address.eq(self._address(self.read_half, bank, granule, self._most_lo)),
            lo_ram.read.eq(reads_lo),
            ho_ram.read_address.eq(self._address(self.read_half, bank, granule, self._most_ho)),
            ho_ram.read.eq(reads_ho),
            granules.valid.eq(section.ongoing("HEADER") | fetched),
            granules.payload.eq(Mux(is_lo, Mux(shown[0], lo_ram.read_data.as_value(), 0), entries)),
            self.ended.eq(section.ongoing("ENDED")),
        ]
        with m.If(section.ongoing("HEADER")):
            m.d.comb += granules.payload.eq(header)


def _bits(count):
    """Bits of an index below ``count``: none for a single one."""
    return (count - 1).bit_length()
