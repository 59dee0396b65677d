"""Top of a board's design: the SoC's Verilog with the board's clock, UART and lights."""

from amaranth import ClockDomain, ClockSignal, Elaboratable, Instance, Module, ResetSignal, Signal
from amaranth.build import ResourceError
from amaranth.lib.cdc import ResetSynchronizer

from sliceforge.hw.board_clock import BoardClock

__all__ = ["BoardTop"]


class BoardTop(Elaboratable):
    """Elaborated by an `amaranth.build` platform of a board with a UART.

    Parameters
    ----------
    soc : name of the SoC's Verilog module. family, clock_hz : as `BoardClock`'s.

    The SoC is in reset until its clock is stable. Lights, where the board has them: the first blinks about
    once a second while the clock runs, the second is the accelerator's interrupt.
    """

    def __init__(self, *, soc, family, clock_hz):
        self._soc, self._family, self._clock_hz = soc, family, clock_hz

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain()
        m.submodules.clock = clock = BoardClock(
            family=self._family, input_hz=round(platform.default_clk_frequency), output_hz=self._clock_hz
        )
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
        )
        return m

    def _light(self, platform, number):
        for name, part in (("led", None), ("rgb_led", "g")):
            try:
                light = platform.request(name, number)
            except ResourceError:
                continue
            return (light if part is None else getattr(light, part)).o
        return Signal(name=f"no_light_{number}")
