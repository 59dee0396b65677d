"""Top of a board's design: the SoC's Verilog with the board's clock, UART, lights and SDRAM."""

from amaranth import ClockDomain, ClockSignal, Elaboratable, Instance, Module, ResetSignal, Signal
from amaranth.build import ResourceError
from amaranth.lib.cdc import ResetSynchronizer
from amaranth.lib.wiring import In

from sliceforge.hw.board_clock import BoardClock
from sliceforge.hw.board_sdram import BoardSdram
from sliceforge.hw.hierarchy import ports_of

__all__ = ["BoardTop"]


class BoardTop(Elaboratable):
    """Elaborated by an `amaranth.build` platform of a board with a UART.

    Parameters
    ----------
    soc : name of the SoC's Verilog module. family, clock_hz : as `BoardClock`'s. row_bits : of the SDRAM's
        chip, if the SoC has one.

    The SoC is in reset until its clock is stable. Lights, where the board has them: the first blinks about
    once a second while the clock runs, the second is the accelerator's interrupt.
    """

    def __init__(self, *, soc, family, clock_hz, row_bits=None):
        self._soc, self._family, self._clock_hz, self._row_bits = soc, family, clock_hz, row_bits

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain()
        m.submodules.clock = clock = BoardClock(
            family=self._family, input_hz=round(platform.default_clk_frequency), output_hz=self._clock_hz,
            delayed=self._row_bits is not None,
        )  # fmt: skip
        m.submodules.reset = ResetSynchronizer(~clock.locked)
        m.d.comb += [
            clock.input.eq(platform.request(platform.default_clk, dir="i").i),
            ClockSignal().eq(clock.output),
        ]
        uart = platform.request("uart")
        lights = [self._light(platform, number) for number in range(2)]
        m.submodules.soc = Instance(
            self._soc,
            i_clk=ClockSignal(),
            i_rst=ResetSignal(),
            i_uart_rx=uart.rx.i,
            o_uart_tx=uart.tx.o,
            o_alive=lights[0],
            o_irq=lights[1],
            **({} if self._row_bits is None else self._sdram(m, platform, clock)),
        )
        return m

    def _sdram(self, m, platform, clock):
        """The SoC's connections to the chip's pins."""
        m.domains.sdram = ClockDomain(reset_less=True)
        pins = platform.request("sdram", dir="-")
        m.submodules.sdram = sdram = BoardSdram(pins=pins, row_bits=self._row_bits)
        m.d.comb += ClockSignal("sdram").eq(clock.delayed)
        return {
            f"{'o' if flow == In else 'i'}_{name.replace('pins', 'sdram')}": value
            for name, value, flow in ports_of(sdram)
        }

    def _light(self, platform, number):
        for name, part in (("led", None), ("rgb_led", "g")):
            try:
                light = platform.request(name, number)
            except ResourceError:
                continue
            return (light if part is None else getattr(light, part)).o
        return Signal(name=f"no_light_{number}")
