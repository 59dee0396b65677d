"""Parameter unit: fetches what a layer has besides tensors: table, exponents, biases and scales."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.registers import TABLE_WORDS
from sliceforge.hw.burst_reader import BurstReader
from sliceforge.hw.payloads import (
    DIM_BITS,
    bias_layout,
    index,
    nest_layout,
    read_answer_layout,
    read_request_layout,
    word_layout,
)
from sliceforge.hw.stream_fifo import StreamFIFO
from sliceforge.hw.tile_nest import RowNest

__all__ = ["ParameterUnit"]


class _Kind(enum.Enum, shape=2):
    TABLE = 0
    EXPONENTS = 1
    ROWS = 2


class ParameterUnit(wiring.Component):
    """Streams words of 32 bits from ``address``, which need not lie on a beat of the bus:

    1. the activation table, if ``has_table``: TABLE_WORDS words;
    2. ``exponent_words`` words of exponents;
    3. for each row of the layer its bias, and after it, if ``has_scales``, the two words of its scale. They
       are sent as often and in the order in which the rows of tiles come (`RowNest`).

    Parameters
    ----------
    bus_bits, address_bits, buffer : of the `BurstReader`. tile_m, tile_n, k_bits : of the `RowNest`.

    Members
    -------
    start : in; a pulse. What follows is constant from then until reset.
    loops, address, has_table, exponent_words, has_scales : in; the address is a multiple of 4.
    requests, answer, failed : the reader's.
    table, exponents, biases, scales : stream out; ``last`` on the last word of exponents.

    Latency: that of the `BurstReader`. Throughput: a word a cycle; the words of a row of tiles
    TileNest.SETTLES + 1 cycles after those of the one before. Flow control: valid/ready. Reset: drops
    everything. Tested range: bus 32..512 bits, tile_m 1..64.
    """

    def __init__(self, *, bus_bits, address_bits, buffer, tile_m, tile_n, k_bits):
        self.parameters = {
            "bus_bits": bus_bits, "address_bits": address_bits, "buffer": buffer, "tile_m": tile_m,
            "tile_n": tile_n, "k_bits": k_bits,
        }  # fmt: skip
        words = stream.Signature(word_layout())
        super().__init__(
            {
                "start": In(1),
                "loops": In(nest_layout()),
                "address": In(address_bits),
                "has_table": In(1),
                "exponent_words": In(DIM_BITS),
                "has_scales": In(1),
                "requests": Out(stream.Signature(read_request_layout(address_bits))),
                "answer": In(read_answer_layout(bus_bits)),
                "failed": Out(1),
                "table": Out(words),
                "exponents": Out(words),
                "biases": Out(stream.Signature(bias_layout())),
                "scales": Out(words),
            }
        )

    def elaborate(self, platform):
        m = Module()
        p = self.parameters
        words = p["bus_bits"] // 32
        word_bits = (words - 1).bit_length()
        m.submodules.reader = reader = BurstReader(
            bus_bits=p["bus_bits"], address_bits=p["address_bits"], buffer=p["buffer"], burst=p["buffer"] // 2
        )
        wiring.connect(m, reader.requests, wiring.flipped(self.requests))
        m.submodules.nest = nest = RowNest(tile_m=p["tile_m"], tile_n=p["tile_n"], k_bits=p["k_bits"])

        # Spans, each a job: what it is, its words, and the word in its first beat.
        span = data.StructLayout({"kind": _Kind, "words": DIM_BITS, "single": 1, "first": index(words)})
        m.submodules.spans = spans = StreamFIFO(span, depth=4)
        kind, count, first = Signal(_Kind), Signal(DIM_BITS), Signal(index(words))
        offers, taken = Signal(), Signal()
        here = Signal(p["address_bits"] + 1)
        block = Signal.like(here)  # where the rows of the block begin
        rows_kind, runs = Signal(), Signal()
        m.d.comb += [
            first.eq(here[2 : 2 + word_bits] if words > 1 else 0),
            spans.i.p.kind.eq(kind),
            spans.i.p.words.eq(count),
            spans.i.p.single.eq(count == 1),
            spans.i.p.first.eq(first),
            spans.i.valid.eq(offers & reader.jobs.ready),
            reader.jobs.valid.eq(offers & spans.i.ready),
            reader.jobs.p.address.eq(here),
            reader.jobs.p.beats.eq((first + count + (words - 1)) >> word_bits),
            taken.eq(reader.jobs.valid & reader.jobs.ready),
            reader.answer.eq(self.answer),
            self.failed.eq(reader.failed),
            nest.loops.eq(self.loops),
            nest.run.eq(runs),
            nest.next.eq(taken & rows_kind),
        ]
        # What the addresses hang on, registered.
        row_words, settled = Signal(range(3 * p["tile_m"] + 1)), Signal()
        last_row, last_column, ends = Signal(), Signal(), Signal()
        rows = nest.rows.length
        m.d.sync += [
            settled.eq(nest.valid & ~nest.next),
            row_words.eq(Mux(self.has_scales, rows + (rows << 1), rows)),
            last_row.eq(nest.rows.last),
            last_column.eq(nest.columns.last),
            ends.eq(nest.ends),
        ]
        behind = Signal.like(here)  # this span
        m.d.comb += behind.eq(here + (count << 2))
        with m.FSM(name="state") as state:
            m.d.comb += runs.eq(~state.ongoing("IDLE"))
            with m.State("IDLE"):
                m.d.sync += [here.eq(self.address), block.eq(self.address)]
                with m.If(self.start):
                    m.next = "TABLE"
            for name, length, following in (
                ("TABLE", Mux(self.has_table, TABLE_WORDS, 0), "EXPONENTS"),
                ("EXPONENTS", self.exponent_words, "ROWS"),
            ):
                with m.State(name):
                    m.d.comb += [kind.eq(_Kind[name]), count.eq(length), offers.eq(count != 0)]
                    with m.If(taken | (count == 0)):
                        m.d.sync += [here.eq(behind), block.eq(behind)]
                        m.next = following
            with m.State("ROWS"):
                m.d.comb += [
                    rows_kind.eq(1),
                    kind.eq(_Kind.ROWS),
                    count.eq(row_words),
                    offers.eq(settled),
                ]
                with m.If(taken):
                    m.d.sync += here.eq(behind)
                    with m.If(last_row):
                        # The next column of the block, the next block, or the start for the next columns.
                        m.d.sync += here.eq(block)
                        with m.If((self.loops.dataflow == Dataflow.INPUT_STATIONARY) & last_column):
                            m.d.sync += [here.eq(behind), block.eq(behind)]
                    with m.If(ends):
                        m.next = "END"
            with m.State("END"):
                pass

        self._send(m, spans.o, reader.beats, words)
        return m

    def _send(self, m, span, beats, words):
        """Each word to the stream of its kind."""
        word, sent, of_row = Signal(index(words)), Signal(DIM_BITS), Signal(2)
        begins, last = Signal(init=1), Signal()  # the next word is the first, or the last, of its span
        at, value = Signal.like(word), Signal(32)
        passes, span_ends, beat_ends, ready, valid = Signal(), Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            at.eq(Mux(begins, span.p.first, word)),
            value.eq(beats.p.data.word_select(at, 32)),
            valid.eq(beats.valid & span.valid),
            passes.eq(valid & ready),
            span_ends.eq(Mux(begins, span.p.single, last)),
            beat_ends.eq(span_ends | (at == words - 1)),
            beats.ready.eq(span.valid & ready & beat_ends),
            span.ready.eq(passes & span_ends),
        ]
        is_table, is_exponents = span.p.kind == _Kind.TABLE, span.p.kind == _Kind.EXPONENTS
        is_row = span.p.kind == _Kind.ROWS
        for words_out, here in (
            (self.table, is_table),
            (self.exponents, is_exponents),
            (self.scales, is_row & (of_row != 0)),
        ):
            m.d.comb += [
                words_out.p.word.eq(value), words_out.p.last.eq(span_ends), words_out.valid.eq(valid & here)
            ]  # fmt: skip
            with m.If(here):
                m.d.comb += ready.eq(words_out.ready)
        m.d.comb += [self.biases.p.bias.eq(value), self.biases.valid.eq(valid & is_row & (of_row == 0))]
        with m.If(is_row & (of_row == 0)):
            m.d.comb += ready.eq(self.biases.ready)
        with m.If(passes):
            m.d.sync += [
                begins.eq(span_ends),
                last.eq(sent + 2 == span.p.words),
                sent.eq(Mux(span_ends, 0, sent + 1)),
                word.eq(Mux(beat_ends, 0, at + 1)),
            ]
            with m.If(is_row):
                m.d.sync += of_row.eq(Mux((of_row == 2) | ~self.has_scales, 0, of_row + 1))
