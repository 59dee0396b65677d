"""Frame receiver: bytes of the host link to requests that have passed their CRC."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.wiring import In, Out

from sliceforge.gen.host_link import CRC_BYTES, ESCAPE, ESCAPE_XOR, FLAG, HEADER_BYTES, MOST_WORDS

__all__ = ["FrameReceiver", "request_layout"]

_MOST_BYTES = HEADER_BYTES + 4 * MOST_WORDS + CRC_BYTES
_LEAST_BYTES = HEADER_BYTES + CRC_BYTES
_HEADER_WORDS = HEADER_BYTES // 4


def request_layout():
    """A request without its words. ``bytes``: how many bytes followed the header."""
    return data.StructLayout(
        {"tag": 8, "operation": 8, "count": 16, "address": 32, "bytes": range(4 * MOST_WORDS + 1)}
    )


class FrameReceiver(wiring.Component):
    """Undoes framing and stuffing (gen/host_link.py) and checks the CRC.

    Dropped without a trace are frames with a wrong CRC, that are too short for a request or longer than any,
    that are aborted, hold a byte without a stop bit or pause too long, and all that comes while a request is
    on offer. After each of these the receiver waits for the next flag.

    Parameters
    ----------
    timeout : cycles after a byte within a frame in which the next one must come.

    Members
    -------
    octet, valid, failed : in; as from the UART's receiver.
    requests : stream out; on offer until the bridge has answered it.
    word, word_index, word_valid : out; a word of the frame behind the header, as it arrives, the CRC
        too. None comes while a request is on offer.

    Latency: 1 cycle from a frame's flag to the request, 1 from a word's last byte to the word.
    Flow control: none on bytes, a byte may come in every cycle; valid/ready on requests.
    """

    def __init__(self, *, timeout):
        self.parameters = {"timeout": timeout}
        self._timeout = timeout
        super().__init__(
            {
                "octet": In(8),
                "valid": In(1),
                "failed": In(1),
                "requests": Out(stream.Signature(request_layout())),
                "word": Out(32),
                "word_index": Out(range(MOST_WORDS)),
                "word_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.checksum = crc = CRC32_ISO_HDLC(data_width=8).create()

        in_frame, escaped = Signal(), Signal()
        length = Signal(range(_MOST_BYTES + 1))  # bytes of the frame so far
        silence = Signal(range(self._timeout + 1))
        is_flag, is_escape, takes, good, lost = Signal(), Signal(), Signal(), Signal(), Signal()
        octet = Signal(8)
        m.d.comb += [
            is_flag.eq(self.valid & (self.octet == FLAG)),
            is_escape.eq(self.valid & (self.octet == ESCAPE) & ~escaped),
            takes.eq(self.valid & in_frame & ~is_flag & ~is_escape & (length != _MOST_BYTES)),
            octet.eq(self.octet ^ Mux(escaped, ESCAPE_XOR, 0)),
            good.eq(is_flag & in_frame & ~escaped & crc.match_detected & (length >= _LEAST_BYTES)),
            lost.eq(
                self.failed
                | (silence == self._timeout)
                | (self.valid & ~is_flag & (length == _MOST_BYTES))
                | (self.valid & self.requests.valid)
            ),
            crc.data.eq(octet),
            crc.valid.eq(takes),
            crc.start.eq(is_flag),
        ]
        # A pause between two flags is none within a frame.
        with m.If(self.valid | ~in_frame | ((length == 0) & ~escaped)):
            m.d.sync += silence.eq(0)
        with m.Else():
            m.d.sync += silence.eq(silence + 1)

        request = self.requests.p
        shift = Signal(32)  # the last four bytes, the oldest lowest
        m.d.sync += self.word_valid.eq(0)
        with m.If(self.requests.ready):
            m.d.sync += self.requests.valid.eq(0)
        with m.If(takes):
            m.d.sync += [shift.eq(Cat(shift[8:], octet)), length.eq(length + 1), escaped.eq(0)]
            with m.If(length[:2] == 3):
                with m.If(length[2:] < _HEADER_WORDS):
                    # The first word goes through the place of the second.
                    m.d.sync += Cat(request.tag, request.operation, request.count, request.address).eq(
                        Cat(request.address, shift[8:], octet)
                    )
                with m.Elif(length[2:] < _HEADER_WORDS + MOST_WORDS):
                    m.d.sync += [
                        self.word_valid.eq(1), self.word_index.eq(length[2:] - _HEADER_WORDS)
                    ]  # fmt: skip
        with m.If(is_escape):
            m.d.sync += escaped.eq(1)
        with m.If(is_flag):
            m.d.sync += [in_frame.eq(1), length.eq(0), escaped.eq(0)]
        with m.If(good):
            m.d.sync += [self.requests.valid.eq(1), request.bytes.eq(length - _LEAST_BYTES)]
        with m.If(lost):
            m.d.sync += in_frame.eq(0)
        m.d.comb += self.word.eq(shift)
        return m
