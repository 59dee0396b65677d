"""On-chip memory: block RAM that the accelerator reaches over AXI4 and the host over AXI4-Lite."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory

from sliceforge.gen.host_link import MEMORY_BASE
from sliceforge.hw.axi import DECERR, OKAY, axi_lite_slave, axi_read_master, axi_write_master, other_side

__all__ = ["OnChipMemory"]


class OnChipMemory(wiring.Component):
    """`memory_bytes` bytes from address MEMORY_BASE on; everything else is answered with DECERR.

    A RAM of one write and one read port with byte strobes, as devices have it. Bursts have it first come,
    first served, one at a time in each direction; an access of the host waits for the end of the burst and is
    next. What the RAM holds outlives a reset, and is undefined before it is written.

    Parameters
    ----------
    memory_bytes : at most 2^31, a multiple of the bus's bytes. bus_bits, address_bits : of the AXI4 slave.

    Members
    -------
    s_axi_* : AXI4 slave for incrementing bursts of whole beats, in one order; size, burst, lock, cache and
        prot do not matter. An error answers each beat of a read that is outside, and a write of which any is.
    s_lite_* : AXI4-Lite slave, 32 bits of address and data.

    Latency: 2 cycles from a read's address to its first beat, 1 from a write's last beat to its answer; the
    host's accesses 2 and 2. Throughput: a beat a cycle; a cycle without one between bursts.
    Flow control: valid/ready; each ready is a register or follows from registers.
    Tested range: bus_bits 32..512, address_bits 32..64, 1..64 KiB.
    """

    def __init__(self, *, memory_bytes, bus_bits, address_bits):
        self.parameters = {"memory_bytes": memory_bytes, "bus_bits": bus_bits, "address_bits": address_bits}
        self._bus_bits = bus_bits
        self._shift = (bus_bits // 8).bit_length() - 1
        self._first = MEMORY_BASE >> self._shift
        self._depth = memory_bytes >> self._shift
        super().__init__(
            {
                **other_side(axi_read_master("s_axi", address_bits, bus_bits)),
                **other_side(axi_write_master("s_axi", address_bits, bus_bits)),
                **axi_lite_slave("s_lite", 32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.ram = ram = Memory(
            shape=self._bus_bits, depth=self._depth, init=[], attrs={"uninitialized": 1}
        )
        self._read(m, ram.read_port())
        self._write(m, ram.write_port(granularity=8))
        return m

    def _is_inside(self, beat):
        """MEMORY_BASE is a multiple of any memory's size: a beat's place is in its lowest bits."""
        return (beat >= self._first) & (beat < self._first + self._depth)

    def _split(self, address):
        """The beat that holds a word's address, and which of its words it is."""
        return address[self._shift :], address[2 : self._shift]

    def _read(self, m, port):
        active = Signal()  # a burst is being read
        beat = Signal(len(self.s_axi_araddr) - self._shift)
        left = Signal(8)  # beats behind it
        asked = Signal()  # the host has, and has not taken the answer
        host_address = Signal(32)
        issues, host_issues = Signal(), Signal()
        host_beat, host_word = self._split(host_address)
        m.d.comb += [
            self.s_axi_arready.eq(~active & ~asked),
            self.s_lite_arready.eq(~asked),
            issues.eq(active & (~self.s_axi_rvalid | self.s_axi_rready)),
            # The RAM's output is what both are answered with.
            host_issues.eq(asked & ~active & ~self.s_axi_rvalid & ~self.s_lite_rvalid),
            port.addr.eq(Mux(active, beat, host_beat)[: len(port.addr)]),
            port.en.eq((issues & self._is_inside(beat)) | (host_issues & self._is_inside(host_beat))),
            self.s_axi_rdata.eq(port.data),
            self.s_lite_rdata.eq(port.data.word_select(host_word, 32)),
        ]
        with m.If(self.s_axi_rready):
            m.d.sync += self.s_axi_rvalid.eq(0)
        with m.If(issues):
            m.d.sync += [
                self.s_axi_rvalid.eq(1), self.s_axi_rlast.eq(left == 0),
                self.s_axi_rresp.eq(Mux(self._is_inside(beat), OKAY, DECERR)),
                beat.eq(beat + 1), left.eq(left - 1), active.eq(left != 0),
            ]  # fmt: skip
        with m.If(self.s_axi_arvalid & self.s_axi_arready):
            m.d.sync += [
                active.eq(1), beat.eq(self.s_axi_araddr[self._shift :]), left.eq(self.s_axi_arlen)
            ]  # fmt: skip
        with m.If(self.s_lite_arvalid & ~asked):
            m.d.sync += [asked.eq(1), host_address.eq(self.s_lite_araddr)]
        with m.If(host_issues):
            m.d.sync += [
                self.s_lite_rvalid.eq(1), self.s_lite_rresp.eq(Mux(self._is_inside(host_beat), OKAY, DECERR))
            ]  # fmt: skip
        with m.If(self.s_lite_rvalid & self.s_lite_rready):
            m.d.sync += [self.s_lite_rvalid.eq(0), asked.eq(0)]

    def _write(self, m, port):
        active = Signal()  # a burst is being written
        beat = Signal(len(self.s_axi_awaddr) - self._shift)
        strays = Signal()  # a beat of the burst was outside
        host_address, host_data, host_strobes = Signal(32), Signal(32), Signal(4)
        has_address, has_data, host_writes = Signal(), Signal(), Signal()
        host_beat, host_word = self._split(host_address)
        inside, host_inside = self._is_inside(beat), self._is_inside(host_beat)
        takes = Signal()
        m.d.comb += [
            self.s_axi_awready.eq(~active & ~self.s_axi_bvalid),
            self.s_axi_wready.eq(active),
            takes.eq(active & self.s_axi_wvalid),
            self.s_lite_awready.eq(~has_address),
            self.s_lite_wready.eq(~has_data),
            host_writes.eq(has_address & has_data & ~active & ~self.s_lite_bvalid),
        ]
        with m.If(active):
            m.d.comb += [port.addr.eq(beat[: len(port.addr)]), port.data.eq(self.s_axi_wdata)]
        with m.Else():
            m.d.comb += [
                port.addr.eq(host_beat[: len(port.addr)]),
                port.data.eq(host_data.replicate(self._bus_bits // 32)),
            ]
        with m.If(takes & inside):
            m.d.comb += port.en.eq(self.s_axi_wstrb)
        with m.If(host_writes & host_inside):
            m.d.comb += port.en.word_select(host_word, 4).eq(host_strobes)

        with m.If(self.s_axi_bready):
            m.d.sync += self.s_axi_bvalid.eq(0)
        with m.If(takes):
            m.d.sync += [
                beat.eq(beat + 1), strays.eq(strays | ~inside), active.eq(~self.s_axi_wlast),
                self.s_axi_bvalid.eq(self.s_axi_wlast),
                self.s_axi_bresp.eq(Mux(strays | ~inside, DECERR, OKAY)),
            ]  # fmt: skip
        with m.If(self.s_axi_awvalid & self.s_axi_awready):
            m.d.sync += [active.eq(1), beat.eq(self.s_axi_awaddr[self._shift :]), strays.eq(0)]

        with m.If(self.s_lite_bready):
            m.d.sync += self.s_lite_bvalid.eq(0)
        with m.If(host_writes):
            m.d.sync += [
                has_address.eq(0), has_data.eq(0), self.s_lite_bvalid.eq(1),
                self.s_lite_bresp.eq(Mux(host_inside, OKAY, DECERR)),
            ]  # fmt: skip
        with m.If(self.s_lite_awvalid & ~has_address):
            m.d.sync += [has_address.eq(1), host_address.eq(self.s_lite_awaddr)]
        with m.If(self.s_lite_wvalid & ~has_data):
            m.d.sync += [
                has_data.eq(1), host_data.eq(self.s_lite_wdata), host_strobes.eq(self.s_lite_wstrb)
            ]  # fmt: skip
