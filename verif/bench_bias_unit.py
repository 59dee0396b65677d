"""Bench of hw/bias_unit.py: words from every place in a beat of the bus; memory is modelled here."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge

from sliceforge.hw.bias_unit import BiasUnit
from sliceforge.verif.read_memory import ReadMemory, some_contents
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, quiet, reset, start

CASES = [
    {"bus_bits": 64, "address_bits": 32, "buffer": 8},
    {"bus_bits": 32, "address_bits": 33, "buffer": 8},
    {"bus_bits": 128, "address_bits": 64, "buffer": 4},
    {"bus_bits": 256, "address_bits": 32, "buffer": 8},
    {"bus_bits": 512, "address_bits": 40, "buffer": 8},
]
MASK = (1 << 32) - 1


def component(p: dict[str, Any]) -> BiasUnit:
    return BiasUnit(**p)


def words() -> int:
    """32-bit words in a beat of the bus."""
    return int(parameters()["bus_bits"]) // 32


class Bench:
    """``count`` words from word ``first`` of the memory on. ``errors``: beats, counted from that word's."""

    def __init__(
        self,
        dut: Any,
        first: int,
        count: int,
        *,
        stall: float = 0.0,
        taker: float = 0.0,
        latency: int = 3,
        errors: Collection[int] = (),
    ) -> None:
        p = parameters()
        block = component(p)
        self.dut, self.first, self.count = dut, first, count
        contents, beat = some_contents(p["bus_bits"]), first // words()
        self.memory = ReadMemory(
            dut, block, contents, latency=latency, stall=stall, errors=[beat + error for error in errors]
        )  # fmt: skip
        self.biases = Sink(dut, "biases", block.biases.payload.shape(), stall=taker)
        self.beats = [*range(beat, (first + count - 1) // words() + 1)]
        self.expected = [
            {"bias": contents(word // words()) >> 32 * (word % words()) & MASK}
            for word in range(first, first + count)
        ]

    async def begin(self) -> None:
        await FallingEdge(self.dut.clk)
        self.dut.address.value = 4 * self.first
        self.dut.count.value = self.count
        self.dut.start.value = 1
        await FallingEdge(self.dut.clk)
        self.dut.start.value = 0

    def stop(self) -> None:
        self.memory.stop()
        self.biases.stop()

    async def finish(self, limit: int = 5_000) -> None:
        """What comes is right, and no beat is asked for that has no bias."""
        await quiet(self.dut, self.biases, expected=[self.count], limit=1 + limit, after=20)
        assert self.biases.received == self.expected
        assert self.memory.beats() == self.beats and self.memory.idle
        assert self.dut.failed.value == 0
        self.stop()
        await reset(self.dut)


def some_place(rng: random.Random, *, beats: int = 1000) -> int:
    """First word of a beat with at least ``beats`` to the end of the space."""
    space = (1 << parameters()["address_bits"]) // 4 // words()
    return rng.choice([0, rng.randrange(space - beats), space - beats]) * words()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(stall=STALLS, taker=STALLS)
async def reads_from_every_place(dut: Any, stall: float, taker: float) -> None:
    """Each first word with each last word of a beat; then more beats. Some of them where streams stall."""
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {stall} {taker}")
    cases = [(offset, count) for offset in range(words()) for count in range(1, words() + 1)]
    longer = [(rng.randrange(words()), rng.randint(1, 5 * words())) for _ in range(30)]
    if stall or taker:
        cases = rng.sample(cases, min(len(cases), 8))
        longer = longer[:8]
    for offset, count in cases + longer:
        bench = Bench(dut, some_place(rng) + offset, count, stall=stall, taker=taker)
        await bench.begin()
        await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(latency=[1, 3, 40])
async def reads_long_layers(dut: Any, latency: int) -> None:
    """More than the buffer holds, and across 4 KiB."""
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {latency}")
    for count in (300, 299):
        bench = Bench(dut, 1024 * 7 - 150 + rng.randrange(words()), count, latency=latency, taker=0.1)
        await bench.begin()
        await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def gives_a_word_a_cycle(dut: Any) -> None:
    """Where the buffer's reach exceeds the memory's latency, as it does with a few words a beat."""
    await start(dut, component(parameters()))
    bench = Bench(dut, 1024 + words() - 1, 200, latency=1)
    await bench.begin()
    while not bench.biases.received:
        await FallingEdge(dut.clk)
    await ClockCycles(dut.clk, bench.count - 1)
    await bench.finish(limit=1)


@cocotb.test(timeout_time=500, timeout_unit="us")
async def offers_before_it_is_asked(dut: Any) -> None:
    """Valid does not wait for ready, at no word of a beat."""
    await start(dut, component(parameters()))
    bench = Bench(dut, 7, 2 * words(), taker=1.0)
    await bench.begin()
    for i in range(bench.count):
        await ClockCycles(dut.clk, 20)
        assert len(bench.biases.received) == i and dut.biases__valid.value == 1
        bench.biases.stall = 0.0
        await FallingEdge(dut.clk)
        bench.biases.stall = 1.0
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def waits_for_the_start(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, 100, 5)
    dut.address.value, dut.count.value = 16, 3
    await ClockCycles(dut.clk, 30)
    assert not bench.memory.bursts and not bench.biases.received
    await bench.begin()
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def ends_where_the_space_does(dut: Any) -> None:
    """All words up to the end of the space can be read, and none beyond: that fails."""
    await start(dut, component(parameters()))
    space = (1 << parameters()["address_bits"]) // 4
    for count in (1, words(), 2 * words() + 1):
        bench = Bench(dut, space - count, count)
        await bench.begin()
        await bench.finish()
        bench = Bench(dut, space - count, count + 1)
        await bench.begin()
        await ClockCycles(dut.clk, 60)
        assert dut.failed.value == 1
        assert bench.memory.beats() == bench.beats[:-1]
        bench.stop()
        await reset(dut)
        assert dut.failed.value == 0


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(error=[0, 3])
async def fails_at_an_error(dut: Any, error: int) -> None:
    """Also where the answer with the error holds a single bias."""
    await start(dut, component(parameters()))
    bench = Bench(dut, 3 * words() - 1, 2 + 2 * words(), errors=[error])
    await bench.begin()
    await ClockCycles(dut.clk, 100)
    assert dut.failed.value == 1
    bench.stop()
    await reset(dut)
    assert dut.failed.value == 0
    bench = Bench(dut, 9, 7)
    await bench.begin()
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def starts_again_after_a_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    for taker in (0.0, 0.2, 0.5, 0.8, 0.9, 1.0):
        bench = Bench(dut, 5 * words() + rng.randrange(words()), 50, stall=0.2, taker=taker)
        await bench.begin()
        await ClockCycles(dut.clk, rng.randrange(1, 40))
        bench.stop()
        await reset(dut)
        bench = Bench(dut, rng.randrange(words()), 3 * words(), stall=0.2)
        await bench.begin()
        await bench.finish()
