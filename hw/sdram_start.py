"""SDRAM start: the commands that an SDR SDRAM needs after power-up, before a controller has it."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["SdramStart"]

_COMMANDS = {"precharge": (1, 0, 1), "refresh": (1, 1, 0), "mode": (1, 1, 1)}  # ras, cas, we


class SdramStart(wiring.Component):
    """Waits for ``pause`` cycles after its reset, then sends ``steps``, one after the other, and is ready.

    Parameters
    ----------
    pause : cycles from the reset to the first step. settle : those from ``again`` to it; the chip is powered,
        and commands of the controller may be under way. Both at least 1.
    steps : of (command, address, cycles to the next one): "precharge", "refresh" or "mode".
    address_bits : of the chip's row.

    Members
    -------
    again : in; the sequence is to be sent again. It counts from the last cycle with it; before the first
        step it changes nothing.
    ready : out; high when the last step's cycles are over, low from the cycle behind ``again`` on.
    ras, cas, we, address : out; the command of this cycle, without a meaning while ``ready``. All registers.

    Latency: pause + 1 cycles from the reset to the first step on the outputs; settle + 1 from ``again``.
    Tested range: the sequences of gen/sdram.py, pauses of 1 to 10,050 cycles.
    """

    def __init__(self, *, pause, settle, steps, address_bits):
        self.parameters = {"pause": pause, "settle": settle, "steps": steps, "address_bits": address_bits}
        super().__init__(
            {
                "again": In(1),
                "ready": Out(1),
                "ras": Out(1),
                "cas": Out(1),
                "we": Out(1),
                "address": Out(address_bits),
            }
        )

    def elaborate(self, platform):
        m = Module()
        pause, settle, steps = (self.parameters[name] for name in ("pause", "settle", "steps"))
        timer = Signal(range(max(pause, settle, *(cycles for *_, cycles in steps))), init=pause - 1)
        step = Signal(range(len(steps) + 1))
        powered = Signal()  # the pause is over
        m.d.sync += [self.ras.eq(0), self.cas.eq(0), self.we.eq(0), self.address.eq(0)]
        with m.If(powered & self.again):
            m.d.sync += [timer.eq(settle - 1), step.eq(0), self.ready.eq(0)]
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Else():
            m.d.sync += powered.eq(1)
            with m.Switch(step):
                for number, (command, address, cycles) in enumerate(steps):
                    with m.Case(number):
                        ras, cas, we = _COMMANDS[command]
                        m.d.sync += [
                            self.ras.eq(ras), self.cas.eq(cas), self.we.eq(we), self.address.eq(address),
                            timer.eq(cycles - 1), step.eq(number + 1),
                        ]  # fmt: skip
                with m.Default():
                    m.d.sync += self.ready.eq(1)
        return m
