"""Bench of hw/bias_buffer.py: both halves in turn, the bias of every row, back-pressure."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.hw.bias_buffer import BiasBuffer
from sliceforge.hw.payloads import bias_layout
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Source, reset, start

CASES = [{"tile_m": 8}, {"tile_m": 2}, {"tile_m": 20}, {"tile_m": 64}]


def component(p: dict[str, Any]) -> BiasBuffer:
    return BiasBuffer(**p)


class Bench:
    """A layer of ``m`` rows and its biases; some more follow, which are the next layer's."""

    def __init__(self, dut: Any, stall: float, m: int) -> None:
        self.dut, self.stall, self.tile_m = dut, stall, parameters()["tile_m"]
        self.rng = random.Random(f"{cocotb.RANDOM_SEED} {stall} {m}")
        self.source = Source(dut, "biases", bias_layout(), stall=stall)
        dut.m.value = m
        self.biases = [self.rng.getrandbits(32) for _ in range(m)]
        self.source.send({"bias": bias} for bias in [*self.biases, 1, 2, 3])

    async def read_tile(self, first: int, columns: int) -> None:
        """All biases of the row of tiles from row ``first``, once for each column of tiles; frees it."""
        dut = self.dut
        tile = self.biases[first : first + self.tile_m]
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
        for first in range(0, len(self.biases), self.tile_m):
            await self.read_tile(first, columns)
        await ClockCycles(self.dut.clk, 50)
        assert self.source.sent == len(self.biases)
        assert self.dut.available.value == 0


def row_counts() -> list[int]:
    tile_m = parameters()["tile_m"]
    return [1, tile_m - 1, tile_m, tile_m + 1, 2 * tile_m, 5 * tile_m - 1, 6 * tile_m]


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def holds_biases(dut: Any, stall: float) -> None:
    await start(dut, component(parameters()))
    for m in row_counts():
        bench = Bench(dut, stall, m)
        await bench.finish(columns=bench.rng.randint(1, 3))
        bench.source.stop()
        await reset(dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def takes_two_rows_of_tiles_ahead(dut: Any) -> None:
    """A bias a cycle until both halves are full; a half more when one is done."""
    await start(dut, component(parameters()))
    tile_m = parameters()["tile_m"]
    bench = Bench(dut, 0.0, 5 * tile_m)
    await ClockCycles(dut.clk, 2 * tile_m + 1)
    await FallingEdge(dut.clk)
    for i in range(3):
        assert bench.source.sent == (2 + i) * tile_m
        await ClockCycles(dut.clk, 20)
        assert bench.source.sent == (2 + i) * tile_m
        await bench.read_tile(i * tile_m, 1)
        await ClockCycles(dut.clk, tile_m + 1)
        await FallingEdge(dut.clk)
    for i in (3, 4):
        await bench.read_tile(i * tile_m, 1)
    await ClockCycles(dut.clk, 20)
    assert bench.source.sent == 5 * tile_m and dut.available.value == 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def forgets_a_layer_at_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    tile_m = parameters()["tile_m"]
    for stall in (0.1, 0.2, 0.3, 0.0):
        bench = Bench(dut, stall, 3 * tile_m - 1)
        if stall:
            await bench.read_tile(0, 1)
            await ClockCycles(dut.clk, bench.rng.randrange(2 * tile_m))
            bench.source.stop()
            await reset(dut)
        else:
            await bench.finish()
