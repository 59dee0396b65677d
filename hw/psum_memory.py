"""Partial sum memory: the part of OMEM where tiles of partial sums wait for the next K-chunk."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.payloads import PSUM_BANKS, index, psum_fill_layout
from sliceforge.hw.ram import add_ram

__all__ = ["PsumMemory"]


class PsumMemory(wiring.Component):
    """A word of 32 bits for each sum: a partial sum at full width, or one of 8 bits in each of four banks.

    In 8 bits, bank b of a word is its byte b, and the banks hold nothing else (APSQ, DAC 2025: reconfigurable
    engine). If ``resident``, the tiles of a K-chunk stay here, the first in slot 0 and so on: in groups of 3
    and 4 and at full width a tile has a slot; in groups of two, two tiles share one, and of one, four. Else
    the slots are a ring of tiles that ``fills`` brings back from memory when they are needed.

    Parameters
    ----------
    sums : sums in a word. ``words`` : of a tile. ``slots`` : tiles at full width.

    Members
    -------
    psum_group, resident : in; constant during a layer; group 0 is full width.
    tile_done, chunk_ends, used : in; a pulse: go on to the next tile; with it: that belongs to another
        K-chunk; this one had been filled.
    filled : out; the tile has come back. ``first_bank`` : out; bank of position 0 of the tile's group.
    word, stored : in, out; the read port; ``stored`` stands one cycle after the word.
    write, write_word, position, full_sums, narrow : in; the write port: full_sums at full width, else narrow
        in the bank of ``position``.
    fills : stream in. It is not used while resident, the write port only then.
    overflow : out; a resident K-chunk has more tiles than there is room for.

    Latency: 1 cycle to read; what is written in a cycle can be read from the next on.
    Tested range: 2 and 8 sums, 3 and 8 words, 1 and 3 slots; group sizes 0 to 4.
    """

    def __init__(self, *, sums, words, slots):
        self.parameters = {"sums": sums, "words": words, "slots": slots}
        super().__init__(
            {
                "psum_group": In(3),
                "resident": In(1),
                "tile_done": In(1),
                "chunk_ends": In(1),
                "used": In(1),
                "filled": Out(1),
                "first_bank": Out(range(PSUM_BANKS)),
                "word": In(index(words)),
                "stored": Out(data.ArrayLayout(32, sums)),
                "write": In(1),
                "write_word": In(index(words)),
                "position": In(range(PSUM_BANKS)),
                "full_sums": In(data.ArrayLayout(32, sums)),
                "narrow": In(data.ArrayLayout(8, sums)),
                "fills": In(stream.Signature(psum_fill_layout(sums, words))),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sums, words, slots = (self.parameters[name] for name in ("sums", "words", "slots"))
        parts = PSUM_BANKS * sums
        ram = add_ram(
            m, platform, "ram",
            shape=data.ArrayLayout(8, parts), depth=max(2, words * slots), parts=parts,
        )  # fmt: skip
        slot, ring_slot = self._resident_slot(m), Signal(index(slots))
        fill, fill_slot = self.fills.p, self._ring(m, ring_slot)

        full = Signal()
        m.d.comb += [
            full.eq(self.psum_group == 0),
            ram.read_address.eq(Mux(self.resident, slot, ring_slot) * words + self.word),
            self.stored.eq(ram.read_data),
        ]
        columns, bank = Signal(sums), Signal(range(PSUM_BANKS))
        with m.If(self.resident):
            m.d.comb += [
                ram.write_address.eq(slot * words + self.write_word),
                columns.eq(self.write.replicate(sums)),
                bank.eq(self.first_bank + self.position),
            ]
        with m.Else():
            m.d.comb += [
                ram.write_address.eq(fill_slot * words + fill.word),
                columns.eq(Mux(self.fills.valid & self.fills.ready, fill.columns, 0)),
                bank.eq(fill.position),
            ]
        for column in range(sums):
            whole = Mux(self.resident, self.full_sums[column], fill.full_sums[column])
            narrow = Mux(self.resident, self.narrow[column], fill.narrow[column])
            for b in range(PSUM_BANKS):
                byte = PSUM_BANKS * column + b
                m.d.comb += [
                    ram.write_data[byte].eq(Mux(full, whole.word_select(b, 8), narrow)),
                    ram.write[byte].eq(columns[column] & (full | (bank == b))),
                ]
        return m

    def _resident_slot(self, m):
        """Slot and first bank of the present tile of the K-chunk."""
        slots = self.parameters["slots"]
        slot, following = Signal(range(slots + 1)), Signal(range(2 * PSUM_BANKS))
        banks = Mux(self.psum_group == 1, 1, Mux(self.psum_group == 2, 2, PSUM_BANKS))  # of a tile
        m.d.comb += [following.eq(self.first_bank + banks), self.overflow.eq(self.resident & (slot == slots))]
        with m.If(self.tile_done & self.resident):
            m.d.sync += self.first_bank.eq(Mux(following >= PSUM_BANKS, 0, following))
            with m.If((following >= PSUM_BANKS) & (slot != slots)):
                m.d.sync += slot.eq(slot + 1)
            with m.If(self.chunk_ends):
                m.d.sync += [self.first_bank.eq(0), slot.eq(0)]
        return slot

    def _ring(self, m, ring_slot):
        """The ring: ``ring_slot`` is read. Returns the slot that is filled."""
        slots = self.parameters["slots"]
        full_slots, fill_slot = Signal(range(slots + 1)), Signal(index(slots))
        complete, freed = Signal(), Signal()
        m.d.comb += [
            self.fills.ready.eq(~self.resident & (full_slots != slots)),
            self.filled.eq(full_slots != 0),
            complete.eq(self.fills.valid & self.fills.ready & self.fills.p.last),
            freed.eq(self.tile_done & self.used & ~self.resident),
        ]
        m.d.sync += full_slots.eq(full_slots + complete - freed)
        for pulse, number in ((complete, fill_slot), (freed, ring_slot)):
            with m.If(pulse):
                m.d.sync += number.eq(Mux(number == slots - 1, 0, number + 1))
        return fill_slot
