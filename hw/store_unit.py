"""Store unit: lays results and partial sums into beats of the bus, wherever in memory their row begins."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.output_rows import OutputRows
from sliceforge.hw.payloads import result_layout, write_beat_layout, write_job_layout
from sliceforge.hw.stream_fifo import StreamFIFO

__all__ = ["StoreUnit", "most_job_beats"]


def most_job_beats(tile_n, psum_words, bus_bits):
    """Beats of the bus that a row of ``tile_n`` words touches at most, or a tile of partial sums takes."""
    words = bus_bits // 32
    return max((words - 1 + tile_n + words - 1) // words, -(-psum_words // words))


class StoreUnit(wiring.Component):
    """Turns the rows of output tiles, and tiles of partial sums, into jobs and beats for the `BurstWriter`.

    A row's words are shifted to their place in a beat of the bus and collected until the beat is full or
    the row ends; strobes mark the words that count. A tile of partial sums is one long row.

    Parameters
    ----------
    sums : words in a beat of results. The rest: of `OutputRows`.

    Members
    -------
    start, loops, psum_group, psum_address, psums_resident, results_stored, address, stride : in; as of
        `OutputRows`.
    results : stream in; rows of output tiles in order, each from ``last_of_row`` to the next.
    jobs, beats : stream out; a row each, and its beats. A tile's first job is offered when its first
        results are here: the bus is promised nothing that is not about to come.
    done : out; high, until reset, when the last beat of the layer was taken.

    Latency: 0 from results to beats where they need no more results; a cycle more after a row that spills
    into one more beat. Throughput: as many words a cycle as the narrower of results and bus has; a cycle more
    for each tile, and no more tiles than `OutputRows` gives.
    Flow control: valid/ready. Words of results that do not count must be 0, but in the last beat of a row.
    Tested range: results twice to eight times as wide as the bus, as wide, and narrower; group sizes 0 to 4.
    """

    def __init__(self, *, sums, **rows):
        self.parameters = {"sums": sums, **rows}
        self._rows = OutputRows(**rows)
        bus_bits, address_bits = rows["bus_bits"], rows["address_bits"]
        most_beats = most_job_beats(rows["tile_n"], max(rows["full_words"], rows["narrow_words"]), bus_bits)
        settings = self._rows.signature.members
        self._settings = [name for name in settings if name != "rows"]
        super().__init__(
            {
                **{name: settings[name] for name in self._settings},
                "results": In(stream.Signature(result_layout(sums))),
                "jobs": Out(stream.Signature(write_job_layout(address_bits, most_beats))),
                "beats": Out(stream.Signature(write_beat_layout(bus_bits))),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        words = p["bus_bits"] // 32
        word_bits = (words - 1).bit_length()
        m.submodules.output_rows = output_rows = self._rows
        for name in self._settings:
            m.d.comb += getattr(output_rows, name).eq(getattr(self, name))
        rows = output_rows.rows
        offset = rows.p.address[2 : 2 + word_bits] if words > 1 else Signal()  # word of the row's first beat

        # A piece is what is placed in one cycle: a beat of results, or the part of one that fits the bus.
        result, size = self.results.p, min(p["sums"], words)
        piece, count, last_part = Signal(32 * size), Signal(range(size + 1)), Signal()
        if size == p["sums"]:
            m.d.comb += [piece.eq(result.sums), count.eq(result.count), last_part.eq(1)]
        else:
            part, left = Signal(range(p["sums"] // size)), Signal.like(result.count)
            m.d.comb += [
                piece.eq(result.sums.as_value().word_select(part, 32 * size)),
                left.eq(result.count - part * size),
                last_part.eq(left <= size),
                count.eq(Mux(last_part, left, size)),
            ]

        # Jobs: the rows of a tile one after the other, once its first results are here.
        m.submodules.offsets = offsets = StreamFIFO(range(max(2, words)), depth=4)
        first = Signal(init=1)  # the next piece begins a row
        spills = Signal()  # the words held are a row's last: a beat of their own
        here, hands_over = Signal(), Signal()
        m.d.comb += [
            here.eq(self.results.valid & ~spills),
            hands_over.eq(
                rows.valid & offsets.i.ready & (~rows.p.first_of_tile | (here & first & ~offsets.o.valid))
            ),
            self.jobs.valid.eq(hands_over),
            self.jobs.p.address.eq(rows.p.address),
            self.jobs.p.is_psum.eq(rows.p.is_psum),
            self.jobs.p.beats.eq((offset + rows.p.words + (words - 1)) >> word_bits),
            rows.ready.eq(hands_over & self.jobs.ready),
            offsets.i.valid.eq(rows.ready),
            offsets.i.payload.eq(offset),
        ]

        # The piece in its place: behind the words held, or at the row's offset.
        held = Signal(write_beat_layout(p["bus_bits"]))
        filled, at = Signal(range(max(2, words))), Signal(range(max(2, words)))
        in_place, strobes = Signal(32 * (words + size)), Signal(words + size)
        total = Signal(range(words + size + 1))
        m.d.comb += [at.eq(Mux(first, offsets.o.payload, filled)), total.eq(at + count)]
        with m.Switch(at):
            for word in range(words):
                with m.Case(word):
                    m.d.comb += [
                        in_place.eq(piece << 32 * word),
                        strobes.eq(((1 << count) - 1)[:size] << word),
                    ]
        beat_now = Signal.like(held)
        m.d.comb += [
            beat_now.data.eq(Mux(first, 0, held.data) | in_place),
            beat_now.strobes.eq(Mux(first, 0, held.strobes) | strobes),
        ]

        row_ends, emits, placeable, passes = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            row_ends.eq(result.last_of_row & last_part),
            emits.eq(row_ends | (total >= words)),
            placeable.eq(here & (~first | offsets.o.valid)),
            passes.eq(placeable & (~emits | self.beats.ready)),
            offsets.o.ready.eq(passes & first),
            self.results.ready.eq(passes & last_part),
            self.beats.valid.eq(spills | (placeable & emits)),
            self.beats.payload.eq(Mux(spills, held, beat_now)),
        ]
        if size != p["sums"]:
            with m.If(passes):
                m.d.sync += part.eq(Mux(last_part, 0, part + 1))
        ended = Signal()  # the layer's last result was taken
        with m.If(passes):
            m.d.sync += [
                first.eq(row_ends),
                ended.eq(row_ends & result.last),
                filled.eq(total[:word_bits]),  # modulo the words of a beat
                held.eq(beat_now),
            ]
            with m.If(emits):
                m.d.sync += [
                    held.data.eq(in_place[32 * words :]),
                    held.strobes.eq(strobes[words:]),
                    spills.eq(row_ends & (total > words)),
                ]
        with m.If(spills & self.beats.ready):
            m.d.sync += spills.eq(0)
        m.d.comb += self.done.eq(ended & ~spills)
        return m
