"""Bench of hw/stream_fifo.py: order, level, both ends full and empty, a payload a cycle, reset."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from amaranth.lib import data
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.hw.stream_fifo import StreamFIFO
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, Source, quiet, reset, start

CASES = [
    {"depth": 8, "width": 18},
    {"depth": 2, "width": 1},
    {"depth": 3, "width": 40},
    {"depth": 5, "width": 2},
    {"depth": 64, "width": 130},
]


def component(p: dict[str, Any]) -> StreamFIFO:
    """Its payload is a struct of two fields, as most are, or of one where there is one bit."""
    layout = data.StructLayout({"flag": 1, **({"number": p["width"] - 1} if p["width"] > 1 else {})})
    return StreamFIFO(layout, depth=p["depth"])


class Bench:
    def __init__(self, dut: Any, *, stall_in: float = 0.0, stall_out: float = 0.0) -> None:
        self.p = parameters()
        self.dut = dut
        self.random = random.Random(cocotb.RANDOM_SEED)
        self.source = Source(dut, "i", self.p["width"], stall=stall_in)
        self.sink = Sink(dut, "o", self.p["width"], stall=stall_out)
        self.expected: list[int] = []
        self._level = cocotb.start_soon(self._watch_level())

    def send(self, count: int) -> None:
        payloads = [self.random.getrandbits(self.p["width"]) for _ in range(count)]
        self.source.send(payloads)
        self.expected += payloads

    async def _watch_level(self) -> None:
        """level, ready and valid follow from what has gone in and come out, in every cycle."""
        dut, level = self.dut, 0
        while True:
            await FallingEdge(dut.clk)
            await ReadOnly()
            assert dut.level.value == level
            assert dut.i__ready.value == (level < self.p["depth"])
            assert dut.o__valid.value == (level > 0)
            level += int(bool(dut.i__valid.value) and bool(dut.i__ready.value))
            level -= int(bool(dut.o__valid.value) and bool(dut.o__ready.value))

    def stop(self) -> None:
        self._level.cancel()
        self.source.stop()
        self.sink.stop()

    async def finish(self) -> None:
        await quiet(self.dut, self.sink, expected=[len(self.expected)], limit=20_000)
        assert self.sink.received == self.expected
        assert self.source.idle
        assert self.dut.level.value == 0


@cocotb.test()
@cocotb.parametrize(stall_in=STALLS, stall_out=STALLS)
async def keeps_the_order(dut: Any, stall_in: float, stall_out: float) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, stall_in=stall_in, stall_out=stall_out)
    bench.send(5 * bench.p["depth"] + 100)
    await bench.finish()


@cocotb.test()
async def fills_and_empties(dut: Any) -> None:
    """`depth` payloads fit while none leaves; then it empties, a payload a cycle; twice."""
    await start(dut, component(parameters()))
    bench = Bench(dut, stall_out=1.0)
    depth = bench.p["depth"]
    for round_ in (0, 1):
        bench.send(depth + 1)
        await ClockCycles(dut.clk, 2 * depth + 5)
        assert bench.source.sent == round_ * (depth + 1) + depth
        assert dut.level.value == depth and dut.i__ready.value == 0
        bench.sink.stall = 0.0
        await ClockCycles(dut.clk, depth + 3)
        await bench.finish()
        bench.sink.stall = 1.0
        await FallingEdge(dut.clk)


@cocotb.test()
async def passes_a_payload_a_cycle(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut)
    bench.send(5 * bench.p["depth"])
    await bench.finish()
    assert bench.source.refused == 0 and bench.sink.refused == 0


@cocotb.test()
async def has_a_latency_of_a_cycle(dut: Any) -> None:
    """What goes in can be seen in the next cycle, and no earlier, although ready waits for it."""
    await start(dut, component(parameters()))
    await FallingEdge(dut.clk)
    dut.o__ready.value = 1
    dut.i__payload.value = 1
    dut.i__valid.value = 1
    await ReadOnly()
    assert dut.o__valid.value == 0
    await FallingEdge(dut.clk)
    dut.i__valid.value = 0
    await ReadOnly()
    assert dut.o__valid.value == 1 and dut.o__payload.value == 1
    await FallingEdge(dut.clk)
    await ReadOnly()
    assert dut.o__valid.value == 0


@cocotb.test()
async def forgets_all_at_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, stall_out=1.0)
    bench.send(2 * bench.p["depth"])
    await ClockCycles(dut.clk, bench.p["depth"] + 3)
    assert dut.level.value == bench.p["depth"]
    bench.stop()
    await reset(dut)
    bench = Bench(dut, stall_in=0.2, stall_out=0.2)
    bench.send(3 * bench.p["depth"])
    await bench.finish()
