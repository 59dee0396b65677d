"""Bench of hw/parameter_unit.py: all that it sends, from every place in a beat; memory is modelled here."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.registers import TABLE_WORDS
from sliceforge.hw.parameter_unit import ParameterUnit
from sliceforge.hw.payloads import nest_layout
from sliceforge.hw.tile_nest import TileNest
from sliceforge.verif.read_memory import ReadMemory, some_contents
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import Sink, quiet, reset, start, to_int

CASES = [
    {"bus_bits": 64, "address_bits": 32, "buffer": 8, "tile_m": 4, "tile_n": 3, "k_bits": 12},
    {"bus_bits": 32, "address_bits": 33, "buffer": 8, "tile_m": 7, "tile_n": 4, "k_bits": 9},
    {"bus_bits": 128, "address_bits": 64, "buffer": 4, "tile_m": 1, "tile_n": 1, "k_bits": 4},
    {"bus_bits": 512, "address_bits": 40, "buffer": 8, "tile_m": 64, "tile_n": 64, "k_bits": 12},
]
MASK = (1 << 32) - 1
STREAMS = ("table", "exponents", "biases", "scales")


def component(p: dict[str, Any]) -> ParameterUnit:
    return ParameterUnit(**p)


def words() -> int:
    """32-bit words in a beat of the bus."""
    return int(parameters()["bus_bits"]) // 32


def blocks(count: int, size: int) -> list[range]:
    return [range(i, min(count, i + size)) for i in range(0, count, size)]


def row_order(m: int, n: int, dataflow: Dataflow, block: int) -> list[int]:
    """Rows of tiles in the order in which results come; docs/architecture.md has the loops."""
    p = parameters()
    rows, columns = -(-m // p["tile_m"]), -(-n // p["tile_n"])
    if dataflow == Dataflow.WEIGHT_STATIONARY:
        return [i for _ in blocks(columns, block) for i in range(rows)]
    if dataflow == Dataflow.INPUT_STATIONARY:
        return [i for part in blocks(rows, block) for _ in range(columns) for i in part]
    return [*range(rows)]


class Bench:
    """A layer's parameters from word ``first`` of the memory on. ``errors``: beats, the first word's is 0."""

    def __init__(
        self,
        dut: Any,
        first: int,
        *,
        m: int = 1,
        n: int = 1,
        dataflow: Dataflow = Dataflow.OUTPUT_STATIONARY,
        block: int = 1,
        has_table: bool = False,
        exponents: int = 0,
        has_scales: bool = False,
        stall: float = 0.0,
        taker: float = 0.0,
        latency: int = 3,
        errors: Collection[int] = (),
    ) -> None:
        p = parameters()
        unit = component(p)
        self.dut, self.first, self.exponents = dut, first, exponents
        self.has_table, self.has_scales = has_table, has_scales
        noise = random.Random(f"{cocotb.RANDOM_SEED} {first} {m} {n}")
        most_k = (1 << p["k_bits"]) - 1
        self.loops = {
            "m": m, "n": n, "dataflow": dataflow.value, "block": block, "k": noise.randint(1, most_k),
            "chunk": noise.randint(1, most_k), "k_tile": noise.randint(1, 255),
        }  # fmt: skip
        contents = some_contents(p["bus_bits"])

        def word(number: int) -> int:
            return contents(number // words()) >> 32 * (number % words()) & MASK

        table, per_row = TABLE_WORDS * has_table, 3 if has_scales else 1
        rows = first + table + exponents
        spans = [(first, table), (first + table, exponents)]
        for i in row_order(m, n, dataflow, block):
            begin, end = i * p["tile_m"], min(m, (i + 1) * p["tile_m"])
            spans.append((rows + per_row * begin, per_row * (end - begin)))
        sent = [number for begin, count in spans[2:] for number in range(begin, begin + count)]
        self.expected = {
            "table": [word(first + i) for i in range(table)],
            "exponents": [word(first + table + i) for i in range(exponents)],
            "biases": [word(number) for number in sent if (number - rows) % per_row == 0],
            "scales": [word(number) for number in sent if (number - rows) % per_row],
        }
        self.beats = [
            beat
            for begin, count in spans
            if count
            for beat in range(begin // words(), (begin + count - 1) // words() + 1)
        ]
        beat = first // words()
        self.memory = ReadMemory(
            dut, unit, contents, latency=latency, stall=stall, errors=[beat + error for error in errors]
        )  # fmt: skip
        self.sinks = {
            name: Sink(dut, name, getattr(unit, name).payload.shape(), stall=taker) for name in STREAMS
        }

    @property
    def count(self) -> int:
        return sum(len(values) for values in self.expected.values())

    @property
    def received(self) -> int:
        return sum(len(sink.received) for sink in self.sinks.values())

    async def begin(self) -> None:
        await FallingEdge(self.dut.clk)
        self.dut.loops.value = to_int(nest_layout(), self.loops)
        self.dut.address.value = 4 * self.first
        self.dut.has_table.value = self.has_table
        self.dut.exponent_words.value = self.exponents
        self.dut.has_scales.value = self.has_scales
        self.dut.start.value = 1
        await FallingEdge(self.dut.clk)
        self.dut.start.value = 0

    def stop(self) -> None:
        self.memory.stop()
        for sink in self.sinks.values():
            sink.stop()

    async def finish(self, limit: int = 20_000) -> None:
        """What comes is right, and no beat is asked for that holds none of it."""
        counts = [len(values) for values in self.expected.values()]
        await quiet(self.dut, *self.sinks.values(), expected=counts, limit=1 + limit, after=20)
        for name, sink in self.sinks.items():
            key = "bias" if name == "biases" else "word"
            assert [payload[key] for payload in sink.received] == self.expected[name], name
        lasts = [payload["last"] for payload in self.sinks["exponents"].received]
        assert lasts == [0] * (self.exponents - 1) + [1] * (self.exponents > 0)
        assert self.memory.beats() == self.beats and self.memory.idle
        assert self.dut.failed.value == 0
        self.stop()
        await reset(self.dut)


def some_place(rng: random.Random, *, beats: int = 2000) -> int:
    """First word of a beat with at least ``beats`` to the end of the space."""
    space = (1 << parameters()["address_bits"]) // 4 // words()
    return rng.choice([0, rng.randrange(space - beats), space - beats]) * words()


def some_layer(rng: random.Random) -> dict[str, Any]:
    """Sizes about a tile, and some tiles in blocks of one, some and all."""
    p = parameters()
    tile_m, tile_n = p["tile_m"], p["tile_n"]
    m = rng.choice(
        [1, max(1, tile_m - 1), tile_m, tile_m + 1, 3 * tile_m, 4 * tile_m + rng.randint(1, tile_m)]
    )
    n = rng.choice([1, tile_n, tile_n + 1, 3 * tile_n])
    exponents = rng.choice([0, 1, words(), words() + 1, rng.randint(1, 40)])
    return {
        "m": m, "n": n, "dataflow": rng.choice([*Dataflow]), "block": rng.choice([1, 2, 3, (1 << 24) - 1]),
        "has_table": rng.random() < 0.3, "exponents": exponents, "has_scales": rng.random() < 0.5,
    }  # fmt: skip


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize((("stall", "taker"), [(0.0, 0.0), (0.2, 0.2), (0.8, 0.0), (0.0, 0.8)]))
async def reads_layers(dut: Any, stall: float, taker: float) -> None:
    """From each word of a beat on; all kinds of parameters, and all orders of rows."""
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {stall} {taker}")
    for i in range(6 if stall or taker else 20):
        layer = some_layer(rng)
        latency = rng.choice([1, 3, 40])
        place = some_place(rng) + i % words()
        bench = Bench(dut, place, **layer, stall=stall, taker=taker, latency=latency)
        await bench.begin()
        await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(dataflow=[*Dataflow], has_scales=[False, True])
async def orders_rows(dut: Any, dataflow: Dataflow, has_scales: bool) -> None:
    """3 x 3 tiles in blocks of two, and of more than there are."""
    await start(dut, component(parameters()))
    p = parameters()
    for block in (2, 5):
        bench = Bench(
            dut, 5, m=2 * p["tile_m"] + 1, n=3 * p["tile_n"], dataflow=dataflow, block=block,
            has_scales=has_scales, stall=0.1, taker=0.1,
        )  # fmt: skip
        await bench.begin()
        await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def gives_a_word_a_cycle(dut: Any) -> None:
    """Within a span; across 4 KiB and more than the buffer holds. The first beat has a single word: if it is
    a burst by itself, the next one is a cycle late."""
    await start(dut, component(parameters()))
    bench = Bench(dut, 1024 * 7 - 100 + words() - 1, exponents=200, latency=1)
    await bench.begin()
    while not bench.received:
        await FallingEdge(dut.clk)
    alone = (bench.first // words() + 1) % (parameters()["buffer"] // 2) == 0 and words() > 1
    await ClockCycles(dut.clk, bench.exponents - 1 + alone)
    assert len(bench.sinks["exponents"].received) == bench.exponents
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def gives_the_words_of_rows_as_fast_as_it_says(dut: Any) -> None:
    """A word a cycle of a row of tiles; a row of tiles as soon as its number of rows is known."""
    await start(dut, component(parameters()))
    tile_m, tiles = parameters()["tile_m"], 5
    bench = Bench(dut, 4096, m=tiles * tile_m, latency=1)
    await bench.begin()
    moments: list[int] = []
    cycle = 0
    while len(moments) < bench.count:
        await ReadOnly()
        if dut.biases__valid.value == 1:
            moments.append(cycle)
        await FallingEdge(dut.clk)
        cycle += 1
    pace = max(TileNest.SETTLES + 1, tile_m)
    wanted = [pace * tile + row for tile in range(tiles) for row in range(tile_m)]
    assert [moment - moments[0] for moment in moments] == wanted
    await bench.finish(limit=1)


@cocotb.test(timeout_time=500, timeout_unit="us")
async def offers_before_it_is_asked(dut: Any) -> None:
    """Valid does not wait for ready, at no word of a beat, on no stream."""
    await start(dut, component(parameters()))
    bench = Bench(dut, 7, m=3, has_scales=True, exponents=words() + 1, has_table=True, taker=1.0)
    await bench.begin()
    for i in range(bench.count):
        await ClockCycles(dut.clk, 20)
        assert bench.received == i
        offered = [name for name in STREAMS if getattr(dut, f"{name}__valid").value == 1]
        assert len(offered) == 1
        sink = bench.sinks[offered[0]]
        sink.stall = 0.0
        await FallingEdge(dut.clk)
        sink.stall = 1.0
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def waits_for_the_start(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, 100, m=5)
    dut.address.value, dut.loops.value, dut.exponent_words.value = 16, to_int(nest_layout(), bench.loops), 3
    await ClockCycles(dut.clk, 30)
    assert not bench.memory.bursts and not bench.received
    await bench.begin()
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def ends_where_the_space_does(dut: Any) -> None:
    """All words up to the end of the space can be read, and none beyond: that fails."""
    await start(dut, component(parameters()))
    space = (1 << parameters()["address_bits"]) // 4
    for count in (1, words(), 2 * words() + 1):
        bench = Bench(dut, space - count - 1, exponents=count)
        await bench.begin()
        await bench.finish()
        bench = Bench(dut, space - count, exponents=count)
        await bench.begin()
        await ClockCycles(dut.clk, 100)
        assert dut.failed.value == 1
        assert bench.memory.beats() == bench.beats[:-1]
        bench.stop()
        await reset(dut)
        assert dut.failed.value == 0


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(error=[0, 2])
async def fails_at_an_error(dut: Any, error: int) -> None:
    """Also where the answer with the error holds a single word."""
    await start(dut, component(parameters()))
    bench = Bench(dut, 3 * words() - 1, exponents=2 * words(), m=2, errors=[error])
    await bench.begin()
    await ClockCycles(dut.clk, 150)
    assert dut.failed.value == 1
    bench.stop()
    await reset(dut)
    assert dut.failed.value == 0
    bench = Bench(dut, 9, m=7)
    await bench.begin()
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def starts_again_after_a_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    for taker in (0.0, 0.2, 0.5, 0.8, 1.0):
        bench = Bench(dut, 5 * words() + rng.randrange(words()), **some_layer(rng), stall=0.2, taker=taker)
        await bench.begin()
        await ClockCycles(dut.clk, rng.randrange(1, 120))
        bench.stop()
        await reset(dut)
        bench = Bench(dut, rng.randrange(words()), **some_layer(rng), stall=0.2)
        await bench.begin()
        await bench.finish()
