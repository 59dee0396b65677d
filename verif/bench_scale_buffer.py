"""Bench of hw/scale_buffer.py: scales of all dataflows' rows, both halves in turn, what is out of range."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.gen.dataflow import Dataflow
from sliceforge.hw.payloads import nest_layout, word_layout
from sliceforge.hw.scale_buffer import ScaleBuffer, scale_layout
from sliceforge.hw.tile_nest import TileNest
from sliceforge.sim.schedule import Schedule
from sliceforge.verif.schedules import DATAFLOWS, loops, schedule, some_shape
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Source, reset, start, to_fields, to_int

CASES = [
    {"tile_m": 5, "tile_n": 4, "k_bits": 8},
    {"tile_m": 2, "tile_n": 2, "k_bits": 1},
    {"tile_m": 64, "tile_n": 64, "k_bits": 21},
]


def component(p: dict[str, Any]) -> ScaleBuffer:
    return ScaleBuffer(**p)


def layer(m: int, n: int, dataflow: Dataflow = Dataflow.OUTPUT_STATIONARY, block: int = 1) -> Schedule:
    p = parameters()
    return schedule(m, n, tile_m=p["tile_m"], tile_n=p["tile_n"], dataflow=dataflow, block=block)


class Bench:
    """Sends a scale for each row that the schedule names, each time another one; to a unit that may be out of
    reset for long, as a layer's descriptor is fetched meanwhile."""

    def __init__(self, dut: Any, order: Schedule, stall: float) -> None:
        self.dut, self.stall = dut, stall
        self.rng = rng = random.Random(f"{cocotb.RANDOM_SEED} {order} {stall}")
        self.source = Source(dut, "scales", word_layout(), stall=stall)
        dut.loops.value = to_int(nest_layout(), loops(order, rng))
        self.tiles = [[self.scale() for _ in range(rows.start, rows.stop)] for rows in order.parameter_rows()]
        for tile in self.tiles:
            for scale in tile:
                self.source.send({"word": scale[name]} for name in ("multiplier", "shift"))
        self.sent = 0  # words, up to the end of the tile that was read last

    def scale(self) -> dict[str, int]:
        rng = self.rng
        ends = rng.choice([(0, 1), ((1 << 31) - 1, 62), (rng.getrandbits(31), rng.randint(1, 62))])
        return dict(zip(("multiplier", "shift"), ends, strict=True))

    async def read_tile(self, number: int, times: int = 1) -> None:
        """All scales of a tile, ``times`` over, in any order; then frees it."""
        dut, rng, tile = self.dut, self.rng, self.tiles[number]
        self.sent += 2 * len(tile)
        await ReadOnly()
        while dut.available.value == 0:
            assert self.source.sent < self.sent
            await FallingEdge(dut.clk)
            await ReadOnly()
        assert self.source.sent >= self.sent
        await FallingEdge(dut.clk)
        rows = list(range(len(tile))) * times
        for row in rng.sample(rows, len(rows)):
            while rng.random() < self.stall:
                await FallingEdge(dut.clk)
            dut.row.value = row
            assert dut.available.value == 1
            await FallingEdge(dut.clk)
            assert to_fields(scale_layout(), int(dut.scale.value)) == tile[row], f"tile {number}, row {row}"
        dut.slot_freed.value = 1
        await FallingEdge(dut.clk)
        dut.slot_freed.value = 0

    async def finish(self) -> None:
        for number in range(len(self.tiles)):
            await self.read_tile(number, self.rng.randint(1, 2))
        await ClockCycles(self.dut.clk, 20)
        assert self.source.idle and self.source.sent == self.sent
        assert self.dut.available.value == 0 and self.dut.bad_scale.value == 0
        self.source.stop()
        await reset(self.dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(dataflow=DATAFLOWS, stall=STALLS)
async def holds_scales(dut: Any, dataflow: Dataflow, stall: float) -> None:
    """Of the rows in the order of the dataflow: once, for each block of columns, or for each column."""
    await start(dut, component(parameters()))
    tile_m, tile_n = parameters()["tile_m"], parameters()["tile_n"]
    rng = random.Random(f"{cocotb.RANDOM_SEED} {dataflow} {stall}")
    shapes = [(3 * tile_m - 1, 2 * tile_n + 1), some_shape(rng, tile_m, tile_n)]
    shapes += [(1, tile_n), (tile_m + 1, 1)] if stall == 0.2 else []
    for m, n in shapes:
        await other_loops(dut, rng)
        await Bench(dut, layer(m, n, dataflow, rng.randint(1, 3)), stall).finish()


async def other_loops(dut: Any, rng: random.Random) -> None:
    """None and any, between reset and the layer."""
    for bits in (0, rng.getrandbits(len(dut.loops))):
        dut.loops.value = bits
        await ClockCycles(dut.clk, rng.choice([0, 1, 20]))
        await FallingEdge(dut.clk)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def takes_two_tiles_ahead(dut: Any) -> None:
    """A word a cycle, and no more than that, until both halves are full; a half more when one is done, of the
    next block too."""
    await start(dut, component(parameters()))
    tile_m, tile_n = parameters()["tile_m"], parameters()["tile_n"]
    bench = Bench(dut, layer(2 * tile_m, 2 * tile_n, Dataflow.WEIGHT_STATIONARY), 0.0)
    # The rows of tiles stand a while after the first word came, and a while after the first ones stood.
    settles, count = TileNest.SETTLES + 1, 2 * tile_m
    await ClockCycles(dut.clk, 1 + 1 + settles + max(count + 1, settles) + count)
    assert bench.source.sent == 2 * count - 1
    await FallingEdge(dut.clk)
    for number in range(3):
        expected = 2 * tile_m * min(4, 2 + number)
        assert bench.source.sent == expected
        await ClockCycles(dut.clk, 20)
        assert bench.source.sent == expected
        await bench.read_tile(number)
        await ClockCycles(dut.clk, 2 * tile_m + 1)
        await FallingEdge(dut.clk)
    await bench.read_tile(3)
    await ClockCycles(dut.clk, 20)
    assert bench.source.idle and dut.available.value == 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def reports_what_is_out_of_range(dut: Any) -> None:
    """From the cycle after the word until reset; neither word's range is the other's."""
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    tile_m = parameters()["tile_m"]
    most = (1 << 32) - 1
    bad = [(1 << 31, 1), (most, 62), (1, 0), (1, 63), (0, 64 + 5), (0, 1 << 31), (5, most)]
    for multiplier, shift in [(64, 62), (0, 1), *bad]:
        bench = Bench(dut, layer(tile_m, 1), 0.2)
        at = rng.randrange(tile_m)
        bench.source.queue[2 * at : 2 * at + 2] = [multiplier, shift]
        wrong = 2 * at + (multiplier < 1 << 31)  # the word that is
        while bench.source.sent < 2 * tile_m:
            await ReadOnly()
            late = (multiplier, shift) in bad and bench.source.sent > wrong
            assert dut.bad_scale.value == late
            await FallingEdge(dut.clk)
        await ReadOnly()
        assert dut.bad_scale.value == ((multiplier, shift) in bad)
        await FallingEdge(dut.clk)
        bench.source.stop()
        await reset(dut)
        assert dut.bad_scale.value == 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def forgets_a_layer_at_reset(dut: Any) -> None:
    """Between the two words of a row, too."""
    await start(dut, component(parameters()))
    tile_m, tile_n = parameters()["tile_m"], parameters()["tile_n"]
    for stall in (0.1, 0.2, 0.3, 0.4, 0.0):
        bench = Bench(dut, layer(3 * tile_m - 1, 2 * tile_n, Dataflow.INPUT_STATIONARY, 2), stall)
        if stall:
            await bench.read_tile(0)
            await ClockCycles(dut.clk, bench.rng.randrange(2 * tile_m))
            bench.source.stop()
            await reset(dut)
        else:
            await bench.finish()
