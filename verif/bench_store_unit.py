"""Bench of hw/store_unit.py: what its jobs and beats write, for rows that begin and end anywhere."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.hw.store_unit import StoreUnit
from sliceforge.verif.psum_layers import DATAFLOWS, Layer, some_layer, stored_case
from sliceforge.verif.simulation import parameters
from sliceforge.verif.stored_rows import StoreBench, words
from sliceforge.verif.streams import STALLS, reset, start, to_fields

# Results wider than the bus, as wide, and narrower.
CASES = [
    stored_case(64, 32, 4, 8, 4),
    stored_case(256, 40, 8, 16, 8),
    stored_case(512, 32, 4, 12, 4),
    stored_case(32, 33, 4, 8, 8),
    stored_case(128, 64, 2, 6, 2),
]


def component(p: dict[str, Any]) -> StoreUnit:
    return StoreUnit(**p)


def plain(m: int, n: int) -> Layer:
    """Without partial sums."""
    p = parameters()
    return Layer(p["tile_m"], p["tile_n"], m, 1, n, 1, "OUTPUT_STATIONARY", 1, 0)


def some_places(layer: Layer, rng: random.Random) -> dict[str, Any]:
    """Any gap between rows, or none; partial sums anywhere, or resident."""
    p = parameters()
    stride = layer.n + rng.choice([0, 0, rng.randrange(2 * words()), rng.randrange(1 << 20)])
    size = (layer.m - 1) * stride + layer.n
    space = 1 << p["address_bits"] - 2
    psums = rng.choice([None, rng.randrange(0, space - (1 << 16), words()), 0])
    return {
        "first": rng.choice([rng.randrange(space - size), space - size]),
        "stride": stride,
        "psums": psums,
    }


@cocotb.test(timeout_time=500, timeout_unit="us")
async def places_rows_of_every_length_everywhere(dut: Any) -> None:
    """Each length of a row from each word of a beat on; the other rows of a layer lie as the stride wants."""
    await start(dut, component(parameters()))
    p = parameters()
    rng = random.Random(cocotb.RANDOM_SEED)
    for n in range(1, p["tile_n"] + 1):
        for offset in range(words()):
            first = rng.randrange(1 << 16) * words() + offset
            bench = StoreBench(dut, plain(2, n), first, n + rng.randrange(words()))
            await bench.begin()
            await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(dataflow=DATAFLOWS, stall=STALLS, beats=STALLS)
async def stores_layers(dut: Any, dataflow: str, stall: float, beats: float) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {dataflow} {stall} {beats}")
    layer = some_layer(rng, parameters(), dataflow, rng.randrange(5), steps=rng.randint(1, 4), most=2)
    bench = StoreBench(
        dut, layer, **some_places(layer, rng), stall=stall, jobs=rng.choice(STALLS), beats=beats
    )  # fmt: skip
    await bench.begin()
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(group=[0, 1, 2, 3, 4])
async def stores_partial_sums(dut: Any, group: int) -> None:
    """In rows of one or several beats of results, at the rate of the narrower side."""
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {group}")
    layer = some_layer(rng, parameters(), rng.choice(DATAFLOWS), group, steps=group + 2, most=2)
    for stall in (0.0, 0.4):
        bench = StoreBench(dut, layer, 1, layer.n, psums=1024, stall=stall, jobs=stall, beats=stall)
        await bench.begin()
        await bench.finish(limit=20_000 if stall else bench.cycles())


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(columns=["short", "ragged", "full"])
async def stores_at_the_rate_of_the_narrower_side(dut: Any, columns: str) -> None:
    """A cycle more for each row that spills into a beat of its own, and for the first job of each tile; a
    tile takes as long as the way to the next one, at least."""
    await start(dut, component(parameters()))
    p = parameters()
    n = {"short": min(p["sums"], words()), "ragged": 2 * p["tile_n"] - 1, "full": 2 * p["tile_n"]}[columns]
    for first, stride in ((0, 4 * words() * p["tile_n"]), (words() - 1, 3 * p["tile_n"] + 1)):
        bench = StoreBench(dut, plain(2 * p["tile_m"], n), first, stride)
        await bench.begin()
        await bench.finish(limit=bench.cycles())


@cocotb.test(timeout_time=500, timeout_unit="us")
async def needs_no_job_ahead_of_its_beats(dut: Any) -> None:
    """A taker that takes a job, then its beats, then the next job, gets everything."""
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    block = component(parameters())
    beats = block.beats.payload.shape()
    for group in (0, 3):
        layer = some_layer(rng, parameters(), "INPUT_STATIONARY", group, steps=3, most=2)
        bench = StoreBench(dut, layer, 5, layer.n + 2, psums=64, stall=0.2)
        bench.jobs.stop()
        bench.beats.stop()
        await bench.begin()
        for row in bench.rows:
            await take(dut, "jobs", block.jobs.payload.shape(), bench.jobs.received)
            for _ in row.beats:
                await take(dut, "beats", beats, bench.beats.received)
        await bench.finish(limit=1)


async def take(dut: Any, name: str, layout: Any, received: list[Any]) -> None:
    """One payload from stream ``name``; ready comes after valid."""
    await ReadOnly()
    while not getattr(dut, f"{name}__valid").value:
        await FallingEdge(dut.clk)
        await ReadOnly()
    received.append(to_fields(layout, int(getattr(dut, f"{name}__payload").value)))
    await FallingEdge(dut.clk)
    getattr(dut, f"{name}__ready").value = 1
    await FallingEdge(dut.clk)
    getattr(dut, f"{name}__ready").value = 0


@cocotb.test(timeout_time=500, timeout_unit="us")
async def promises_nothing_without_results(dut: Any) -> None:
    """No job before the first result; then those of its tile, and none of the next tile."""
    await start(dut, component(parameters()))
    p = parameters()
    rows = min(3, p["tile_m"])
    bench = StoreBench(dut, plain(rows, 2 * p["tile_n"]), 5, 2 * p["tile_n"], stall=1.0)
    await bench.begin()
    await ClockCycles(dut.clk, 50)
    assert not bench.jobs.received and not bench.beats.received
    bench.results.stall = 0.0
    while bench.results.sent < bench.tiles.index(1):
        await FallingEdge(dut.clk)
        bench.results.stall = float(bench.results.sent >= bench.tiles.index(1) - 1)
    await ClockCycles(dut.clk, 50)
    assert len(bench.jobs.received) == rows
    assert len(bench.beats.received) == sum(len(row.beats) for row in bench.rows[:rows])
    bench.results.stall = 0.5
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def marks_rows_past_the_space(dut: Any) -> None:
    """The job of a row behind the end of the space has an address behind it; its rows before are stored."""
    await start(dut, component(parameters()))
    p = parameters()
    n, space = p["tile_n"], 1 << p["address_bits"] - 2
    bench = StoreBench(dut, plain(2, n), space - n, n)
    await bench.begin()
    await ClockCycles(dut.clk, 100)
    assert [job["address"] for job in bench.jobs.received] == [4 * (space - n), 4 * space]
    assert bench.written()[0] == bench.rows[0].memory
    bench.stop()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def starts_again_after_a_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    p = parameters()
    for stall in (0.0, 0.1, 0.2, 0.5, 0.8, 1.0):
        layer = some_layer(rng, p, rng.choice(DATAFLOWS), 2, steps=3, most=2)
        bench = StoreBench(dut, layer, 3, layer.n + 2, psums=0, stall=0.1, jobs=stall, beats=stall)
        await bench.begin()
        await ClockCycles(dut.clk, rng.randrange(2, 60))
        bench.stop()
        await reset(dut)
        bench = StoreBench(dut, layer, **some_places(layer, rng), stall=0.2, beats=0.2)
        await bench.begin()
        await bench.finish()
