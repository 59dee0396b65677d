"""Bench of hw/burst_reader.py: every burst and beat of random jobs; memory is modelled here."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.hw.burst_reader import BurstReader
from sliceforge.verif.read_memory import ReadMemory, some_contents, spans
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, Source, quiet, reset, start, to_fields
from sliceforge.verif.tiles import latency

CASES = [
    {"bus_bits": 64, "address_bits": 32, "buffer": 16, "burst": 4},
    {"bus_bits": 32, "address_bits": 40, "buffer": 64, "burst": 16},
    {"bus_bits": 256, "address_bits": 64, "buffer": 128, "burst": 32},
    {"bus_bits": 512, "address_bits": 33, "buffer": 512, "burst": 128},  # 4 KiB are 64 beats
    {"bus_bits": 128, "address_bits": 32, "buffer": 8, "burst": 4},
    {"bus_bits": 512, "address_bits": 48, "buffer": 8, "burst": 1},
    {"bus_bits": 32, "address_bits": 32, "buffer": 32, "burst": 32},
]


def component(p: dict[str, Any]) -> BurstReader:
    return BurstReader(**p)


def block_beats() -> int:
    """Beats of the aligned block that no burst leaves."""
    p = parameters()
    return min(int(p["burst"]), 256, 4096 * 8 // p["bus_bits"])


class Bench:
    """``stall``: share of cycles in which memory takes and gives nothing; ``taker``: of the beats' taker."""

    def __init__(
        self,
        dut: Any,
        *,
        stall: float = 0.0,
        taker: float = 0.0,
        latency: int = 3,
        errors: Collection[int] = (),
    ) -> None:
        p = parameters()
        block = component(p)
        self.dut, self.buffer, self.bytes = dut, p["buffer"], p["bus_bits"] // 8
        self.block = block_beats()
        self.space = (1 << p["address_bits"]) // self.bytes  # beats
        self.rng = random.Random(f"{cocotb.RANDOM_SEED} {stall} {taker} {latency}")
        self.contents = some_contents(p["bus_bits"])
        self.jobs = Source(dut, "jobs", block.jobs.payload.shape(), stall=self.rng.choice(STALLS))
        self.memory = ReadMemory(dut, block, self.contents, latency=latency, stall=stall, errors=errors)
        self.beats = Sink(dut, "beats", block.beats.payload.shape(), stall=taker)
        self.bursts: list[tuple[int, int]] = []
        self.expected: list[dict[str, int]] = []
        self.task = cocotb.start_soon(self.watch_room(block.requests.payload.shape()))

    def add(self, first: int, count: int) -> None:
        """A job of ``count`` beats from beat number ``first`` on; any address in the first beat will do."""
        address = first * self.bytes + self.rng.randrange(self.bytes)
        self.jobs.send([{"address": address, "beats": count}])
        self.bursts += spans(first, count, self.block)
        self.expected += [
            {"data": self.contents(first + i), "last": int(i == count - 1)} for i in range(count)
        ]

    def add_random(self, beats: int) -> None:
        """Jobs of that many beats together, at any place: also at both ends of the space, and of blocks."""
        rng = self.rng
        while beats > 0:
            count = min(beats, rng.choice([1, 1, 2, self.block, rng.randint(1, 4 * self.block + 3)]))
            first = rng.choice([0, rng.randrange(self.space - count), self.space - count])
            if rng.random() < 0.5:
                first -= first % (4096 // self.bytes) - rng.choice([0, -1 % self.block])
            self.add(min(first, self.space - count), count)
            beats -= count

    async def watch_room(self, layout: Any) -> None:
        """What is asked for, and not yet taken, fits the buffer, but for the beat on offer, which has left
        it: from the cycle in which it is offered."""
        dut, asked, taken = self.dut, 0, 0
        while True:
            await FallingEdge(dut.clk)
            await ReadOnly()
            if dut.requests__valid.value == 1 and dut.rst.value == 0:
                count = to_fields(layout, int(dut.requests__payload.value))["last_beat"] + 1
                left = taken + int(dut.beats__valid.value)
                assert asked + count - left <= self.buffer, f"asks for {asked + count} beats, {taken} taken"
                asked += count if dut.requests__ready.value == 1 else 0
            taken += dut.beats__valid.value == 1 and dut.beats__ready.value == 1

    def stop(self) -> None:
        self.task.cancel()
        self.jobs.stop()
        self.memory.stop()
        self.beats.stop()

    async def finish(self, limit: int = 20_000) -> None:
        sinks, counts = (self.beats, self.memory.requests), (len(self.expected), len(self.bursts))
        await quiet(self.dut, *sinks, expected=counts, limit=1 + limit)
        assert self.memory.bursts == self.bursts
        assert self.beats.received == self.expected
        assert self.jobs.idle and self.memory.idle
        assert self.dut.failed.value == 0
        self.stop()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(stall=STALLS, taker=STALLS)
async def reads_jobs(dut: Any, stall: float, taker: float) -> None:
    await start(dut, component(parameters()))
    for latency_ in (1, 3, 50):
        bench = Bench(dut, stall=stall, taker=taker, latency=latency_)
        bench.add_random(100 + bench.buffer // 2)
        await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(latency_=[1, 30])
async def fills_its_buffer_and_waits(dut: Any, latency_: int) -> None:
    """It asks for as many bursts as there is room for, and no more, until beats are taken; one beat is on
    offer, outside of the buffer."""
    await start(dut, component(parameters()))
    bench = Bench(dut, taker=1.0, latency=latency_)
    bench.add(bench.block - 1, 3 * bench.buffer)
    fit = [bench.bursts[0]]
    for burst in bench.bursts[1:]:
        if sum(count for _, count in (*fit, burst)) > bench.buffer + 1:
            break
        fit.append(burst)
    await ClockCycles(dut.clk, 3 * bench.buffer + 200)
    assert bench.memory.bursts == fit and bench.memory.idle
    assert dut.beats__valid.value == 1
    bench.beats.stall = 0.5
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(late=[False, True])
async def gives_a_beat_a_cycle(dut: Any, late: bool) -> None:
    """With a memory that answers at once, or ``late``, but no later than the buffer's reach.

    While a block's worth of room gathers, the beats before it must last: for a cycle in which the room is
    counted, the request's, the memory's, and 2 of the buffer. Bursts of a beat come every other cycle.
    """
    await start(dut, component(parameters()))
    reach = parameters()["buffer"] - block_beats() - 3
    if reach < 1:
        return
    bench = Bench(dut, latency=reach if late else 1)
    bench.jobs.stall = 0.0
    # Between jobs there are cycles without a request, which bursts of a beat cannot make good.
    for first in (5 * bench.block, 100 * bench.block - 1, 1000)[: 3 if bench.block > 1 else 1]:
        bench.add(first, 2 * bench.buffer + 3)
    while not bench.beats.received:
        await FallingEdge(dut.clk)
    pace = 1 if bench.block > 1 else 2
    await ClockCycles(dut.clk, pace * (len(bench.expected) - 1))
    await bench.finish(limit=1)


@cocotb.test(timeout_time=500, timeout_unit="us")
async def asks_as_often_as_it_says(dut: Any) -> None:
    """A burst every other cycle, and a job's first one in the third after the last of the job before."""
    await start(dut, component(parameters()))
    bench = Bench(dut, latency=1)
    bench.jobs.stall = 0.0
    wanted = [0]
    for count in (1, 2, 1, 2, 1):  # all of them fit the buffer; two beats are two bursts
        bench.add(5 * bench.block - 1, count)
        wanted += [wanted[-1] + 2] * (count - 1)
        wanted.append(wanted[-1] + 3)
    while dut.requests__valid.value == 0:
        await FallingEdge(dut.clk)
        await ReadOnly()
    moments = []
    for cycle in range(wanted[-2] + 1):
        if dut.requests__valid.value == 1:
            moments.append(cycle)
        await FallingEdge(dut.clk)
        await ReadOnly()
    assert moments == wanted[:-1]
    await FallingEdge(dut.clk)
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def has_the_latency_that_it_documents(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, latency=70)
    bench.add(3, 1)
    assert await latency(dut, "jobs", "requests") == 3
    while not bench.memory.answered:
        await FallingEdge(dut.clk)
    for expected in (0, 0, 0, 1):
        await ReadOnly()
        assert dut.beats__valid.value == expected
        await FallingEdge(dut.clk)
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def reads_to_the_end_of_the_space(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, stall=0.2)
    for count in (1, bench.block, 2 * bench.block + 1):
        bench.add(bench.space - count, count)
        bench.add(0, count)
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(inside=[0, 1, 3], beyond=[1, 300])
async def fails_past_the_end_of_the_space(dut: Any, inside: int, beyond: int) -> None:
    """A job with ``inside`` beats in the space and ``beyond`` behind: no burst leaves the space."""
    await start(dut, component(parameters()))
    for far in (False, True):
        bench = Bench(dut, stall=0.2)
        bench.add_random(5)
        await bench.finish()
        await reset(dut)
        bench = Bench(dut, stall=0.2)
        first = bench.space - inside
        if far and not inside:  # a job that does not begin at the end, but anywhere behind it
            first += bench.rng.randrange(bench.space - beyond)
        bench.add(first, inside + beyond)
        bench.add(8, 5)  # is not begun
        await ClockCycles(dut.clk, 100)
        assert dut.failed.value == 1
        assert bench.memory.bursts == (spans(first, inside, bench.block) if inside else [])
        bench.stop()
        await reset(dut)
        assert dut.failed.value == 0


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(where=[0, 1, 17, -1])
async def fails_at_an_error(dut: Any, where: int) -> None:
    """``failed`` rises with the answer that has the error, not before, and stays until a reset."""
    await start(dut, component(parameters()))
    count = 40
    bench = Bench(dut, stall=0.2, errors=[100 + where % count])
    bench.add(100, count)
    bench.add(1000, 3)
    layout = component(parameters()).answer.shape()
    for _ in range(600):
        await ReadOnly()
        coming = to_fields(layout, int(dut.answer.value))["valid"]  # is not in the register yet
        assert dut.failed.value == (bench.memory.answered - coming > where % count)
        await FallingEdge(dut.clk)
    assert dut.failed.value == 1
    bench.stop()
    await reset(dut)
    assert dut.failed.value == 0
    bench = Bench(dut, stall=0.2)
    bench.add_random(50)
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def forgets_its_jobs_at_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    for taker in (0.0, 0.2, 0.5, 0.8, 1.0):
        bench = Bench(dut, stall=0.2, taker=taker)
        bench.add_random(2 * bench.buffer + 20)
        await ClockCycles(dut.clk, bench.rng.randrange(5, bench.buffer + 20))
        bench.stop()
        await reset(dut)
        bench = Bench(dut)
        bench.add_random(40)
        await bench.finish()
