"""Bench of hw/output_bank.py: tiles are written while older ones are read, word by word, and freed."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.hw.output_bank import OutputBank
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, reset, start
from sliceforge.verif.tiles import join

CASES = [
    {"lanes": 4, "vector": 4, "slots": 4, "result_lanes": 2, "drain_lanes": 1},
    {"lanes": 8, "vector": 2, "slots": 3, "result_lanes": 4, "drain_lanes": 2},
    {"lanes": 6, "vector": 8, "slots": 2, "result_lanes": 2, "drain_lanes": 2},
    {"lanes": 1, "vector": 2, "slots": 2, "result_lanes": 1, "drain_lanes": 1},
]


def component(p: dict[str, Any]) -> OutputBank:
    return OutputBank(**p)


class Bench:
    """Writes tiles as a PEA does: some lanes side by side, row by row; never more than there are slots."""

    def __init__(self, dut: Any, stall: float) -> None:
        self.dut, self.p, self.stall = dut, parameters(), stall
        self.rng = random.Random(f"{cocotb.RANDOM_SEED} {stall}")
        self.tiles: list[list[list[list[int]]]] = []  # [lane][row][column]
        self.started = self.completed = self.freed = 0
        self.tasks = [cocotb.start_soon(self.write()), cocotb.start_soon(self.watch())]

    def add(self, count: int) -> None:
        p = self.p
        for _ in range(count):
            self.tiles.append([
                [[self.rng.getrandbits(32) for _ in range(p["vector"])] for _ in range(p["vector"])]
                for _ in range(p["lanes"])
            ])  # fmt: skip

    async def write(self) -> None:
        dut, p, rng = self.dut, self.p, self.rng
        await FallingEdge(dut.clk)
        while True:
            if self.started == len(self.tiles) or self.started - self.freed == p["slots"]:
                await FallingEdge(dut.clk)
                continue
            tile = self.tiles[self.started]
            self.started += 1
            for first in range(0, p["lanes"], p["drain_lanes"]):
                for row in range(p["vector"]):
                    while rng.random() < self.stall:
                        await FallingEdge(dut.clk)
                    lanes = tile[first : first + p["drain_lanes"]]
                    dut.sums.value = join([sum_ for lane in lanes for sum_ in lane[row]], 32)
                    dut.sums_valid.value = 1
                    dut.tile_done.value = int(
                        (first, row) == (p["lanes"] - p["drain_lanes"], p["vector"] - 1)
                    )
                    await FallingEdge(dut.clk)
                    dut.sums_valid.value = dut.tile_done.value = 0
                    dut.sums.value = rng.getrandbits(32 * p["vector"] * p["drain_lanes"])
            self.completed += 1

    async def watch(self) -> None:
        await FallingEdge(self.dut.clk)
        while True:
            await ReadOnly()
            assert self.dut.available.value == int(self.completed > self.freed)
            await FallingEdge(self.dut.clk)

    async def read_tile(self) -> None:
        """All words of the oldest tile, in any order; then it is freed."""
        dut, p = self.dut, self.p
        await FallingEdge(dut.clk)
        while self.completed == self.freed:
            await FallingEdge(dut.clk)
        tile = self.tiles[self.freed]
        groups = p["lanes"] // p["result_lanes"]
        words = [(row, group) for row in range(p["vector"]) for group in range(groups)]
        for row, group in self.rng.sample(words, len(words)):
            while self.rng.random() < self.stall:
                await FallingEdge(dut.clk)
            dut.address.value = (self.freed % p["slots"] * p["vector"] + row) * groups + group
            await FallingEdge(dut.clk)
            lanes = range(group * p["result_lanes"], (group + 1) * p["result_lanes"])
            wanted = join([tile[lane][row][c] for lane in lanes for c in range(p["vector"])], 32)
            assert int(dut.word.value) == wanted, f"tile {self.freed}, row {row}, lanes {lanes}"
        dut.slot_freed.value = 1
        await FallingEdge(dut.clk)
        self.freed += 1
        dut.slot_freed.value = 0

    def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        for name in ("sums_valid", "tile_done", "slot_freed"):
            getattr(self.dut, name).value = 0

    async def finish(self) -> None:
        while self.freed < len(self.tiles):
            await self.read_tile()
        await ClockCycles(self.dut.clk, 20)
        assert self.started == self.completed == self.freed
        assert self.dut.available.value == 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def holds_tiles(dut: Any, stall: float) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, stall)
    bench.add(10)
    await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def holds_as_many_tiles_as_slots(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, 0.0)
    slots = bench.p["slots"]
    for _ in range(2):
        bench.add(slots)
        await ClockCycles(dut.clk, slots * bench.p["lanes"] * bench.p["vector"] + 10)
        assert bench.completed - bench.freed == slots
        await bench.read_tile()
        bench.add(1)
        await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def forgets_its_tiles_at_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    for stall in (0.2, 0.3, 0.4, 0.0):
        bench = Bench(dut, stall)
        bench.add(5)
        if stall:
            await bench.read_tile()
            await ClockCycles(dut.clk, bench.rng.randrange(20))
        else:
            await bench.finish()
        bench.stop()
        await reset(dut)
