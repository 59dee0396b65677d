"""Loop counter: one loop over positions in tiles; loops are cascaded into nests."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["LoopCounter"]


class LoopCounter(wiring.Component):
    """One loop over ``total`` positions in tiles of ``step``: counts up when ``next`` is high.

    Loops are cascaded: the outer loop's ``next`` is the inner one's ``next & last``. Between two registers
    is one subtraction at most, so that nests of loops are no long paths.

    Parameters
    ----------
    width : of total. ``most`` : the largest step.

    Members
    -------
    total : in; positions, 1 or more; only looked at while ``first``. step : in; 1 or more; constant during
        the loop.
    next : in; go on with the next tile. Only when the outputs stand.
    length : out; positions of this tile: ``step``, or what is left in the last one.
    first, last : out; this tile is the first or the last.

    Latency: SETTLES cycles after a change of ``total``, ``step`` or the tile all outputs stand.
    Tested range: width 6..24, step 1..2^27, totals of 1 to 20 steps.
    """

    SETTLES = 2

    def __init__(self, *, width, most):
        self.parameters = {"width": width, "most": most}
        super().__init__(
            {
                "total": In(width),
                "step": In(range(most + 1), init=most),
                "next": In(1),
                "length": Out(range(min(most, (1 << width) - 1) + 1)),
                "first": Out(1, init=1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        rest, left, behind = (Signal.like(self.total, name=name) for name in ("rest", "left", "behind"))
        m.d.sync += [
            left.eq(Mux(self.first, self.total, rest)),
            self.last.eq(left <= self.step),
            behind.eq(left - self.step),
        ]
        m.d.comb += self.length.eq(Mux(self.last, left, self.step))
        with m.If(self.next):
            m.d.sync += [self.first.eq(self.last), rest.eq(behind)]
        return m
