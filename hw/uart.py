"""UART: bytes to and from a serial line of 8 data bits, no parity, one stop bit (8N1)."""

from amaranth import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

__all__ = ["UartReceiver", "UartTransmitter"]


class UartReceiver(wiring.Component):
    """Bytes from the line, the lowest bit first. Each bit is sampled once, in its middle.

    Parameters
    ----------
    clocks : cycles of a bit, 4 or more.

    Members
    -------
    rx : in; the line, high when idle. It need not be synchronous.
    octet : out; the byte, while ``valid`` is high.
    valid : out; high for a cycle at a byte whose stop bit is high.
    failed : out; high for a cycle at one whose stop bit is low; the receiver then waits for a high line.

    A low line that is high again in the middle of the start bit is no byte.
    Latency: ``valid`` comes in the middle of the stop bit, and 3 cycles. Flow control: none.
    Tested range: clocks 4..25, the sender's bits 2 % shorter or longer.
    """

    def __init__(self, *, clocks):
        self.parameters = {"clocks": clocks}
        self._clocks = clocks
        super().__init__({"rx": In(1), "octet": Out(8), "valid": Out(1), "failed": Out(1)})

    def elaborate(self, platform):
        m = Module()
        line = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.rx, line, init=1)

        timer = Signal(range(self._clocks))
        sampled = Signal()
        bits = Signal(range(10))  # samples behind the start bit's
        m.d.comb += sampled.eq(timer == 0)
        m.d.sync += [timer.eq(timer - 1), self.valid.eq(0), self.failed.eq(0)]
        with m.If(sampled):
            m.d.sync += timer.eq(self._clocks - 1)

        with m.FSM():
            with m.State("IDLE"):
                # One cycle has passed when this is seen, and one passes before the timer runs.
                m.d.sync += timer.eq((self._clocks - 1) // 2 - 1)
                with m.If(~line):
                    m.next = "START"
            with m.State("START"):
                m.d.sync += bits.eq(0)
                with m.If(sampled & line):
                    m.next = "IDLE"
                with m.Elif(sampled):
                    m.next = "BITS"
            with m.State("BITS"):
                with m.If(sampled):
                    m.d.sync += bits.eq(bits + 1)
                    with m.If(bits != 8):
                        m.d.sync += self.octet.eq(Cat(self.octet[1:], line))
                    with m.Else():
                        m.d.sync += [self.valid.eq(line), self.failed.eq(~line)]
                        with m.If(line):
                            m.next = "IDLE"
                        with m.Else():
                            m.next = "BREAK"
            with m.State("BREAK"):
                with m.If(line):
                    m.next = "IDLE"
        return m


class UartTransmitter(wiring.Component):
    """Bytes to the line, the lowest bit first.

    Parameters
    ----------
    clocks : cycles of a bit, 2 or more.

    Members
    -------
    octets : stream in.
    tx : out; the line, high when idle. A register.

    Latency: 1 cycle from an accepted byte to its start bit. Throughput: a byte in ``10 * clocks`` cycles.
    Flow control: ready when the stop bit of the byte before ends.
    Tested range: clocks 4..25.
    """

    def __init__(self, *, clocks):
        self.parameters = {"clocks": clocks}
        self._clocks = clocks
        super().__init__({"octets": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        timer = Signal(range(self._clocks))
        bits = Signal(range(11))  # of the byte, still to be sent: the one on the line included
        shift = Signal(8)
        m.d.comb += self.octets.ready.eq((bits == 0) | ((bits == 1) & (timer == 0)))
        m.d.sync += timer.eq(timer - 1)
        with m.If((timer == 0) & (bits != 0)):
            m.d.sync += [
                timer.eq(self._clocks - 1), bits.eq(bits - 1), Cat(self.tx, shift).eq(Cat(shift, 1))
            ]  # fmt: skip
        with m.If(self.octets.ready & self.octets.valid):
            m.d.sync += [
                timer.eq(self._clocks - 1), bits.eq(10), self.tx.eq(0), shift.eq(self.octets.payload)
            ]  # fmt: skip
        return m
