"""Frame sender: words to frames of the host link, with CRC, stuffing and flags."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.wiring import In, Out

from sliceforge.gen.host_link import ESCAPE, ESCAPE_XOR, FLAG
from sliceforge.hw.stream_fifo import StreamFIFO

__all__ = ["FrameSender", "frame_word_layout"]


def frame_word_layout():
    """A word of a frame's body, and whether it is the last."""
    return data.StructLayout({"word": 32, "last": 1})


class FrameSender(wiring.Component):
    """A frame for each run of words up to a ``last`` one (gen/host_link.py).

    Members
    -------
    words : stream in.
    octets : stream out.

    Latency: 1 cycle from a frame's first word to its opening flag. Throughput: a byte a cycle, but for
    one cycle before the CRC. Flow control: valid/ready; ``words.ready`` follows from a register.
    """

    def __init__(self):
        self.parameters = {}
        super().__init__(
            {"words": In(stream.Signature(frame_word_layout())), "octets": Out(stream.Signature(8))}
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.checksum = crc = CRC32_ISO_HDLC(data_width=8).create()
        # Two words: no path leads from the octets back through the words' source.
        m.submodules.fifo = fifo = StreamFIFO(self.words.payload.shape(), depth=2)
        wiring.connect(m, wiring.flipped(self.words), fifo.i)
        words = fifo.o

        index = Signal(2)  # of the byte in its word
        octet = Signal(8)  # before stuffing
        offers, stuffs, escaped, sent, in_words = Signal(), Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            stuffs.eq((octet == FLAG) | (octet == ESCAPE)),
            sent.eq(offers & self.octets.ready & (escaped | ~stuffs)),
        ]
        m.d.sync += [crc.data.eq(octet), crc.valid.eq(in_words & sent)]
        with m.If(offers):
            m.d.comb += [
                self.octets.valid.eq(1),
                self.octets.payload.eq(Mux(stuffs, Mux(escaped, octet ^ ESCAPE_XOR, ESCAPE), octet)),
            ]
            with m.If(self.octets.ready):
                m.d.sync += escaped.eq(stuffs & ~escaped)
        with m.If(sent):
            m.d.sync += index.eq(index + 1)

        with m.FSM():
            with m.State("OPEN"):
                m.d.comb += [
                    self.octets.valid.eq(words.valid), self.octets.payload.eq(FLAG), crc.start.eq(1)
                ]  # fmt: skip
                with m.If(words.valid & self.octets.ready):
                    m.next = "WORDS"
            with m.State("WORDS"):
                m.d.comb += [
                    octet.eq(words.p.word.word_select(index, 8)),
                    offers.eq(words.valid),
                    in_words.eq(1),
                ]
                with m.If(sent & (index == 3)):
                    m.d.comb += words.ready.eq(~words.p.last)
                    with m.If(words.p.last):
                        m.next = "LAST"
            with m.State("LAST"):  # the checksum takes the last octet
                m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += [octet.eq(crc.crc.word_select(index, 8)), offers.eq(1)]
                with m.If(sent & (index == 3)):
                    m.next = "CLOSE"
            with m.State("CLOSE"):
                m.d.comb += [
                    self.octets.valid.eq(1), self.octets.payload.eq(FLAG),
                    words.ready.eq(self.octets.ready),
                ]  # fmt: skip
                with m.If(self.octets.ready):
                    m.next = "OPEN"
        return m
