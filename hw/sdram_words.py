"""SDRAM words: accesses over AXI4 and AXI4-Lite as those of 16-bit words on a port of LiteDRAM, in order."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sliceforge.gen.host_link import MEMORY_BASE
from sliceforge.hw.axi import DECERR, OKAY, axi_lite_slave, axi_read_master, axi_write_master, other_side
from sliceforge.hw.stream_fifo import StreamFIFO

__all__ = ["SdramWords"]

_WORD_BITS = 16
_READ_WORDS = 32  # on their way: more than the controller's latency, also where a row is opened
_WRITE_WORDS = 16  # that wait for the controller, which has up to 10 commands
_WRITE_BURSTS = 4  # whose answers are not taken


class SdramWords(wiring.Component):
    """``2 << word_address_bits`` bytes from address MEMORY_BASE on; everything else is answered with DECERR,
    after an access that changes nothing.

    A beat is ``bus_bits / 16`` words, the lowest first. Bursts of the two directions take turns, and a burst
    that waits for its data gives way; the host's access waits for the end of a burst, and is next. A write is
    answered when the controller has all its words: they are in the chip although a reset comes right after.

    Parameters
    ----------
    word_address_bits : of the memory, at most 30. bus_bits, address_bits : of the AXI4 slave.

    Members
    -------
    s_axi_*, s_lite_* : as `OnChipMemory`'s.
    commands : stream out; a word's address, and whether it is written.
    write_taken : in; the controller takes ``write_data`` and ``write_strobes`` (out) in this cycle: it does
        so for each command that writes, in order, in any cycle behind the one that takes the command.
    read_valid : in; ``read_data`` (in) is what the next command that reads asked for. It cannot be refused.

    Latency: 2 cycles from an address or a write's first beat to its first command; from a beat's last word
    1 to the beat; 1 from a burst's last word to its answer. Throughput: a word a cycle; a cycle more between
    bursts, and where the direction changes. Flow control: valid/ready; each ready follows from registers.
    Tested range: bus_bits 32..512, address_bits 32..64, word_address_bits 24.
    """

    def __init__(self, *, word_address_bits, bus_bits, address_bits):
        self.parameters = {
            "word_address_bits": word_address_bits, "bus_bits": bus_bits, "address_bits": address_bits
        }  # fmt: skip
        self._bus_bits = bus_bits
        self._words = bus_bits // _WORD_BITS
        self._shift = (bus_bits // 8).bit_length() - 1
        self._beats_bits = word_address_bits + 1 - self._shift
        super().__init__(
            {
                **other_side(axi_read_master("s_axi", address_bits, bus_bits)),
                **other_side(axi_write_master("s_axi", address_bits, bus_bits)),
                **axi_lite_slave("s_lite", 32),
                "commands": Out(
                    stream.Signature(data.StructLayout({"address": word_address_bits, "write": 1}))
                ),
                "write_taken": In(1),
                "write_data": Out(_WORD_BITS),
                "write_strobes": Out(_WORD_BITS // 8),
                "read_valid": In(1),
                "read_data": In(_WORD_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.commands = commands = StreamFIFO(self.commands.p.shape(), depth=2)
        wiring.connect(m, commands.o, wiring.flipped(self.commands))
        word = Signal(range(self._words))  # of the beat that is at work
        writing = Signal()  # direction
        read = self._read(m, word)
        write = self._write(m, word)
        reads = ~writing & read.offers & commands.i.ready
        writes = writing & write.offers & commands.i.ready
        last_word = word == self._words - 1
        m.d.comb += [
            read.issues.eq(reads),
            write.issues.eq(writes),
            commands.i.valid.eq(Mux(writing, write.offers, read.offers)),
            commands.i.p.write.eq(writing),
            commands.i.p.address.eq(
                Cat(word, Mux(writing, write.beat[: self._beats_bits], read.beat[: self._beats_bits]))
            ),
        ]
        with m.If(reads | writes):
            m.d.sync += word.eq(word + 1)
        with m.If(
            Mux(
                writing,
                read.wants & (~write.wants | (writes & last_word & write.last)),
                write.wants & (~read.wants | (reads & last_word & read.last)),
            )
        ):
            m.d.sync += writing.eq(~writing)
        return m

    def _is_inside(self, beat):
        """MEMORY_BASE is a multiple of the memory's size."""
        return beat[self._beats_bits :] == MEMORY_BASE >> (self._shift + self._beats_bits)

    def _read(self, m, word):
        """Words that are asked for have a tag each, and room in the FIFO of those that have come."""
        side = _Side(len(self.s_axi_araddr) - self._shift, "read")
        left, for_host = Signal(8), Signal()
        asked, waits = Signal(), Signal()  # the host: has not taken its answer; and is not at work
        host_address = Signal(32)
        tag = data.StructLayout({"last_word": 1, "last": 1, "host": 1, "error": 1})
        m.submodules.tags = tags = StreamFIFO(tag, depth=_READ_WORDS)
        m.submodules.read_words = words = StreamFIFO(_WORD_BITS, depth=_READ_WORDS)
        last_word = word == self._words - 1
        m.d.comb += [
            side.offers.eq(side.wants & tags.i.ready),
            side.last.eq(left == 0),
            tags.i.valid.eq(side.issues),
            tags.i.p.last_word.eq(last_word),
            tags.i.p.last.eq(side.last),
            tags.i.p.host.eq(for_host),
            tags.i.p.error.eq(~self._is_inside(side.beat)),
            self.s_axi_arready.eq(~side.wants & ~waits),
            self.s_lite_arready.eq(~asked),
        ]
        with m.If(side.issues & last_word):
            m.d.sync += [side.wants.eq(~side.last), side.beat.eq(side.beat + 1), left.eq(left - 1)]
        with m.If(waits & ~side.wants):
            m.d.sync += [
                waits.eq(0), side.wants.eq(1), for_host.eq(1), left.eq(0),
                side.beat.eq(host_address[self._shift :]),
            ]  # fmt: skip
        with m.If(self.s_axi_arvalid & self.s_axi_arready):
            m.d.sync += [
                side.wants.eq(1), for_host.eq(0), left.eq(self.s_axi_arlen),
                side.beat.eq(self.s_axi_araddr[self._shift :]),
            ]  # fmt: skip
        with m.If(self.s_lite_arvalid & ~asked):
            m.d.sync += [asked.eq(1), waits.eq(1), host_address.eq(self.s_lite_araddr)]

        beat, whole = Signal(self._bus_bits), Signal()
        answer = Signal(tag)
        goes = whole & Mux(answer.host, self.s_lite_rready, self.s_axi_rready)
        takes = words.o.valid & (~whole | goes)
        m.d.comb += [
            words.i.valid.eq(self.read_valid),
            words.i.payload.eq(self.read_data),
            words.o.ready.eq(takes),
            tags.o.ready.eq(takes),
            self.s_axi_rvalid.eq(whole & ~answer.host),
            self.s_axi_rdata.eq(beat),
            self.s_axi_rlast.eq(answer.last),
            self.s_axi_rresp.eq(Mux(answer.error, DECERR, OKAY)),
            self.s_lite_rvalid.eq(whole & answer.host),
            self.s_lite_rdata.eq(beat.word_select(host_address[2 : self._shift], 32)),
            self.s_lite_rresp.eq(Mux(answer.error, DECERR, OKAY)),
        ]
        with m.If(goes):
            m.d.sync += whole.eq(0)
        with m.If(takes):
            m.d.sync += [
                beat.eq(Cat(beat[_WORD_BITS:], words.o.payload)), whole.eq(tags.o.p.last_word),
                answer.eq(tags.o.p),
            ]  # fmt: skip
        with m.If(self.s_lite_rvalid & self.s_lite_rready):
            m.d.sync += asked.eq(0)
        return side

    def _write(self, m, word):
        """A beat stands in a register while its words go to a FIFO, from which the controller takes them."""
        side = _Side(len(self.s_axi_awaddr) - self._shift, "write")
        active, for_host, strays = Signal(), Signal(), Signal()  # as in `OnChipMemory`
        value, strobes = Signal(self._bus_bits), Signal(self._bus_bits // 8)
        host_address, host_data, host_strobes = Signal(32), Signal(32), Signal(4)
        has_address, has_data, at_work = Signal(), Signal(), Signal()  # until the host's answer is taken
        bursts = Signal(range(_WRITE_BURSTS + 1))  # whose answer is not taken
        entry = data.StructLayout({"data": 16, "strobes": 2, "last": 1, "host": 1, "error": 1})
        m.submodules.write_words = words = StreamFIFO(entry, depth=_WRITE_WORDS)
        m.submodules.answers = answers = StreamFIFO(1, depth=_WRITE_BURSTS)
        last_word, inside = word == self._words - 1, self._is_inside(side.beat)
        ends = side.issues & last_word
        waits = has_address & has_data & ~at_work
        m.d.comb += [
            side.offers.eq(side.wants & words.i.ready),
            words.i.valid.eq(side.issues),
            words.i.p.data.eq(value[:_WORD_BITS]),
            words.i.p.strobes.eq(Mux(inside, strobes[: _WORD_BITS // 8], 0)),
            words.i.p.last.eq(last_word & side.last),
            words.i.p.host.eq(for_host),
            words.i.p.error.eq(strays | ~inside),
            self.s_axi_awready.eq(~active & ~waits & (bursts != _WRITE_BURSTS)),
            self.s_axi_wready.eq(active & ~for_host & (~side.wants | (ends & ~side.last))),
            self.s_lite_awready.eq(~has_address),
            self.s_lite_wready.eq(~has_data),
        ]
        with m.If(side.issues):
            m.d.sync += [
                value.eq(value >> _WORD_BITS), strobes.eq(strobes >> (_WORD_BITS // 8))
            ]  # fmt: skip
        with m.If(ends):
            m.d.sync += [
                side.wants.eq(0), side.beat.eq(side.beat + 1), strays.eq(strays | ~inside),
                active.eq(~side.last),
            ]  # fmt: skip
        with m.If(self.s_axi_wvalid & self.s_axi_wready):
            m.d.sync += [
                side.wants.eq(1), value.eq(self.s_axi_wdata), strobes.eq(self.s_axi_wstrb),
                side.last.eq(self.s_axi_wlast),
            ]  # fmt: skip
        with m.If(waits & ~active):
            m.d.sync += [
                active.eq(1), for_host.eq(1), strays.eq(0), side.beat.eq(host_address[self._shift :]),
                side.wants.eq(1), side.last.eq(1), value.eq(host_data.replicate(self._bus_bits // 32)),
                strobes.eq(0), strobes.word_select(host_address[2 : self._shift], 4).eq(host_strobes),
                at_work.eq(1),
            ]  # fmt: skip
        with m.If(self.s_axi_awvalid & self.s_axi_awready):
            m.d.sync += [
                active.eq(1), for_host.eq(0), strays.eq(0), side.beat.eq(self.s_axi_awaddr[self._shift :])
            ]  # fmt: skip
        with m.If(self.s_lite_awvalid & ~has_address):
            m.d.sync += [has_address.eq(1), host_address.eq(self.s_lite_awaddr)]
        with m.If(self.s_lite_wvalid & ~has_data):
            m.d.sync += [
                has_data.eq(1), host_data.eq(self.s_lite_wdata), host_strobes.eq(self.s_lite_wstrb)
            ]  # fmt: skip

        done = self.write_taken & words.o.p.last
        m.d.comb += [
            self.write_data.eq(words.o.p.data),
            self.write_strobes.eq(words.o.p.strobes),
            words.o.ready.eq(self.write_taken),
            answers.i.valid.eq(done & ~words.o.p.host),
            answers.i.payload.eq(words.o.p.error),
            answers.o.ready.eq(self.s_axi_bready),
            self.s_axi_bvalid.eq(answers.o.valid),
            self.s_axi_bresp.eq(Mux(answers.o.payload, DECERR, OKAY)),
        ]
        begun, over = self.s_axi_awvalid & self.s_axi_awready, self.s_axi_bvalid & self.s_axi_bready
        m.d.sync += bursts.eq(bursts + begun - over)
        with m.If(self.s_lite_bvalid & self.s_lite_bready):
            m.d.sync += [self.s_lite_bvalid.eq(0), has_address.eq(0), has_data.eq(0), at_work.eq(0)]
        with m.If(done & words.o.p.host):
            m.d.sync += [
                self.s_lite_bvalid.eq(1), self.s_lite_bresp.eq(Mux(words.o.p.error, DECERR, OKAY))
            ]  # fmt: skip
        return side


class _Side:
    """A direction: ``wants`` while a beat of it is there to be issued, and ``offers`` if there is room for
    its word; ``issues`` in the cycle in which the word's command is taken. ``last`` is of the burst's beats.
    """

    def __init__(self, beat_bits, name):
        self.wants, self.offers, self.issues, self.last = (
            Signal(name=f"{name}_{part}") for part in ("wants", "offers", "issues", "last")
        )
        self.beat = Signal(beat_bits, name=f"{name}_beat")
