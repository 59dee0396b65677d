"""SDRAM pins of a board: their registers, in the FPGA's pin cells, and the chip's clock."""

from amaranth import Module
from amaranth.lib import io, wiring

from sliceforge.hw.axi import other_side
from sliceforge.hw.sdram_memory import sdram_pins

__all__ = ["BoardSdram"]


class BoardSdram(wiring.Component):
    """A register at each pin of the platform's resource "sdram", as `SdramMemory` wants them.

    Parameters
    ----------
    pins : the resource, requested with ``dir="-"``. row_bits : of the chip.

    Members
    -------
    pins_* : the other side of `sdram_pins`. Domains: sync, and sdram, of which only the clock matters: the
        chip has it, through a register of the same kind as the pins', so that both are as late.

    The chip's clock is a quarter of a period behind (`BoardClock`). At 50 MHz its inputs have then stood for
    5 ns, and stay for 15. What it reads out comes tAC (6 ns at most) behind its edge, and the register takes
    it 15 ns behind that edge: 9 ns are left for the delays of the pins, there and back.

    Tested range: none. The pins' cells are the maker's, and not simulated: sim/sdram_chip.v has a register
    in their place, and the order of the edges.
    """

    def __init__(self, *, pins, row_bits):
        self._pins = pins
        super().__init__(other_side(sdram_pins("pins", row_bits)))

    def elaborate(self, platform):
        m = Module()
        pins = self._pins
        for name, port, signal in (
            ("ras", pins.ras, self.pins_ras),
            ("cas", pins.cas, self.pins_cas),
            ("we", pins.we, self.pins_we),
            ("bank", pins.ba, self.pins_bank),
            ("address", pins.a, self.pins_address),
            ("mask", pins.dqm, self.pins_mask),
        ):
            m.submodules[name] = register = io.FFBuffer("o", port)
            m.d.comb += register.o.eq(signal)
        for name, port in (("select", pins.cs), ("clock_enable", pins.clk_en)):
            m.submodules[name] = constant = io.Buffer("o", port)
            m.d.comb += constant.o.eq(1)
        m.submodules.data = data = io.FFBuffer("io", pins.dq)
        m.submodules.clock = clock = io.DDRBuffer("o", pins.clk, o_domain="sdram")
        m.d.comb += [
            data.o.eq(self.pins_write_data),
            data.oe.eq(self.pins_write_enable),
            self.pins_read_data.eq(data.i),
            clock.o[0].eq(1),
            clock.o[1].eq(0),
        ]
        return m
