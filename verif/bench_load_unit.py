"""Bench of hw/load_unit.py: chains of regions, read and walked once or again; memory is modelled here."""

from __future__ import annotations

import random
from collections.abc import Collection
from itertools import pairwise
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.hw.load_unit import LoadUnit
from sliceforge.hw.loop_counter import LoopCounter
from sliceforge.hw.payloads import DIM_BITS
from sliceforge.verif.read_memory import ReadMemory, some_contents
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import Sink, quiet, reset, start
from sliceforge.verif.tiles import join

CASES = [
    {"bus_bits": 64, "address_bits": 32, "buffer": 16, "granule_bits": 64, "ways": 1, "pass_step": 4},
    {"bus_bits": 256, "address_bits": 40, "buffer": 64, "granule_bits": 64, "ways": 4, "pass_step": 64},
    {"bus_bits": 32, "address_bits": 32, "buffer": 64, "granule_bits": 64, "ways": 1, "pass_step": 8},
    {"bus_bits": 32, "address_bits": 64, "buffer": 16, "granule_bits": 128, "ways": 1, "pass_step": 6},
    {"bus_bits": 64, "address_bits": 33, "buffer": 32, "granule_bits": 32, "ways": 2, "pass_step": 1},
    {"bus_bits": 512, "address_bits": 32, "buffer": 128, "granule_bits": 128, "ways": 4, "pass_step": 16},
]


def component(p: dict[str, Any]) -> LoadUnit:
    return LoadUnit(**p)


class Bench:
    """A layer whose regions have ``lengths`` load beats, each read ``passes`` times, all ``rounds`` times.

    ``apart``: load beats from a region to the next; 0: one behind the other. ``headers`` replaces lengths in
    headers: {region: value}. ``end``: the last region ends as many load beats behind the end of the address
    space; anywhere if None. ``errors``: bus beats, from the layer's first on.
    """

    def __init__(
        self,
        dut: Any,
        lengths: list[int],
        passes: int,
        rounds: int = 1,
        *,
        apart: int = 0,
        stall: float = 0.0,
        taker: float = 0.0,
        latency: int = 3,
        headers: dict[int, int] | None = None,
        end: int | None = None,
        errors: Collection[int] = (),
    ) -> None:
        self.p = p = parameters()
        block = component(p)
        self.dut, self.lengths, self.passes, self.rounds, self.apart = dut, lengths, passes, rounds, apart
        self.rng = random.Random(f"{cocotb.RANDOM_SEED} {lengths} {passes} {stall} {taker}")
        self.parts = p["granule_bits"] * p["ways"] // p["bus_bits"]
        self.space = (1 << p["address_bits"]) * 8 // p["bus_bits"] // self.parts  # load beats
        size = apart * (len(lengths) - 1) + lengths[-1] if apart else sum(lengths)
        self.first = self.rng.randrange(self.space - size) if end is None else self.space - size + end
        self.noise = some_contents(p["bus_bits"])
        # By load beat.
        self.headers = {self.region(i): following for i, following in enumerate([*lengths[1:], 0])}
        self.headers |= {self.region(i): value for i, value in (headers or {}).items()}
        walk = [i for _ in range(rounds) for i in range(len(lengths)) for _ in range(passes)]
        self.expected = [beat for i in walk for beat in self.images(i)]
        self.asked = [
            self.parts * self.region(i) + j for i in walk for j in range(self.parts * lengths[i])
        ]  # bus beats
        self.memory = ReadMemory(
            dut, block, self.contents, latency=latency, stall=stall,
            errors=[self.parts * self.first + beat for beat in errors],
        )  # fmt: skip
        self.beats = Sink(dut, "beats", block.beats.payload.shape(), stall=taker)
        self.watch = cocotb.start_soon(self._ended())

    async def _ended(self) -> None:
        """``ended`` comes after the last beat, and stays."""
        before = 0
        while True:
            await FallingEdge(self.dut.clk)
            now = int(self.dut.ended.value)
            assert now >= before and (not now or len(self.beats.received) == len(self.expected))
            before = now

    def region(self, i: int) -> int:
        """Where region ``i`` begins, in load beats."""
        return self.first + (i * self.apart if self.apart else sum(self.lengths[:i]))

    def contents(self, beat: int) -> int:
        load_beat, part = divmod(beat, self.parts)
        if load_beat in self.headers:
            return self.headers[load_beat] if part == 0 else 0
        return self.noise(beat)

    def images(self, i: int) -> list[dict[str, Any]]:
        """The load beats of region ``i`` behind its header, as they come."""
        p, beats = self.p, []
        for j in range(1, self.lengths[i]):
            first = (self.region(i) + j) * self.parts
            bits = join((self.contents(first + part) for part in range(self.parts)), p["bus_bits"])
            granules = [bits >> p["granule_bits"] * way for way in range(p["ways"])]
            beats.append({
                "granules": [granule & (1 << p["granule_bits"]) - 1 for granule in granules],
                "last": int(j == self.lengths[i] - 1),
            })  # fmt: skip
        return beats

    async def begin(self) -> None:
        """``rounds`` and ``passes`` count positions; the last ones may be fewer than a step."""
        p, dut, rng = self.p, self.dut, self.rng
        bytes_ = self.parts * p["bus_bits"] // 8  # of a load beat
        block = rng.choice([1, 1, 2, 7, (1 << DIM_BITS) - 1 if self.rounds == 1 else 3])
        await FallingEdge(dut.clk)
        dut.address.value = self.first * bytes_
        dut.length.value = self.lengths[0]
        dut.stride.value = self.apart * bytes_
        dut.passes.value = self.passes * p["pass_step"] - rng.randrange(p["pass_step"])
        dut.block.value = block
        step = block * p["pass_step"]
        most = min((1 << DIM_BITS) - 1, self.rounds * step)
        dut.rounds.value = rng.choice([most, (self.rounds - 1) * step + 1])
        dut.start.value = 1
        await FallingEdge(dut.clk)
        dut.start.value = 0

    def stop(self) -> None:
        self.watch.cancel()
        self.memory.stop()
        self.beats.stop()

    async def finish(self, limit: int = 20_000) -> None:
        await quiet(self.dut, self.beats, expected=[len(self.expected)], limit=1 + limit)
        assert self.beats.received == self.expected
        assert self.memory.beats() == self.asked and self.memory.idle
        assert self.dut.bad_length.value == 0 and self.dut.failed.value == 0
        assert self.dut.ended.value == 1
        self.stop()
        await reset(self.dut)


