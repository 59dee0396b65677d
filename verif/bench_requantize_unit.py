"""Bench of hw/requantize_unit.py: layers against `sim.requantize`, corners, ties, tables, dataflows."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge

from sliceforge.gen.dataflow import Dataflow
from sliceforge.hw.payloads import nest_layout, result_layout, value_layout, word_layout
from sliceforge.hw.requantize_unit import RequantizeUnit
from sliceforge.verif.requantize_layers import HIGH, LOW, MULTIPLIERS, SUMS, RequantizeLayer
from sliceforge.verif.schedules import DATAFLOWS, loops, schedule
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, Source, quiet, reset, start, to_int
from sliceforge.verif.tiles import latency

CASES = [
    {"sums": 2, "tile_m": 3, "tile_n": 4, "k_bits": 8},
    {"sums": 4, "tile_m": 12, "tile_n": 8, "k_bits": 13},
    {"sums": 32, "tile_m": 2, "tile_n": 32, "k_bits": 1},
]


def component(p: dict[str, Any]) -> RequantizeUnit:
    return RequantizeUnit(**p)


class Bench:
    """Sends a layer in the order of ``dataflow``. ``stalls``: of scales, table, results and values."""

    def __init__(
        self, dut: Any, layer: RequantizeLayer, dataflow: Dataflow = Dataflow.OUTPUT_STATIONARY, *,
        block: int = 1, stalls: Any = (0, 0, 0, 0),
    ) -> None:  # fmt: skip
        self.dut, self.layer = dut, layer
        p, self.width = parameters(), parameters()["sums"]
        tile = {name: p[name] for name in ("tile_m", "tile_n")}
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
        self.table.send(layer.table_words())
        self.scales.send(layer.scale_words(order))
        for row, columns, beat in layer.result_beats(order, self.width):
            self.results.send([beat])
            ends = [int(beat[name]) for name in ("last_of_row", "last_of_tile", "last")]
            self.expected.append((self.golden[row][columns], *ends))

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
    stalls=[*((s, s, s, s) for s in STALLS), (0.9, 0, 0.2, 0), (0, 0.8, 0.2, 0.9)],
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
        layer = RequantizeLayer(
            rng, m, n, relu=rng.getrandbits(1), rounding=rng.randrange(3), use_table=use_table
        )
        await Bench(dut, layer, dataflow, block=rng.randint(1, 3), stalls=stalls).finish()
        await reset(dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(relu=[0, 1], use_table=[0, 1], rounding=[0, 1, 2])
async def rounds_and_clips(dut: Any, relu: int, use_table: int, rounding: int) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {relu} {use_table} {rounding}")
    for zero_out in (0, 255, rng.randrange(1, 255)):
        settings = {"relu": relu, "use_table": use_table, "rounding": rounding, "zero_out": zero_out}
        await Bench(dut, RequantizeLayer(rng, 20, 16, **settings)).finish()
        await reset(dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def is_exact_at_the_corners(dut: Any) -> None:
    """Every corner of the multiplier with every shift: corners of the sum, ties, and what is just below."""
    await start(dut, component(parameters()))
    scales = [(multiplier, shift) for multiplier in MULTIPLIERS for shift in range(1, 63)]
    layer = RequantizeLayer(random.Random(cocotb.RANDOM_SEED), len(scales), 16, zero_out=128)
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
    layer = RequantizeLayer(
        random.Random(cocotb.RANDOM_SEED), 2 * p["tile_m"], 8 * p["sums"], use_table=use_table
    )
    bench = Bench(dut, layer)
    while bench.results.sent < 1:
        await FallingEdge(dut.clk)
    refused = bench.results.refused
    await bench.finish()
    assert bench.results.refused == refused and bench.values.refused == 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def has_the_latency_that_it_documents(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, RequantizeLayer(random.Random(cocotb.RANDOM_SEED), 1, 1), stalls=(0, 0, 1.0, 0))
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
    layer = RequantizeLayer(random.Random(cocotb.RANDOM_SEED), p["tile_m"], 16 * p["sums"], use_table=1)
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
        layer = RequantizeLayer(random.Random(cocotb.RANDOM_SEED), 3, 1)
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
        layer = RequantizeLayer(rng, 2 * p["tile_m"] + 1, 2 * p["sums"] - 1, use_table=rng.getrandbits(1))
        bench = Bench(dut, layer, Dataflow.INPUT_STATIONARY, block=2, stalls=[stall] * 4)
        if stall:
            await ClockCycles(dut.clk, rng.randrange(5, 400 if layer.use_table else 50))
            bench.stop()
            await reset(dut)
        else:
            await bench.finish()
