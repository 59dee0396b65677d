"""Counters: performance counters, all alike."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sliceforge.hw.payloads import COUNTER_BITS

__all__ = ["Counters"]


class Counters(wiring.Component):
    """Adds up an amount for each counter, each cycle.

    Parameters
    ----------
    amounts : dict of each counter's name to the width of its amount.

    Members
    -------
    clear : in; all counters to 0. ``add_{name}`` : in; added in this cycle. ``{name}`` : out.

    Latency: 1 cycle. Counters wrap after COUNTER_BITS bits.
    """

    def __init__(self, *, amounts):
        self.parameters = {"amounts": amounts}
        super().__init__(
            {
                "clear": In(1),
                **{f"add_{name}": In(width) for name, width in amounts.items()},
                **{name: Out(COUNTER_BITS) for name in amounts},
            }
        )

    def elaborate(self, platform):
        m = Module()
        for name in self.parameters["amounts"]:
            counter = getattr(self, name)
            m.d.sync += counter.eq(counter + getattr(self, f"add_{name}"))
            with m.If(self.clear):
                m.d.sync += counter.eq(0)
        return m
