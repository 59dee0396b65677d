"""Bench of hw/requantize_unit.py: layers against `sim.requantize`, corners, ties, tables, dataflows."""

from __future__ import annotations

import random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, FallingEdge

from sliceforge.gen.dataflow import Dataflow
from sliceforge.hw.payloads import nest_layout, result_layout, value_layout, word_layout
from sliceforge.hw.requantize_unit import RequantizeUnit
from sliceforge.sim.requantize import requantize
from sliceforge.verif.schedules import DATAFLOWS, finished_tiles, loops, schedule
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, Source, quiet, reset, start, to_int
from sliceforge.verif.tiles import join, latency

CASES = [
    {"sums": 2, "tile_m": 3, "tile_n": 4, "k_bits": 8},
    {"sums": 4, "tile_m": 12, "tile_n": 8, "k_bits": 13},
    {"sums": 32, "tile_m": 2, "tile_n": 32, "k_bits": 1},
]
LOW, HIGH = -(1 << 31), (1 << 31) - 1
SUMS = (LOW, LOW + 1, -1, 0, 1, HIGH - 1, HIGH)
MULTIPLIERS = (0, 1, 2, 1 << 30, HIGH - 1, HIGH)
SHIFTS = (1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 61, 62)


def component(p: dict[str, Any]) -> RequantizeUnit:
    return RequantizeUnit(**p)


