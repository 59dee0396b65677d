"""Store unit: lays results into beats of the bus, wherever in memory their row begins."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.output_rows import OutputRows
from sliceforge.hw.payloads import DIM_BITS, result_layout, write_beat_layout, write_job_layout
from sliceforge.hw.stream_fifo import StreamFIFO

__all__ = ["StoreUnit", "most_row_beats"]


def most_row_beats(tile_n, bus_bits):
    """Beats of the bus that a row of ``tile_n`` words touches at most."""
    words = bus_bits // 32
    return (words - 1 + tile_n + words - 1) // words


class StoreUnit(wiring.Component):
    """Turns the rows of output tiles into jobs and beats for the `BurstWriter`.

    A row's words are shifted to their place in a beat of the bus and collected until the beat is full or
    the row ends; strobes mark the words that count.

    Parameters
    ----------
    bus_bits, address_bits : of the bus. ``tile_m``, ``tile_n`` : of `OutputRows`.
    sums : words in a beat of results.

    Members
    -------
    start, m, n, address, stride : in; as of `OutputRows`.
    results : stream in; rows of output tiles in order, each from ``last_of_row`` to the next.
    jobs, beats : stream out; a row each, and its beats. A tile's first job is offered when its first
        results are here: the bus is promised nothing that is not about to come.
    done : out; high, until reset, when the last beat of the layer was taken.

    Latency: 0 from results to beats where they need no more results; a cycle more after a row that spills
    into one more beat. Throughput: as many words a cycle as the narrower of results and bus has.
    Flow control: valid/ready.
    """

    def __init__(self, *, bus_bits, address_bits, tile_m, tile_n, sums):
        self.parameters = {
            "bus_bits": bus_bits, "address_bits": address_bits, "tile_m": tile_m, "tile_n": tile_n,
            "sums": sums,
        }  # fmt: skip
        super().__init__(
            {
                "start": In(1),
                "m": In(DIM_BITS),
                "n": In(DIM_BITS),
                "address": In(address_bits),
                "stride": In(32),
                "results": In(stream.Signature(result_layout(sums))),
                "jobs": Out(
                    stream.Signature(write_job_layout(address_bits, most_row_beats(tile_n, bus_bits)))
                ),
                "beats": Out(stream.Signature(write_beat_layout(bus_bits))),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        words = p["bus_bits"] // 32
        word_bits = (words - 1).bit_length()
        m.submodules.output_rows = output_rows = OutputRows(
            address_bits=p["address_bits"], tile_m=p["tile_m"], tile_n=p["tile_n"]
        )
        for name in ("start", "m", "n", "address", "stride"):
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
            self.jobs.p.beats.eq((offset + rows.p.columns + (words - 1)) >> word_bits),
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
