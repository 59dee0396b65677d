"""Bench of hw/result_unit.py: every beat of full and ragged tiles; banks and biases are modelled here."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.hw.payloads import output_tile_layout, result_layout
from sliceforge.hw.result_unit import ResultUnit
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, Source, quiet, reset, start
from sliceforge.verif.tiles import join, latency

CASES = [
    {"pea_count": 2, "lanes": 2, "vector": 4, "slots": 4, "result_lanes": 1},
    {"pea_count": 3, "lanes": 4, "vector": 2, "slots": 3, "result_lanes": 4},
    {"pea_count": 2, "lanes": 6, "vector": 8, "slots": 2, "result_lanes": 2},
    {"pea_count": 1, "lanes": 1, "vector": 2, "slots": 2, "result_lanes": 1},
]
MASK = (1 << 32) - 1


def component(p: dict[str, Any]) -> ResultUnit:
    return ResultUnit(**p)


class Bench:
    """A layer of (m, n): its tiles, one bank a PEA, which each gets its part of a tile some time, and biases.

    What a bank does not hold, not yet or not any more, reads as noise, and so do biases.
    """

    def __init__(self, dut: Any, stall: float, m: int, n: int, *, late: float = 0.0) -> None:
        self.dut, self.p, self.late = dut, parameters(), late
        p = self.p
        self.rng = rng = random.Random(f"{cocotb.RANDOM_SEED} {stall} {m} {n} {late}")
        self.tile_m, self.tile_n = p["pea_count"] * p["vector"], p["lanes"] * p["vector"]
        self.width = p["vector"] * p["result_lanes"]  # sums in a beat
        self.tiles = Source(dut, "tiles", output_tile_layout(self.tile_m, self.tile_n), stall=stall)
        self.results = Sink(dut, "results", result_layout(self.width), stall=stall)
        self.sums: list[list[list[int]]] = []  # [tile][row][column], whole tiles
        self.biases = [[rng.getrandbits(32) for _ in range(self.tile_m)] for _ in range(0, m, self.tile_m)]
        self.last_column: list[bool] = []
        self.expected: list[tuple[list[int], int, int]] = []
        for i, biases in enumerate(self.biases):
            for first in range(0, n, self.tile_n):
                rows, columns = min(self.tile_m, m - i * self.tile_m), min(self.tile_n, n - first)
                last_column = first + self.tile_n >= n
                last = last_column and i == len(self.biases) - 1
                self.tiles.send([
                    {"rows": rows, "columns": columns, "last_column": int(last_column), "last": int(last)}
                ])  # fmt: skip
                self.add(rows, columns, biases, last)
                self.last_column.append(last_column)
        self.complete = [0] * p["pea_count"]  # tiles that each bank has got
        self.freed = self.rows_done = 0  # tiles; rows of tiles
        self.bias_here = 0
        self.task = cocotb.start_soon(self.memories())

    def add(self, rows: int, columns: int, biases: list[int], last: bool) -> None:
        sums = [[self.rng.getrandbits(32) for _ in range(self.tile_n)] for _ in range(self.tile_m)]
        self.sums.append(sums)
        for r in range(rows):
            for c in range(0, columns, self.width):
                values = [(x + biases[r]) & MASK for x in sums[r][c : min(c + self.width, columns)]]
                ends = c + self.width >= columns
                self.expected.append((values, int(ends), int(ends and last and r == rows - 1)))

    def word(self, pea: int, address: int) -> int:
        """What bank ``pea`` holds at ``address``: a ring of tiles, row by row, ``width`` sums a word."""
        p = self.p
        slot, word = divmod(address, self.tile_n // self.width * p["vector"])
        row, beat = divmod(word, self.tile_n // self.width)
        tile = self.freed + (slot - self.freed) % p["slots"]
        if tile >= self.complete[pea]:
            return self.rng.getrandbits(32 * self.width)
        sums = self.sums[tile][pea * p["vector"] + row]
        return join(sums[beat * self.width : (beat + 1) * self.width], 32)

    async def memories(self) -> None:
        dut, p, rng = self.dut, self.p, self.rng
        bits = 32 * self.width
        await FallingEdge(dut.clk)
        while True:
            for pea in range(p["pea_count"]):
                space = min(len(self.sums), self.freed + p["slots"])
                self.complete[pea] += self.complete[pea] < space and rng.random() >= self.late
            if self.rows_done < len(self.biases):
                self.bias_here |= int(rng.random() >= self.late)
            here = [int(complete > self.freed) for complete in self.complete]
            dut.available.value = join(here, 1)
            dut.bias_available.value = self.bias_here
            await ReadOnly()
            address, row = int(dut.address.value), int(dut.bias_row.value)
            words = [self.word(pea, address) for pea in range(p["pea_count"])]
            bias = self.biases[self.rows_done][row] if self.bias_here else rng.getrandbits(32)
            freed, released = dut.slot_freed.value == 1, dut.bias_release.value == 1
            assert not freed or all(here)
            assert released == (freed and self.last_column[self.freed])
            self.freed += freed
            if released:
                self.rows_done += 1
                self.bias_here = 0
            await FallingEdge(dut.clk)
            dut.words.value = join(words, bits)
            dut.bias.value = bias

    def stop(self) -> None:
        self.task.cancel()
        self.tiles.stop()
        self.results.stop()

    async def finish(self, limit: int = 20_000) -> None:
        await quiet(self.dut, self.results, expected=[len(self.expected)], limit=limit)
        got = [(r["sums"][: r["count"]], r["last_of_row"], r["last"]) for r in self.results.received]
        assert got == self.expected
        assert self.tiles.idle and self.freed == len(self.sums) and self.rows_done == len(self.biases)


def shapes() -> list[tuple[int, int]]:
    """(m, n): one to three tiles each way; the last of them is full or nearly, or has one row or column."""
    tile_m, tile_n = tile()
    return [
        (1, 1), (tile_m, tile_n), (tile_m - 1, tile_n + 1), (2 * tile_m + 1, tile_n - 1 or 1),
        (tile_m + 1, 3 * tile_n), (3 * tile_m - 1, 2 * tile_n - 1),
    ]  # fmt: skip


def tile() -> tuple[int, int]:
    p = parameters()
    return p["pea_count"] * p["vector"], p["lanes"] * p["vector"]


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS, late=[0.0, 0.5, 0.95])
async def sends_layers(dut: Any, stall: float, late: float) -> None:
    await start(dut, component(parameters()))
    for m, n in shapes():
        bench = Bench(dut, stall, m, n, late=late)
        await bench.finish()
        bench.stop()
        await reset(dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def sends_a_beat_a_cycle(dut: Any) -> None:
    await start(dut, component(parameters()))
    tile_m, tile_n = tile()
    bench = Bench(dut, 0.0, 2 * tile_m, 2 * tile_n)
    while not bench.results.received:
        await FallingEdge(dut.clk)
    await ClockCycles(dut.clk, len(bench.expected))
    await bench.finish(limit=1)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def has_the_latency_that_it_documents(dut: Any) -> None:
    """From address to output FIFO, and a cycle through that."""
    await start(dut, component(parameters()))
    bench = Bench(dut, 0.0, 1, 1)
    assert await latency(dut, "tiles", "results") == ResultUnit.LATENCY + 1
    await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def waits_for_every_part_of_a_tile(dut: Any) -> None:
    """Rows leave as their PEAs finish; the slot is freed when all have, those that are padding too."""
    await start(dut, component(parameters()))
    p = parameters()
    tile_n = tile()[1]
    bench = Bench(dut, 0.0, 1, tile_n, late=1.0)
    bench.complete[0] = 1
    await ClockCycles(dut.clk, 100)
    assert not bench.results.received and not bench.freed  # the bias is missing
    bench.bias_here = 1
    await ClockCycles(dut.clk, 100)
    if p["pea_count"] > 1:
        assert len(bench.results.received) == len(bench.expected) - 1 and not bench.freed
    bench.complete = [1] * p["pea_count"]
    await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def forgets_a_layer_at_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    tile_m, tile_n = tile()
    for stall in (0.2, 0.3, 0.4, 0.5, 0.0):
        bench = Bench(dut, stall, 2 * tile_m, 2 * tile_n - 1, late=0.3)
        if stall:
            await ClockCycles(dut.clk, bench.rng.randrange(5, 40))
            bench.stop()
            await reset(dut)
        else:
            await bench.finish()