class Layer:
    """Results (m, n), the scales of the rows, and the settings: random unless given, corners among them."""

    def __init__(self, rng: random.Random, m: int, n: int, **settings: int) -> None:
        self.m, self.n, self.rng = m, n, rng
        self.zero_out = settings.get("zero_out", rng.choice([0, 255, rng.randrange(256)]))
        self.relu, self.use_table = settings.get("relu", 0), settings.get("use_table", 0)
        self.rounding = settings.get("rounding", 0)
        self.table = [rng.randrange(256) for _ in range(256)]
        scales = [self.random_scale() for _ in range(m)]
        self.multipliers, self.shifts = [list(some) for some in zip(*scales, strict=True)]
        self.sums = [[self.random_sum(*scale) for _ in range(n)] for scale in scales]

    def random_scale(self) -> tuple[int, int]:
        rng = self.rng
        if rng.random() < 0.3:
            return rng.choice(MULTIPLIERS), rng.choice(SHIFTS)
        return rng.getrandbits(rng.randint(1, 31)), rng.randint(1, 62)

    def random_sum(self, multiplier: int, shift: int) -> int:
        """Any, a corner, or one whose scaled value is about a byte: a tie if there is one, or beside it."""
        rng, kind = self.rng, self.rng.random()
        if kind < 0.2 or not multiplier:
            return rng.choice(SUMS) if kind < 0.1 else rng.randint(LOW, HIGH)
        halves = rng.randint(-600, 600)  # of the scaled value
        return max(LOW, min(HIGH, (halves << shift - 1) // multiplier + rng.randint(-1, 1)))

    def expected(self) -> np.ndarray:
        scale, bits = (self.multipliers, self.shifts), (4, 5, 6)[self.rounding]
        values = requantize(self.sums, *scale, self.zero_out, bool(self.relu), next_lo_bits=bits)
        return np.array(self.table)[values] if self.use_table else values


class Bench:
    """Sends a layer in the order of ``dataflow``. ``stalls``: of scales, table, results and values."""

    def __init__(
        self, dut: Any, layer: Layer, dataflow: Dataflow = Dataflow.OUTPUT_STATIONARY, *, block: int = 1,
        stalls: Any = (0, 0, 0, 0),
    ) -> None:  # fmt: skip
        self.dut, self.layer = dut, layer
        self.tile_m, self.tile_n, self.width = (parameters()[name] for name in ("tile_m", "tile_n", "sums"))
        tile = {"tile_m": self.tile_m, "tile_n": self.tile_n}
        order = schedule(layer.m, layer.n, **tile, dataflow=dataflow, block=block)
        dut.loops.value = to_int(nest_layout(), loops(order, layer.rng))
        for name in ("zero_out", "rounding", "relu", "use_table"):
            getattr(dut, name).value = getattr(layer, name)
        self.scales = Source(dut, "scales", word_layout(), stall=stalls[0])
        self.table = Source(dut, "table", word_layout(), stall=stalls[1])
        self.results = Source(dut, "results", result_layout(self.width), stall=stalls[2])
        self.values = Sink(dut, "values", value_layout(self.width), stall=stalls[3])
        self.expected: list[tuple[list[int], int, int, int]] = []
        self.golden = layer.expected().tolist()
        if layer.use_table:
            self.table.send({"word": join(layer.table[i : i + 4], 8)} for i in range(0, 256, 4))
        for rows in order.parameter_rows():
            for scale in zip(layer.multipliers[rows], layer.shifts[rows], strict=True):
                self.scales.send({"word": word} for word in scale)
        tiles = finished_tiles(order)
        for number, (i, j, frees) in enumerate(tiles):
            left = j * self.tile_n
            right = min(left + self.tile_n, layer.n)
            self.send_tile(i * self.tile_m, left, right, frees, number == len(tiles) - 1)

    def send_tile(self, top: int, left: int, right: int, frees: bool, last: bool) -> None:
        bottom = min(top + self.tile_m, self.layer.m)
        for row in range(top, bottom):
            for column in range(left, right, self.width):
                end = min(column + self.width, right)
                padding = [self.layer.rng.getrandbits(32)] * (self.width - (end - column))
                row_ends = end == right
                tile_ends = row_ends and row == bottom - 1
                self.results.send([{
                    "sums": self.layer.sums[row][column:end] + padding, "count": end - column,
                    "last_of_row": row_ends, "last_of_tile": tile_ends, "frees_rows": tile_ends and frees,
                    "last": tile_ends and last,
                }])  # fmt: skip
                values = self.golden[row][column:end]
                self.expected.append((values, int(row_ends), int(tile_ends), int(tile_ends and last)))

    def stop(self) -> None:
        for driver in (self.scales, self.table, self.results, self.values):
            driver.stop()

    async def finish(self, limit: int = 20_000) -> None:
        """Everything has come, nothing more comes, and the unit has taken all that was sent."""
        await quiet(self.dut, self.values, expected=[len(self.expected)], limit=limit)
        for got, expected in zip(self.values.received, self.expected, strict=True):
            assert got["count"] == len(expected[0])
            ends = got["last_of_row"], got["last_of_tile"], got["last"]
            assert (got["values"][: got["count"]], *ends) == expected
        assert self.scales.idle and self.table.idle and self.results.idle
        assert self.dut.bad_scale.value == 0
        self.stop()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(
    stalls=[*((s, s, s, s) for s in STALLS), (0.9, 0, 0, 0), (0, 0.8, 0.2, 0.2), (0, 0, 0, 0.9)],
    dataflow=DATAFLOWS,
)
async def requantizes_layers(dut: Any, stalls: tuple[float, ...], dataflow: Dataflow) -> None:
    """One to three tiles each way, each layer with other settings, a reset between them."""
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {stalls} {dataflow}")
    tile_m, tile_n, width = (parameters()[name] for name in ("tile_m", "tile_n", "sums"))
    shapes = [(1, 1), (2 * tile_m + 1, 2 * tile_n + 1), (3 * tile_m - 1, 2 * width - 1)]
    for number, (m, n) in enumerate(shapes):
        use_table = number == rng.randrange(3)
        layer = Layer(rng, m, n, relu=rng.getrandbits(1), rounding=rng.randrange(3), use_table=use_table)
        await Bench(dut, layer, dataflow, block=rng.randint(1, 3), stalls=stalls).finish()
        await reset(dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(relu=[0, 1], use_table=[0, 1], rounding=[0, 1, 2])
async def rounds_and_clips(dut: Any, relu: int, use_table: int, rounding: int) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {relu} {use_table} {rounding}")
    for zero_out in (0, 255, rng.randrange(1, 255)):
        settings = {"relu": relu, "use_table": use_table, "rounding": rounding, "zero_out": zero_out}
        await Bench(dut, Layer(rng, 30, 16, **settings)).finish()
        await reset(dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def is_exact_at_the_corners(dut: Any) -> None:
    """Every corner of the multiplier with every shift: corners of the sum, ties, and what is just below."""
    await start(dut, component(parameters()))
    scales = [(multiplier, shift) for multiplier in MULTIPLIERS for shift in range(1, 63)]
    layer = Layer(random.Random(cocotb.RANDOM_SEED), len(scales), 16, zero_out=128)
    layer.multipliers, layer.shifts = [list(some) for some in zip(*scales, strict=True)]
    for row, (multiplier, shift) in enumerate(scales):
        half = (1 << shift - 1) // max(1, multiplier)  # exact for powers of two
        ties = [n * half - below for n in (1, -1, 3, -3) for below in (0, 1)]
        layer.sums[row][: len(SUMS) + len(ties)] = [*SUMS, *(max(LOW, min(HIGH, tie)) for tie in ties)]
    await Bench(dut, layer).finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(use_table=[0, 1])
async def takes_a_beat_a_cycle(dut: Any, use_table: int) -> None:
    """Across the ends of rows and tiles too: two words of scales a row come while its 8 beats go."""
    await start(dut, component(parameters()))
    p = parameters()
    layer = Layer(random.Random(cocotb.RANDOM_SEED), 2 * p["tile_m"], 8 * p["sums"], use_table=use_table)
    bench = Bench(dut, layer)
    while bench.results.sent < 1:
        await FallingEdge(dut.clk)
    refused = bench.results.refused
    await bench.finish()
    assert bench.results.refused == refused and bench.values.refused == 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def has_the_latency_that_it_documents(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, Layer(random.Random(cocotb.RANDOM_SEED), 1, 1), stalls=(0, 0, 1.0, 0))
    await ClockCycles(dut.clk, 10)
    bench.results.stall = 0.0
    await FallingEdge(dut.clk)
    assert await latency(dut, "results", "values") == RequantizeUnit.LATENCY + 1
    await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def waits_for_scales_and_table(dut: Any) -> None:
    """Nothing is taken before the last word of both; then as much as has a place, until values leave."""
    await start(dut, component(parameters()))
    p = parameters()
    layer = Layer(random.Random(cocotb.RANDOM_SEED), p["tile_m"], 16 * p["sums"], use_table=1)
    bench = Bench(dut, layer, stalls=(0, 0, 0, 1.0))
    held = {source: [source.queue.pop()] for source in (bench.scales, bench.table)}
    for source in held:
        await ClockCycles(dut.clk, 300)
        assert bench.results.sent == 0
        source.queue += held[source]
    await ClockCycles(dut.clk, 100)
    assert bench.results.sent == RequantizeUnit.LATENCY + 2 and not bench.values.received
    bench.values.stall = 0.0
    await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def goes_on_after_an_illegal_scale(dut: Any) -> None:
    """It is reported, and the value is undefined; but that comes, and its neighbours are right."""
    await start(dut, component(parameters()))
    for word, value in ((3, 0), (3, 63), (2, 1 << 31)):
        layer = Layer(random.Random(cocotb.RANDOM_SEED), 3, 1)
        bench = Bench(dut, layer)
        bench.scales.queue[word] = value
        await quiet(dut, bench.values, expected=[3])
        got = [beat["values"][0] for beat in bench.values.received]
        assert [got[0], got[2]] == [bench.golden[0][0], bench.golden[2][0]]
        assert dut.bad_scale.value == 1
        bench.stop()
        await reset(dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def forgets_a_layer_at_reset(dut: Any) -> None:
    """While the table loads, while results pass, and between the two words of a row's scale."""
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    p = parameters()
    for stall in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.0):
        layer = Layer(rng, 2 * p["tile_m"] + 1, 2 * p["sums"] - 1, use_table=rng.getrandbits(1))
        bench = Bench(dut, layer, Dataflow.INPUT_STATIONARY, block=2, stalls=[stall] * 4)
        if stall:
            await ClockCycles(dut.clk, rng.randrange(5, 400 if layer.use_table else 50))
            bench.stop()
            await reset(dut)
        else:
            await bench.finish()
