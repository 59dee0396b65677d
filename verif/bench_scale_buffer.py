"""Bench of hw/scale_buffer.py: both halves in turn, the scale of every row, passes, back-pressure."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.hw.scale_buffer import ScaleBuffer, scale_layout, word_layout
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Source, reset, start, to_fields

CASES = [{"tile_m": 8}, {"tile_m": 2}, {"tile_m": 5}, {"tile_m": 64}]


def component(p: dict[str, Any]) -> ScaleBuffer:
    return ScaleBuffer(**p)


class Bench:
    """A layer of ``m`` rows; in each of ``passes`` other scales come, with noise in the bits above them."""

    def __init__(self, dut: Any, stall: float, m: int, passes: int = 1) -> None:
        self.dut, self.stall, self.tile_m = dut, stall, parameters()["tile_m"]
        self.rng = rng = random.Random(f"{cocotb.RANDOM_SEED} {stall} {m} {passes}")
        self.source = Source(dut, "scales", word_layout(), stall=stall)
        dut.m.value = m
        words = [(rng.getrandbits(32), rng.getrandbits(32)) for _ in range(passes * m)]
        self.source.send({"word": word} for pair in words for word in pair)
        scales = [{"multiplier": a & ((1 << 31) - 1), "shift": b & 63} for a, b in words]
        passed = [scales[i * m : (i + 1) * m] for i in range(passes)]
        self.tiles = [some[i : i + self.tile_m] for some in passed for i in range(0, m, self.tile_m)]
        self.sent = 0  # words, up to the end of the tile that was read last

    async def read_tile(self, number: int, times: int) -> None:
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

    async def finish(self, times: int = 2) -> None:
        for number in range(len(self.tiles)):
            await self.read_tile(number, times)
        await ClockCycles(self.dut.clk, 50)
        assert self.source.idle and self.source.sent == self.sent
        assert self.dut.available.value == 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def holds_scales(dut: Any, stall: float) -> None:
    await start(dut, component(parameters()))
    tile_m = parameters()["tile_m"]
    for m in (1, tile_m - 1, tile_m, tile_m + 1, 2 * tile_m, 5 * tile_m - 1):
        bench = Bench(dut, stall, m, passes=3 if m <= 2 * tile_m else 1)
        await bench.finish(times=bench.rng.randint(1, 2))
        bench.source.stop()
        await reset(dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def takes_two_tiles_ahead(dut: Any) -> None:
    """A word a cycle until both halves are full; a half more when one is done. The next pass is no matter."""
    await start(dut, component(parameters()))
    tile_m = parameters()["tile_m"]
    bench = Bench(dut, 0.0, 2 * tile_m, passes=2)
    await ClockCycles(dut.clk, 4 * tile_m + 1)
    await FallingEdge(dut.clk)
    for number in range(3):
        expected = 2 * tile_m * min(4, 2 + number)
        assert bench.source.sent == expected
        await ClockCycles(dut.clk, 20)
        assert bench.source.sent == expected
        await bench.read_tile(number, 1)
        await ClockCycles(dut.clk, 2 * tile_m + 1)
        await FallingEdge(dut.clk)
    await bench.read_tile(3, 1)
    await ClockCycles(dut.clk, 20)
    assert bench.source.idle and dut.available.value == 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def forgets_a_layer_at_reset(dut: Any) -> None:
    """Between the two words of a row, too."""
    await start(dut, component(parameters()))
    tile_m = parameters()["tile_m"]
    for stall in (0.1, 0.2, 0.3, 0.4, 0.5, 0.0):
        bench = Bench(dut, stall, 3 * tile_m - 1)
        if stall:
            await bench.read_tile(0, 1)
            await ClockCycles(dut.clk, bench.rng.randrange(2 * tile_m))
            bench.source.stop()
            await reset(dut)
        else:
            await bench.finish()
