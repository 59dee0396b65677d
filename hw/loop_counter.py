"""Loop counter: one loop over positions in tiles; loops are cascaded into nests."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["LoopCounter"]


class LoopCounter(wiring.Component):
    """One loop over ``total`` positions in tiles of ``step``: counts up when ``next`` is high.

    Loops are cascaded: the outer loop's ``next`` is the inner one's ``next & last``.

    Parameters
    ----------
    width : of total. ``most`` : the largest step.

    Members
    -------
    total : in; positions, 1 or more; only looked at while ``first``. step : in; 1 or more; constant during
        the loop.
    next : in; go on with the next tile.
    length : out; positions of this tile: ``step``, or what is left in the last one.
    first, last : out; this tile is the first or the last.

    Latency: 0. Throughput: a tile a cycle. Tested range: width 6..24, step 1..2^27, totals of 1 to 20 steps.
    """

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
        # ``total`` is looked at only at the first tile: one subtraction is all there is between two tiles.
        rest, left = Signal.like(self.total), Signal.like(self.total)
        m.d.comb += [
            left.eq(Mux(self.first, self.total, rest)),
            self.last.eq(left <= self.step),
            self.length.eq(Mux(self.last, left, self.step)),
        ]
        with m.If(self.next):
            m.d.sync += [self.first.eq(self.last), rest.eq(left - self.step)]
        return m
