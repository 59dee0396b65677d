"""Bench of hw/bias_buffer.py: both halves in turn, the rows of each dataflow, back-pressure."""

from __future__ import annotations

import random
from itertools import chain
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.gen.dataflow import Dataflow
from sliceforge.hw.bias_buffer import BiasBuffer
from sliceforge.hw.payloads import bias_layout, nest_layout
from sliceforge.hw.tile_nest import TileNest
from sliceforge.verif.loop_nest import Nest, random_nest
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Source, reset, start, to_int

CASES = [
    {"tile_m": 8, "tile_n": 4, "k_bits": 8},
    {"tile_m": 2, "tile_n": 16, "k_bits": 6},
    {"tile_m": 20, "tile_n": 6, "k_bits": 13},
]


def component(p: dict[str, Any]) -> BiasBuffer:
    return BiasBuffer(**p)


class Bench:
    """A layer and the biases of each row of tiles in turn; some more follow, which are the next layer's."""

    def __init__(self, dut: Any, stall: float, nest: Nest) -> None:
        self.dut, self.stall = dut, stall
        self.rng = random.Random(f"{cocotb.RANDOM_SEED} {stall} {nest}")
        self.source = Source(dut, "biases", bias_layout(), stall=stall)
        dut.loops.value = to_int(nest_layout(), nest.loops)
        self.tiles = [[self.rng.getrandbits(32) for _ in range(rows)] for rows, _, _ in nest.row_order()]
        self.count = sum(map(len, self.tiles))
        self.source.send({"bias": bias} for bias in [*chain(*self.tiles), 1, 2, 3])

    async def read_tile(self, number: int, columns: int) -> None:
        """All biases of a row of tiles, once for each column of tiles; frees it."""
        dut, tile = self.dut, self.tiles[number]
        first = sum(map(len, self.tiles[:number]))
        await ReadOnly()
        while dut.available.value == 0:
            assert self.source.sent < first + len(tile)
            await FallingEdge(dut.clk)
            await ReadOnly()
        assert self.source.sent >= first + len(tile)
        await FallingEdge(dut.clk)
        rows = list(range(len(tile))) * columns
        for row in self.rng.sample(rows, len(rows)):
            while self.rng.random() < self.stall:
                await FallingEdge(dut.clk)
            dut.row.value = row
            assert dut.available.value == 1
            await FallingEdge(dut.clk)
            assert int(dut.bias.value) == tile[row], f"row {first + row}"
        dut.slot_freed.value = 1
        await FallingEdge(dut.clk)
        dut.slot_freed.value = 0

    async def finish(self, columns: int = 2) -> None:
        for number in range(len(self.tiles)):
            await self.read_tile(number, columns)
        await ClockCycles(self.dut.clk, 50)
        assert self.source.sent == self.count
        assert self.dut.available.value == 0


def one_column(m: int) -> Nest:
    """The rows of a layer once."""
    p = parameters()
    return Nest(m=m, n=1, k=5, tile_m=p["tile_m"], tile_n=p["tile_n"], chunk=3, k_tile=2)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def holds_biases(dut: Any) -> None:
    """Every number of rows around that of a tile, once."""
    await start(dut, component(parameters()))
    tile_m = parameters()["tile_m"]
    for i, m in enumerate([1, tile_m - 1, tile_m, tile_m + 1, 2 * tile_m, 5 * tile_m - 1, 6 * tile_m]):
        bench = Bench(dut, STALLS[i % 3], one_column(m))
        await bench.finish(columns=bench.rng.randint(1, 3))
        bench.source.stop()
        await reset(dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(dataflow=list(Dataflow))
async def follows_the_rows_of_a_dataflow(dut: Any, dataflow: Dataflow) -> None:
    """Rows that come again for each block, or for each column."""
    await start(dut, component(parameters()))
    p, rng = parameters(), random.Random(f"{cocotb.RANDOM_SEED} {dataflow}")
    for i in range(8):
        nest = random_nest(rng, dataflow, (p["tile_m"], p["tile_n"], 4), most=(3, 3, 2, 2))
        bench = Bench(dut, STALLS[i % 3], nest)
        await bench.finish(columns=1)
        bench.source.stop()
        await reset(dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def takes_two_rows_of_tiles_ahead(dut: Any) -> None:
    """A bias a cycle, and no more than that, until both halves are full; a half more when one is done."""
    await start(dut, component(parameters()))
    tile_m, settles = parameters()["tile_m"], TileNest.SETTLES + 1
    bench = Bench(dut, 0.0, one_column(5 * tile_m))
    # The first bias is taken as many cycles after the reset as the rows of tiles need, and so is the second
    # row's first after the first one's; but a cycle is between two rows of tiles.
    await ClockCycles(dut.clk, settles + max(tile_m + 1, settles) + tile_m)
    assert bench.source.sent == 2 * tile_m - 1
    await FallingEdge(dut.clk)
    for i in range(3):
        assert bench.source.sent == (2 + i) * tile_m
        await ClockCycles(dut.clk, 20)
        assert bench.source.sent == (2 + i) * tile_m
        await bench.read_tile(i, 1)
        await ClockCycles(dut.clk, tile_m + 1)
        await FallingEdge(dut.clk)
    for i in (3, 4):
        await bench.read_tile(i, 1)
    await ClockCycles(dut.clk, 20)
    assert bench.source.sent == 5 * tile_m and dut.available.value == 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def forgets_a_layer_at_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    tile_m = parameters()["tile_m"]
    for stall in (0.1, 0.2, 0.3, 0.0):
        bench = Bench(dut, stall, one_column(3 * tile_m - 1))
        if stall:
            await bench.read_tile(0, 1)
            await ClockCycles(dut.clk, bench.rng.randrange(2 * tile_m))
            bench.source.stop()
            await reset(dut)
        else:
            await bench.finish()
