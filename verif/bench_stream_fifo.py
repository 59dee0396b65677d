"""Bench of hw/stream_fifo.py: order, level, both ends full and empty, a payload a cycle, reset."""

from __future__ import annotations

import random
from collections import deque
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
    {"depth": 16, "width": 64, "buffered": True},
    {"depth": 3, "width": 5, "buffered": True},
    {"depth": 4, "width": 1, "buffered": True},
    {"depth": 512, "width": 32, "buffered": True},
]


def component(p: dict[str, Any]) -> StreamFIFO:
    """Its payload is a struct of two fields, as most are, or of one where there is one bit."""
    layout = data.StructLayout({"flag": 1, **({"number": p["width"] - 1} if p["width"] > 1 else {})})
    return StreamFIFO(layout, depth=p["depth"], buffered=p.get("buffered", False))


def latency() -> int:
    """Cycles from the one in which a payload goes in to the first in which it may come out."""
    return 2 if parameters().get("buffered") else 1


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
        dut, entered, left = self.dut, 0, 0
        before = deque([0] * latency(), maxlen=latency())  # what had entered by the end of each cycle
        while True:
            await FallingEdge(dut.clk)
            await ReadOnly()
            assert dut.level.value == entered - left
            assert dut.i__ready.value == (entered - left < self.p["depth"])
            assert dut.o__valid.value == (before[0] > left)
            entered += int(bool(dut.i__valid.value) and bool(dut.i__ready.value))
            left += int(bool(dut.o__valid.value) and bool(dut.o__ready.value))
            before.append(entered)

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
    bench.send(min(5 * bench.p["depth"], 600) + 100)  # more than fit
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
async def has_the_latency_that_it_documents(dut: Any) -> None:
    """What goes in can be seen so many cycles later, and no earlier, although ready waits for it."""
    await start(dut, component(parameters()))
    await FallingEdge(dut.clk)
    dut.o__ready.value = 1
    dut.i__payload.value = 1
    dut.i__valid.value = 1
    for _ in range(latency()):
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
