"""Registers: the AXI4-Lite slave with the register map of gen/registers.py."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sliceforge.gen.registers import REGISTER_SPACE, Access
from sliceforge.hw.axi import OKAY, SLVERR, axi_lite_slave

__all__ = ["Registers", "port_name"]


def port_name(register, field):
    """The member for a field: the register's name, and the field's where there are several."""
    return (register.name if field.name == "VALUE" else f"{register.name}_{field.name}").lower()


class Registers(wiring.Component):
    """Registers of 32 bits on AXI4-Lite, one access at a time.

    Parameters
    ----------
    registers : tuple of `sliceforge.gen.registers.Register`.

    Members
    -------
    s_axi_* : the bus. All outputs are registers, or follow from one alone.
    For each field a member by `port_name`: CONTROL fields out; PULSE fields out, high for a cycle; STATUS
    fields in; STICKY fields out, and in ``set_...``. CONSTANT fields have none.

    A write without strobe for a byte leaves that byte's fields. Answered SLVERR, without effect: unmapped
    addresses, writes of registers that have no field to write, CONTROL.START while STATUS.BUSY.
    The two lowest bits of an address do not matter.
    Latency: to the answer 1 cycle from a read's address, 2 from a write's address and data. Flow control:
    valid/ready; a write may come while the answer of the one before it waits, and acts after that.
    """

    def __init__(self, *, registers):
        self.parameters = {"registers": registers}
        members = axi_lite_slave("s_axi", (REGISTER_SPACE - 1).bit_length())
        for register in registers:
            for field in register.fields:
                name = port_name(register, field)
                if field.access in (Access.CONTROL, Access.PULSE, Access.STICKY):
                    members[name] = Out(field.width, init=field.reset)
                if field.access == Access.STATUS:
                    members[name] = In(field.width)
                if field.access == Access.STICKY:
                    members[f"set_{name}"] = In(field.width)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        self._read(m)
        self._write(m)
        return m

    def _read(self, m):
        m.d.comb += self.s_axi_arready.eq(~self.s_axi_rvalid)
        with m.If(self.s_axi_rready):
            m.d.sync += self.s_axi_rvalid.eq(0)
        with m.If(self.s_axi_arvalid & self.s_axi_arready):
            m.d.sync += [self.s_axi_rvalid.eq(1), self.s_axi_rdata.eq(0), self.s_axi_rresp.eq(SLVERR)]
            with m.Switch(self.s_axi_araddr[2:]):
                for register in self.parameters["registers"]:
                    with m.Case(register.offset // 4):
                        m.d.sync += self.s_axi_rresp.eq(OKAY)
                        for field in register.fields:
                            m.d.sync += self.s_axi_rdata[field.lsb : field.lsb + field.width].eq(
                                self._value(register, field)
                            )

    def _value(self, register, field):
        """What the field reads as."""
        if field.access == Access.CONSTANT:
            return field.reset
        if field.access == Access.PULSE:
            return 0
        return getattr(self, port_name(register, field))

    def _write(self, m):
        address, bits, strobes = Signal.like(self.s_axi_awaddr), Signal(32), Signal(4)
        has_address, has_data, acts = Signal(), Signal(), Signal()
        m.d.comb += [
            self.s_axi_awready.eq(~has_address),
            self.s_axi_wready.eq(~has_data),
            acts.eq(has_address & has_data & ~self.s_axi_bvalid),
        ]
        with m.If(self.s_axi_awvalid & ~has_address):
            m.d.sync += [has_address.eq(1), address.eq(self.s_axi_awaddr)]
        with m.If(self.s_axi_wvalid & ~has_data):
            m.d.sync += [has_data.eq(1), bits.eq(self.s_axi_wdata), strobes.eq(self.s_axi_wstrb)]
        with m.If(self.s_axi_bready):
            m.d.sync += self.s_axi_bvalid.eq(0)
        with m.If(acts):
            m.d.sync += [
                has_address.eq(0), has_data.eq(0), self.s_axi_bvalid.eq(1), self.s_axi_bresp.eq(SLVERR)
            ]  # fmt: skip

        mask = Signal(32)
        m.d.comb += [mask[8 * byte : 8 * byte + 8].eq(strobes[byte].replicate(8)) for byte in range(4)]
        for register in self.parameters["registers"]:
            here = Signal(name=f"writes_{register.name.lower()}")
            m.d.comb += here.eq(acts & (address[2:] == register.offset // 4))
            for field in register.fields:
                if field.access in (Access.CONTROL, Access.PULSE, Access.STICKY):
                    self._write_field(m, register, field, here, bits, mask)
                    with m.If(here):
                        m.d.sync += self.s_axi_bresp.eq(OKAY)
            if register.name == "CONTROL":
                with m.If(here & self._refuses_start(register, bits, mask)):
                    m.d.sync += self.s_axi_bresp.eq(SLVERR)

    def _refuses_start(self, control, bits, mask):
        start = control.field("START")
        return (bits & mask)[start.lsb] & self.status_busy

    def _write_field(self, m, register, field, here, bits, mask):
        port = getattr(self, port_name(register, field))
        span = slice(field.lsb, field.lsb + field.width)
        if field.access == Access.CONTROL:
            with m.If(here):
                m.d.sync += port.eq((port & ~mask[span]) | (bits[span] & mask[span]))
        elif field.access == Access.PULSE:
            m.d.sync += port.eq(0)
            allowed = ~self._refuses_start(register, bits, mask) if register.name == "CONTROL" else 1
            with m.If(here & allowed):
                m.d.sync += port.eq(bits[span] & mask[span])
        else:
            # What is set in the cycle in which it is cleared stays set: no event is lost.
            cleared = Signal.like(port, name=f"clear_{port.name}")
            with m.If(here):
                m.d.comb += cleared.eq(bits[span] & mask[span])
            m.d.sync += port.eq((port & ~cleared) | getattr(self, f"set_{port_name(register, field)}"))