def layers() -> list[tuple[list[int], int, int, int]]:
    """(lengths, passes, rounds, apart): one region or several, from the shortest to more than the buffer."""
    p, rng = parameters(), random.Random(f"layers {cocotb.RANDOM_SEED}")
    buffer = p["buffer"] * p["bus_bits"] // (p["granule_bits"] * p["ways"])  # load beats
    far = (1 << 31) * 8 // (p["granule_bits"] * p["ways"]) if p["address_bits"] > 33 else 1000
    some = [rng.randint(2, 12) for _ in range(rng.randint(2, 5))]
    return [
        ([2], 1, 1, 0), ([2], 9, 1, 0), ([2], 1, 3, 0), ([2 * buffer + 1], 1, 1, 0), ([2, 2, 2, 2], 1, 2, 2),
        ([3, 2, 2], 2, 2, 0), ([buffer + 1, 2, 2 * buffer], 1, 1, 0), (some, 2, 3, 12 + rng.randrange(99)),
        ([5, 3, 4], 1, 1, far),
    ]  # fmt: skip


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize((("stall", "taker"), [(0.0, 0.0), (0.2, 0.2), (0.8, 0.0), (0.0, 0.8)]))
async def reads_layers(dut: Any, stall: float, taker: float) -> None:
    await start(dut, component(parameters()))
    for lengths, passes, rounds, apart in layers():
        bench = Bench(dut, lengths, passes, rounds, apart=apart, stall=stall, taker=taker)
        await bench.begin()
        await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def reads_from_a_memory_that_is_far(dut: Any) -> None:
    await start(dut, component(parameters()))
    for lengths, passes, rounds, apart in layers():
        bench = Bench(dut, lengths, passes, rounds, apart=apart, latency=60)
        await bench.begin()
        await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def offers_before_it_is_asked(dut: Any) -> None:
    """And does not end before the last beat is taken."""
    await start(dut, component(parameters()))
    bench = Bench(dut, [3, 4], 1, taker=1.0)
    await bench.begin()
    for i in range(len(bench.expected)):
        await ClockCycles(dut.clk, 50)
        assert len(bench.beats.received) == i and dut.beats__valid.value == 1
        bench.beats.stall = 0.0
        await FallingEdge(dut.clk)
        bench.beats.stall = 1.0
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def waits_for_the_start(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, [4, 3], 2)
    dut.rounds.value, dut.block.value, dut.passes.value, dut.length.value = 1, 1, 1, 4
    await ClockCycles(dut.clk, 50)
    assert not bench.memory.bursts and not bench.beats.received
    await bench.begin()
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize((("regions", "passes", "rounds"), [(1, 1, 1), (1, 3, 1), (3, 1, 1), (2, 2, 2)]))
async def reads_a_bus_beat_a_cycle(dut: Any, regions: int, passes: int, rounds: int) -> None:
    """Headers included, also from region to region and round to round if they are longer than the buffer."""
    await start(dut, component(parameters()))
    bench = Bench(dut, [2 * parameters()["buffer"]] * regions, passes, rounds)
    await bench.begin()
    while not bench.beats.received:
        await FallingEdge(dut.clk)
    await ClockCycles(dut.clk, len(bench.asked) - 2 * bench.parts)
    await bench.finish(limit=1)


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(waits=[False, True])
async def reads_the_shortest_passes_as_fast_as_it_says(dut: Any, waits: bool) -> None:
    """Of two load beats, a header and another, as they come from the memory or all at once from the buffer;
    and the first is asked for as early as it says."""
    await start(dut, component(parameters()))
    bench = Bench(dut, [2], 9, latency=1, end=0, taker=float(waits))
    await bench.begin()
    cycle, asked = 1, 0  # after the start
    moments: list[int] = []
    while len(moments) < len(bench.expected):
        await ReadOnly()
        if dut.requests__valid.value == 1 and not asked:
            asked = cycle
        if dut.beats__valid.value == 1 and dut.beats__ready.value == 1:
            moments.append(cycle)
        await FallingEdge(dut.clk)
        cycle += 1
        if cycle == 200:
            bench.beats.stall = 0.0
    assert asked == LoopCounter.SETTLES + 1 + 3
    pace = max(LoopCounter.SETTLES + 1, 2 * bench.parts)
    assert [after - before for before, after in pairwise(moments)] == [pace] * 8
    await bench.finish(limit=1)


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(region=[0, 1, 2], passes=[1, 3])
async def finds_a_bad_length(dut: Any, region: int, passes: int) -> None:
    """A region of a header alone; then nothing of another region is asked for."""
    await start(dut, component(parameters()))
    bench = Bench(dut, [5, 4, 6], passes, 2, stall=0.2, taker=0.2, headers={region: 1})
    await bench.begin()
    while bench.memory.answered <= passes * bench.parts * sum(bench.lengths[:region]):
        await ReadOnly()
        assert dut.bad_length.value == 0
        await FallingEdge(dut.clk)
    await ClockCycles(dut.clk, 300)
    assert dut.bad_length.value == 1
    until = passes * bench.parts * sum(bench.lengths[: region + 1])
    assert bench.memory.beats() == bench.asked[:until]
    assert dut.failed.value == 0 and dut.ended.value == 0
    bench.stop()
    await reset(dut)
    assert dut.bad_length.value == 0
    bench = Bench(dut, [3, 2, 5], 2)
    await bench.begin()
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(end=[0, 1, 4], apart=[0, 9])
async def ends_where_the_space_does(dut: Any, end: int, apart: int) -> None:
    """Regions may end at the end of the space, and fail past it: ``end`` load beats of the last lie there."""
    await start(dut, component(parameters()))
    for passes in (1, 2):
        bench = Bench(dut, [5, 2, 3], passes, apart=apart, stall=0.2, end=end)
        await bench.begin()
        if end == 0:
            await bench.finish()
            continue
        await ClockCycles(dut.clk, 300)
        assert dut.failed.value == 1
        asked = bench.memory.beats()
        # The pass that leaves the space is the last.
        leaves = next(i for i, beat in enumerate(bench.asked) if beat >= bench.space * bench.parts)
        assert asked == bench.asked[:leaves]
        bench.stop()
        await reset(dut)
        assert dut.failed.value == 0


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(region=[0, 1])
async def fails_at_an_error(dut: Any, region: int) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, [5, 4], 2, stall=0.2)
    bad = bench.parts * 5 * region + bench.rng.randrange(bench.parts * 4)
    bench.stop()
    bench = Bench(dut, [5, 4], 2, stall=0.2, errors=[bad])
    await bench.begin()
    await ClockCycles(dut.clk, 300)
    assert dut.failed.value == 1
    bench.stop()
    await reset(dut)
    assert dut.failed.value == 0
    bench = Bench(dut, [5, 4], 2, stall=0.2)
    await bench.begin()
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def starts_again_after_a_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    for taker in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0):
        bench = Bench(dut, [7, 30, 4], 2, 2, stall=0.2, taker=taker)
        await bench.begin()
        await ClockCycles(dut.clk, bench.rng.randrange(1, 150))
        bench.stop()
        await reset(dut)
        bench = Bench(dut, [4, 9, 2], 3, 2, apart=11, stall=0.2)
        await bench.begin()
        await bench.finish()
