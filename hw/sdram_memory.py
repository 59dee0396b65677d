# amaranth: UnusedElaboratable=no
# (a block that is placed as an instance of a shared module only lends its ports)
"""SDRAM memory: a board's SDR SDRAM that the accelerator reaches over AXI4 and the host over AXI4-Lite."""

from amaranth import ClockDomain, ClockSignal, Instance, Module, Mux, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.axi import axi_lite_slave, axi_read_master, axi_write_master, connect_ports, other_side
from sliceforge.hw.hierarchy import place
from sliceforge.hw.sdram_start import SdramStart
from sliceforge.hw.sdram_words import SdramWords

__all__ = ["SdramMemory", "sdram_pins"]


def sdram_pins(prefix, row_bits):
    """Members for the registers of an SDRAM's pins; the masks and all commands are active high."""
    return {
        f"{prefix}_{name}": flow(width)
        for name, flow, width in (
            ("ras", Out, 1), ("cas", Out, 1), ("we", Out, 1), ("bank", Out, 2), ("address", Out, row_bits),
            ("mask", Out, 2), ("write_data", Out, 16), ("write_enable", Out, 1), ("read_data", In, 16),
        )
    }  # fmt: skip


class SdramMemory(wiring.Component):
    """All of an SDRAM's bytes from address MEMORY_BASE on; everything else is answered with DECERR. Wiring
    only: the bus (`SdramWords`), LiteDRAM's controller, and the power-up sequence (`SdramStart`).

    Parameters
    ----------
    controller : name of the Verilog module that gen/sdram.py makes. start : `SdramStart`'s parameters without
        the address's. word_address_bits, row_bits : of the chip. bus_bits, address_bits : of the AXI4 slave.

    Members
    -------
    s_axi_*, s_lite_* : as `SdramWords`'s.
    restart : in; resets all but the chip's power-up pause. What a write wrote that was answered before stays.
    pins_* : to the pins' registers (`sdram_pins`), which add a cycle each way. The chip's clock is behind
        theirs by less than a cycle; CS is low and CKE high all the time.

    Latency: 12 + bus_bits / 16 cycles from a read's address to its first beat if its row is open, up to 20
    more for a refresh. Nothing is answered before the power-up sequence is over, 200 us behind a reset.
    Throughput: a word of 16 bits a cycle. Flow control: valid/ready.
    Tested range: bus_bits 32..512, address_bits 32..64, with the chip of the ULX3S at 50 MHz.
    """

    def __init__(self, *, controller, start, word_address_bits, row_bits, bus_bits, address_bits):
        self._controller = controller
        self._start = {**start, "address_bits": row_bits}
        self._words = {
            "word_address_bits": word_address_bits, "bus_bits": bus_bits, "address_bits": address_bits
        }  # fmt: skip
        self.parameters = {
            "controller": controller, "start": start, "row_bits": row_bits, **self._words
        }  # fmt: skip
        self._buses = {
            **other_side(axi_read_master("s_axi", address_bits, bus_bits)),
            **other_side(axi_write_master("s_axi", address_bits, bus_bits)),
            **axi_lite_slave("s_lite", 32),
        }
        super().__init__({**self._buses, "restart": In(1), **sdram_pins("pins", row_bits)})

    def elaborate(self, platform):
        m = Module()
        m.domains.bus = bus_domain = ClockDomain(local=True)
        start, words = SdramStart(**self._start), SdramWords(**self._words)
        m.submodules.start = place(platform, start, "sdram_start")
        m.submodules.words = place(platform, words, "sdram_words", domain="bus")
        connect_ports(m, self, words, self._buses)
        m.d.comb += [
            ClockSignal("bus").eq(ClockSignal()),
            bus_domain.rst.eq(ResetSignal() | self.restart),
            start.again.eq(self.restart),
        ]

        ready = Signal()  # the controller's: it would take commands while it is reset, too
        dfi = {name: Signal(name=f"dfi_{name}") for name in ("ras_n", "cas_n", "we_n")}
        address, write_mask = Signal.like(self.pins_address), Signal(2)
        m.submodules.controller = Instance(
            self._controller,
            i_sys_clk=ClockSignal(),
            i_sys_rst=ResetSignal("bus") | ~start.ready,
            i_command_valid=words.commands.valid & start.ready,
            o_command_ready=ready,
            i_command_write=words.commands.p.write,
            i_command_address=words.commands.p.address,
            o_write_taken=words.write_taken,
            i_write_data=words.write_data,
            i_write_strobes=words.write_strobes,
            o_read_valid=words.read_valid,
            o_read_data=words.read_data,
            **{f"o_dfi_{name}": signal for name, signal in dfi.items()},
            o_dfi_bank=self.pins_bank,
            o_dfi_address=address,
            o_dfi_write_data=self.pins_write_data,
            o_dfi_write_enable=self.pins_write_enable,
            o_dfi_write_mask=write_mask,
            i_dfi_read_data=self.pins_read_data,
        )
        m.d.comb += [
            words.commands.ready.eq(ready & start.ready),
            self.pins_mask.eq(write_mask & self.pins_write_enable.replicate(2)),
            self.pins_ras.eq(Mux(start.ready, ~dfi["ras_n"], start.ras)),
            self.pins_cas.eq(Mux(start.ready, ~dfi["cas_n"], start.cas)),
            self.pins_we.eq(Mux(start.ready, ~dfi["we_n"], start.we)),
            self.pins_address.eq(Mux(start.ready, address, start.address)),
        ]
        return m
