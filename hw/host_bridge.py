"""Host bridge: executes the host link's requests as accesses on AXI4-Lite, and answers them."""

from amaranth import Array, C, Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sliceforge.gen.host_link import MOST_WORDS, RESPONSE, Operation, Status
from sliceforge.hw.axi import OKAY, axi_lite_slave, other_side
from sliceforge.hw.frame_receiver import request_layout
from sliceforge.hw.frame_sender import frame_word_layout

__all__ = ["HostBridge"]

_RESET_CYCLES = 4


class HostBridge(wiring.Component):
    """One request at a time: checks it, makes its accesses one after the other, answers it.

    The words of a WRITE stand in a buffer before the request is on offer, those of a READ before it is
    answered: only then is it known that all accesses went well. A WRITE or RESET with the tag of the request
    that was last executed is not executed again, and has its status. BAD_REQUEST is no execution.

    Parameters
    ----------
    hello : words of a HELLO's answer. timeout : cycles after which an access without answer is given up.

    Members
    -------
    requests : stream in; taken when the answer's last word is. word, word_index, word_valid : in; as from
        `FrameReceiver`.
    words : stream out; the answer.
    m_axi_* : AXI4-Lite master, 32 bits of address and data. One access at a time; its address stands on both
        address channels until it is answered. All outputs are registers, or follow from registers and from
        ``requests``.
    irq : in; the answer's flag. reset_bus : out; high while all on the bus is to be reset: an access that
        was given up ends with it.

    Latency: 3 cycles from a request to its first access; the slave's, and 3 cycles, for each word; 2 from the
    last one to the answer, 2 more to its first word read, 3 from word to word. Flow control: valid/ready.
    """

    def __init__(self, *, hello, timeout):
        self.parameters = {"hello": hello, "timeout": timeout}
        super().__init__(
            {
                "requests": In(stream.Signature(request_layout())),
                "word": In(32),
                "word_index": In(range(MOST_WORDS)),
                "word_valid": In(1),
                "words": Out(stream.Signature(frame_word_layout())),
                **other_side(axi_lite_slave("m_axi", 32)),
                "irq": In(1),
                "reset_bus": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.buffer = buffer = Memory(shape=32, depth=MOST_WORDS, init=[])
        store, fetch = buffer.write_port(), buffer.read_port()

        request = self.requests.p
        # Registers: they stand from the cycle after a request comes, in state BEGIN, on.
        is_hello, reads, writes, resets = kinds = [
            Signal(name=name) for name in ("is_hello", "reads", "writes", "resets")
        ]
        is_kind = [
            request.operation == operation
            for operation in (Operation.HELLO, Operation.READ, Operation.WRITE, Operation.RESET)
        ]
        m.d.sync += [kind.eq(here) for kind, here in zip(kinds, is_kind, strict=True)]
        status = Signal(Status)
        seen, last_tag, last_status = Signal(), Signal(8), Signal(Status)  # of what was executed
        stuck = Signal()  # an access was given up
        bad, again = Signal(), Signal()  # the request is none; it was executed
        word = Signal(32)  # of the answer
        index, last = Signal(range(MOST_WORDS)), Signal(range(MOST_WORDS))  # of the word that is moved
        is_last = Signal()
        address = Signal(32)
        timer = Signal(range(max(self.parameters["timeout"], _RESET_CYCLES)))
        answered, failed = Signal(), Signal()
        m.d.comb += [
            is_last.eq(index == last),
            self.m_axi_araddr.eq(address),
            self.m_axi_awaddr.eq(address),
            self.m_axi_wstrb.eq(0b1111),
            answered.eq(Mux(writes, self.m_axi_bvalid, self.m_axi_rvalid)),
            failed.eq(Mux(writes, self.m_axi_bresp, self.m_axi_rresp) != OKAY),
            fetch.addr.eq(index),
            store.addr.eq(Mux(self.word_valid, self.word_index, index)),
            store.data.eq(Mux(self.word_valid, self.word, self.m_axi_rdata)),
            store.en.eq(self.word_valid | (self.m_axi_rvalid & self.m_axi_rready)),
        ]
        for channel in ("ar", "aw", "w"):
            with m.If(getattr(self, f"m_axi_{channel}ready")):
                m.d.sync += getattr(self, f"m_axi_{channel}valid").eq(0)
        m.d.sync += self.reset_bus.eq(0)

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [index.eq(0), timer.eq(0), status.eq(Status.OK)]
                m.d.sync += [
                    bad.eq(self._is_bad(request, *is_kind)),
                    again.eq((is_kind[2] | is_kind[3]) & seen & (request.tag == last_tag)),
                    last.eq(Mux(is_kind[0], len(self.parameters["hello"]), request.count) - 1),
                ]
                with m.If(self.requests.valid):
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                m.next = "ANSWER"
                with m.If(bad):
                    m.d.sync += status.eq(Status.BAD_REQUEST)
                with m.Elif(again):
                    m.d.sync += status.eq(last_status)
                with m.Elif(stuck & (reads | writes)):
                    m.d.sync += status.eq(Status.BUS_TIMEOUT)
                with m.Elif(reads | writes):
                    m.d.sync += address.eq(request.address)  # and not while an access is stuck
                    m.next = "ACCESS"
                with m.Elif(resets):
                    m.next = "RESET"

            with m.State("FETCH"):
                m.next = "ACCESS"
            with m.State("ACCESS"):
                m.d.sync += [
                    self.m_axi_arvalid.eq(reads), self.m_axi_awvalid.eq(writes), self.m_axi_wvalid.eq(writes),
                    self.m_axi_wdata.eq(fetch.data), timer.eq(0),
                ]  # fmt: skip
                m.next = "WAIT"
            with m.State("WAIT"):
                m.d.comb += [self.m_axi_rready.eq(reads), self.m_axi_bready.eq(writes)]
                m.d.sync += timer.eq(timer + 1)
                with m.If(answered):
                    m.d.sync += [index.eq(index + 1), address.eq(address + 4)]
                    m.next = "FETCH"
                    with m.If(failed):
                        m.d.sync += status.eq(Status.SLAVE_ERROR)
                    with m.If(failed | is_last):
                        m.next = "ANSWER"
                with m.Elif(timer == self.parameters["timeout"] - 1):
                    m.d.sync += [status.eq(Status.BUS_TIMEOUT), stuck.eq(1)]
                    m.next = "ANSWER"

            with m.State("RESET"):
                m.d.sync += [
                    self.reset_bus.eq(1), timer.eq(timer + 1), stuck.eq(0), self.m_axi_arvalid.eq(0),
                    self.m_axi_awvalid.eq(0), self.m_axi_wvalid.eq(0),
                ]  # fmt: skip
                with m.If(timer == _RESET_CYCLES - 1):
                    m.next = "ANSWER"

            with m.State("ANSWER"):
                header = Signal(32)
                m.d.sync += [
                    index.eq(0),
                    header.eq(Cat(request.tag, request.operation | RESPONSE, status, C(0, 6), self.irq)),
                ]
                with m.If(status != Status.BAD_REQUEST):
                    m.d.sync += [seen.eq(1), last_tag.eq(request.tag), last_status.eq(status)]
                m.next = "SEND-HEADER"
            with m.State("SEND-HEADER"):
                m.d.comb += [
                    self.words.valid.eq(1),
                    self.words.p.word.eq(header),
                    self.words.p.last.eq((status != Status.OK) | ~(is_hello | reads)),
                ]
                with m.If(self.words.ready):
                    m.next = "HOLD-WORD"
                    with m.If(self.words.p.last):
                        m.next = "IDLE"
            with m.State("HOLD-WORD"):  # the RAM's output is late in its cycle
                hello = Array(C(word, 32) for word in self.parameters["hello"])
                m.d.sync += word.eq(Mux(is_hello, hello[index], fetch.data))
                m.next = "SEND-WORD"
            with m.State("SEND-WORD"):
                m.d.comb += [
                    self.words.valid.eq(1),
                    self.words.p.word.eq(word),
                    self.words.p.last.eq(is_last),
                ]
                with m.If(self.words.ready):
                    m.d.sync += index.eq(index + 1)
                    m.next = "FETCH-WORD"
                    with m.If(is_last):
                        m.next = "IDLE"
            with m.State("FETCH-WORD"):
                m.next = "HOLD-WORD"

        m.d.comb += self.requests.ready.eq(self.words.valid & self.words.ready & self.words.p.last)
        return m

    def _is_bad(self, request, is_hello, reads, writes, resets):
        """No known operation, or count, length or address are not as it has them."""
        moves, count = reads | writes, request.count
        return (
            ~(is_hello | moves | resets)
            | (request.address[:2] != 0)
            | Mux(moves, (count == 0) | (count > MOST_WORDS), count != 0)
            | (request.bytes != Mux(writes, count << 2, 0))
        )
