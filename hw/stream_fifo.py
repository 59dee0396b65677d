"""A FIFO between two streams: those of `amaranth.lib.fifo` with ports that keep the payload's shape."""

from amaranth import Module, Shape
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

__all__ = ["StreamFIFO"]


class StreamFIFO(wiring.Component):
    """First in, first out; `depth` payloads of `shape`.

    buffered: the RAM's read is registered, as block RAM needs it; for large depths, 3 or more.

    Members: ``i`` stream in, ``o`` stream out, ``level`` out: payloads inside.
    Latency: 1 cycle from ``i`` to ``o``, 2 if buffered. Throughput: a payload a cycle.
    Flow control: ``i.ready`` follows from ``level`` alone, and so does ``o.valid`` if not buffered.
    Tested range: depth 2..64, buffered 3..512.
    """

    def __init__(self, shape, *, depth, buffered=False):
        self._width = Shape.cast(shape).width
        self._depth = depth
        self._kind = SyncFIFOBuffered if buffered else SyncFIFO
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "level": Out(range(depth + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = fifo = self._kind(width=self._width, depth=self._depth)
        m.d.comb += [
            fifo.w_data.eq(self.i.payload),
            fifo.w_en.eq(self.i.valid),
            self.i.ready.eq(fifo.w_rdy),
            self.o.payload.eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
            self.level.eq(fifo.level),
        ]
        return m
