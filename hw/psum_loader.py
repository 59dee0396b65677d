# amaranth: UnusedElaboratable=no
# (a block that is placed as an instance of a shared module only lends its ports)
"""Psum loader: brings partial sums that are stored in memory back for the K-chunk that needs them."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.burst_reader import BurstReader
from sliceforge.hw.payloads import (
    DIM_BITS,
    PSUM_BANKS,
    nest_layout,
    psum_fill_layout,
    read_answer_layout,
    read_request_layout,
)
from sliceforge.hw.psum_nest import PsumNest, psum_stride
from sliceforge.hw.stream_fifo import StreamFIFO

__all__ = ["PsumLoader"]


class PsumLoader(wiring.Component):
    """For each tile that leaves the array, in order: what the `ResultUnit` adds to it, if that is in memory.

    A tile is asked for when the same tile's partial sums of the K-chunk before are known to be written; so
    all that a group needs is there too.

    Parameters
    ----------
    buffer : of the `BurstReader`. ``sums``, ``words`` : of `psum_fill_layout`. The rest: of the `PsumNest`.

    Members
    -------
    start : in; a pulse. What follows is constant from then until reset.
    loops, psum_group, psum_address : in; of the `PsumNest`. ``psums_resident`` : in; nothing is to load.
    psum_written : in; a pulse for each tile of partial sums that memory has, in order.
    requests, answer, failed : the reader's.
    fills : stream out; a piece, what bus and memory word have in common, a cycle.

    Latency: that of the `BurstReader`. Flow control: valid/ready on ``fills``, credits towards memory.
    Tested range: memory words wider and narrower than a beat, 2 to 8 sums; as `OutputRows`.
    """

    def __init__(self, *, buffer, sums, words, **nest):
        self.parameters = {"buffer": buffer, "sums": sums, "words": words, **nest}
        self._nest = PsumNest(**nest)
        bus_bits, address_bits = nest["bus_bits"], nest["address_bits"]
        self._reader = {
            "bus_bits": bus_bits, "address_bits": address_bits, "buffer": buffer, "burst": buffer // 4
        }  # fmt: skip
        self._beat_bytes = bus_bits // 8
        super().__init__(
            {
                "start": In(1),
                "loops": In(nest_layout()),
                "psum_group": In(3),
                "psum_address": In(address_bits),
                "psums_resident": In(1),
                "psum_written": In(1),
                "requests": Out(stream.Signature(read_request_layout(address_bits))),
                "answer": In(read_answer_layout(bus_bits)),
                "failed": Out(1),
                "fills": Out(stream.Signature(psum_fill_layout(sums, words))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        m.submodules.nest = nest = self._nest
        m.submodules.reader = reader = BurstReader(**self._reader)
        wiring.connect(m, reader.requests, wiring.flipped(self.requests))
        full = self.psum_group == 0

        # Ask: a job a tile; what it holds is remembered until it comes.
        m.submodules.groups = groups = StreamFIFO(range(PSUM_BANKS + 1), depth=4)
        running, needs, asks = Signal(), Signal(), Signal()
        written = Signal(DIM_BITS)  # tiles that nobody has taken into account
        narrow_beats, full_beats = (
            psum_stride(p[name], p["bus_bits"]) // self._beat_bytes for name in ("narrow_words", "full_words")
        )
        m.d.comb += [
            reader.answer.eq(self.answer),
            self.failed.eq(reader.failed),
            nest.loops.eq(self.loops),
            nest.psum_group.eq(self.psum_group),
            nest.psum_address.eq(self.psum_address),
            nest.run.eq(running),
            needs.eq(nest.valid & ~nest.chunks.first),  # the tile of the chunk before must be written
            asks.eq(needs & (written != 0) & (nest.adds != 0)),
            reader.jobs.valid.eq(asks & groups.i.ready),
            reader.jobs.p.address.eq(nest.group_address),
            reader.jobs.p.beats.eq(Mux(full, full_beats, nest.adds * narrow_beats)),
            groups.i.valid.eq(asks & reader.jobs.ready),
            groups.i.payload.eq(nest.adds),
            nest.next.eq(nest.valid & Mux(asks, reader.jobs.ready & groups.i.ready, ~needs | (written != 0))),
        ]
        counts = Signal()  # the tile asked for a cycle ago; the next one comes later
        m.d.sync += [counts.eq(nest.next & needs), written.eq(written + self.psum_written - counts)]
        with m.If(nest.next & nest.ends):
            m.d.sync += running.eq(0)
        with m.If(self.start):
            m.d.sync += running.eq(~self.psums_resident)
        self._unpack(m, full, groups, reader.beats)
        return m

    def _unpack(self, m, full, groups, beats):
        """Pieces: parts of a beat, where that holds several words of the memory on chip; else of a word."""
        p = self.parameters
        sums, words, bus_bits = p["sums"], p["words"], p["bus_bits"]
        piece = Signal(range(max(p["full_words"], p["narrow_words"])))  # of the tile
        position = Signal(range(PSUM_BANKS))
        beat_ends, tile_ends, taken = Signal(), Signal(), Signal()
        fill = self.fills.p

        def place(word_bits, values, width):
            """Pieces of words of ``word_bits`` bits, to ``values`` of ``width`` bits each."""
            size = min(bus_bits, word_bits)
            a_beat, a_word = bus_bits // size, word_bits // size  # pieces; one of them is 1
            count = max(1, sums // a_word)  # values of a piece
            bits = Signal(size, name=f"piece_{width}")
            part = piece[: (a_beat - 1).bit_length()] if a_beat > 1 else 0
            column = piece[: (a_word - 1).bit_length()] if a_word > 1 else 0
            m.d.comb += [
                bits.eq(beats.p.data.word_select(part, size)),
                fill.word.eq(piece >> (a_word - 1).bit_length()),
                beat_ends.eq(tile_ends | ((piece & (a_beat - 1)) == a_beat - 1)),
                tile_ends.eq(piece == words * a_word - 1),
            ]
            m.d.comb += fill.columns.eq(((1 << count) - 1) << (column * count))
            for i in range(sums):
                first = (i % count) * width
                m.d.comb += values[i].eq(bits[first : first + width])

        with m.If(full):
            place(32 * sums, fill.full_sums, 32)
        with m.Else():
            place(max(32, 8 * sums), fill.narrow, 8)
        ends = Signal()
        m.d.comb += [
            self.fills.valid.eq(beats.valid & groups.o.valid),
            fill.position.eq(position),
            ends.eq(tile_ends & (full | (position + 1 == groups.o.payload))),
            fill.last.eq(ends),
            taken.eq(self.fills.valid & self.fills.ready),
            beats.ready.eq(self.fills.ready & groups.o.valid & beat_ends),
            groups.o.ready.eq(taken & ends),
        ]
        with m.If(taken):
            m.d.sync += piece.eq(Mux(tile_ends, 0, piece + 1))
            with m.If(tile_ends):
                m.d.sync += position.eq(Mux(ends, 0, position + 1))
