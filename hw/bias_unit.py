"""Bias unit: fetches the folded biases of a layer from memory, one 32-bit word a row."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.burst_reader import BurstReader
from sliceforge.hw.payloads import DIM_BITS, bias_layout, index, read_answer_layout, read_request_layout

__all__ = ["BiasUnit"]


class BiasUnit(wiring.Component):
    """Streams ``count`` words of 32 bits from ``address``, which need not lie on a beat of the bus.

    Parameters
    ----------
    bus_bits, address_bits, buffer : of the `BurstReader`.

    Members
    -------
    start : in; a pulse. What follows is constant from then until reset.
    address, count : in; a multiple of 4; words, 1 or more.
    requests, answer, failed : the reader's.
    biases : stream out.

    Latency: that of the `BurstReader`. Throughput: a word a cycle. Flow control: valid/ready.
    """

    def __init__(self, *, bus_bits, address_bits, buffer):
        self.parameters = {"bus_bits": bus_bits, "address_bits": address_bits, "buffer": buffer}
        super().__init__(
            {
                "start": In(1),
                "address": In(address_bits),
                "count": In(DIM_BITS),
                "requests": Out(stream.Signature(read_request_layout(address_bits))),
                "answer": In(read_answer_layout(bus_bits)),
                "failed": Out(1),
                "biases": Out(stream.Signature(bias_layout())),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus_bits = self.parameters["bus_bits"]
        words = bus_bits // 32
        word_bits = (words - 1).bit_length()
        m.submodules.reader = reader = BurstReader(**self.parameters, burst=self.parameters["buffer"] // 2)
        wiring.connect(m, reader.requests, wiring.flipped(self.requests))

        first = self.address[2 : 2 + word_bits] if words > 1 else 0  # word in the first beat
        pending, word, left = Signal(), Signal(index(words)), Signal.like(self.count)
        m.d.comb += [
            reader.answer.eq(self.answer),
            self.failed.eq(reader.failed),
            reader.jobs.valid.eq(pending),
            reader.jobs.p.address.eq(self.address),  # the reader drops the bits inside a beat
            reader.jobs.p.beats.eq((first + self.count + (words - 1)) >> word_bits),
        ]
        with m.If(reader.jobs.ready):
            m.d.sync += pending.eq(0)
        with m.If(self.start):
            m.d.sync += [pending.eq(1), word.eq(first), left.eq(self.count)]

        ends_beat = Signal()
        m.d.comb += [
            ends_beat.eq((word == words - 1) | (left == 1)),
            self.biases.p.bias.eq(reader.beats.p.data.word_select(word, 32)),
            self.biases.valid.eq(reader.beats.valid),
            reader.beats.ready.eq(self.biases.ready & ends_beat),
        ]
        with m.If(self.biases.valid & self.biases.ready):
            m.d.sync += [left.eq(left - 1), word.eq(word + 1)]
            with m.If(ends_beat):
                m.d.sync += word.eq(0)
        return m
