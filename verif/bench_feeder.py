"""Bench of hw/feeder.py: every record of random and corner tiles, read from a RAM that is modelled here."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.gen.config import TileLayout
from sliceforge.hw.feeder import Feeder
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, Source, quiet, reset, start
from sliceforge.verif.tiles import Tile, as_seen, latency, random_length, random_tile

CASES = [
    {"vector": 4, "dense": 1, "run_bits": 4, "tile_k": 16},
    {"vector": 2, "dense": 2, "run_bits": 1, "tile_k": 4},
    {"vector": 4, "dense": 2, "run_bits": 3, "tile_k": 32},
    {"vector": 8, "dense": 1, "run_bits": 6, "tile_k": 64},
    {"vector": 4, "dense": 1, "run_bits": 8, "tile_k": 128},
]
SLOTS = 3


def component(p: dict[str, Any]) -> Feeder:
    layout = TileLayout(**p)
    return Feeder(layout=layout, address_bits=(SLOTS * layout.slot_granules - 1).bit_length())


class Bench:
    """Tiles wait in `pending` for a slot of the RAM; a slot is overwritten as soon as it is freed."""

    def __init__(self, dut: Any, stall: float, dense: int) -> None:
        block = component(parameters())
        self.dut, self.dense, self.layout = dut, dense, TileLayout(**parameters())
        self.tiles = Source(dut, "tiles", block.tiles.payload.shape(), stall=stall)
        self.records = Sink(dut, "records", block.records.payload.shape(), stall=stall)
        self.rng = random.Random(f"{cocotb.RANDOM_SEED} {stall} {dense}")
        self.ram = [self.noise() for _ in range(SLOTS * self.layout.slot_granules)]
        self.pending: list[tuple[dict[int, int], int, int, int]] = []  # slot, length, passes, ends
        self.expected: list[Any] = []
        self.placed = self.freed = self.added = 0
        dut.dense.value = dense
        self.task = cocotb.start_soon(self.memory())

    def noise(self) -> int:
        return self.rng.getrandbits(self.layout.granule_bits)

    def add(self, tile: Tile, passes: int = 1) -> None:
        """``tile`` is read ``passes`` times and then released; half the times it ends an output tile."""
        ends = self.rng.getrandbits(passes)
        self.pending.append((tile.slot(), len(tile), passes, ends))
        self.added += 1
        for i in range(passes):
            self.expected += tile.records(ends >> i & 1)

    def add_random(self, count: int, sparsity: float) -> None:
        for _ in range(count):
            length = random_length(self.rng, self.layout.tile_k)
            tile = random_tile(self.rng, self.layout, length=length, dense=self.dense, sparsity=sparsity)
            self.add(tile, self.rng.choice([1, 1, 2, 3]))

    def place(self) -> None:
        slot, length, passes, ends = self.pending.pop(0)
        base = self.placed % SLOTS * self.layout.slot_granules
        self.placed += 1
        for offset, granule in slot.items():
            self.ram[base + offset] = granule
        self.tiles.send(
            {"base": base, "length": length, "release": i == passes - 1, "last": ends >> i & 1}
            for i in range(passes)
        )

    async def memory(self) -> None:
        """Answers a read in the cycle after it, and only then."""
        dut, granules = self.dut, self.layout.slot_granules
        await FallingEdge(dut.clk)
        while True:
            while self.pending and self.placed - self.freed < SLOTS:
                self.place()
            await ReadOnly()
            address = int(dut.address.value) if dut.read.value == 1 else None
            freed = dut.slot_freed.value == 1
            await FallingEdge(dut.clk)
            dut.granule.value = self.noise() if address is None else self.ram[address % len(self.ram)]
            if freed:
                base = self.freed % SLOTS * granules
                self.ram[base : base + granules] = [self.noise() for _ in range(granules)]
                self.freed += 1

    def stop(self) -> None:
        self.task.cancel()
        self.tiles.stop()
        self.records.stop()

    async def finish(self, wait: int = 20_000) -> None:
        await quiet(self.dut, self.records, expected=[len(self.expected)], limit=1 + wait)
        assert [as_seen(record, self.dense) for record in self.records.received] == self.expected
        assert self.tiles.idle and not self.pending
        assert self.freed == self.added
        assert self.dut.malformed.value == 0


async def each_dense(dut: Any) -> AsyncIterator[int]:
    """The numbers of LO slices that a layer may have; a reset before each."""
    await start(dut, component(parameters()))
    for dense in range(1, parameters()["dense"] + 1):
        await reset(dut)
        yield dense


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS, sparsity=[0.0, 0.5, 0.95, 1.0])
async def reads_tiles(dut: Any, stall: float, sparsity: float) -> None:
    async for dense in each_dense(dut):
        bench = Bench(dut, stall, dense)
        bench.add_random(12, sparsity)
        await bench.finish()
        bench.stop()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(sparsity=[0.0, 0.5, 1.0])
async def reads_a_record_a_cycle(dut: Any, sparsity: float) -> None:
    """Full tiles follow each other without a gap, unless there are more granules to fetch than positions."""
    passes = 20
    async for dense in each_dense(dut):
        bench = Bench(dut, 0.0, dense)
        length = bench.layout.tile_k
        tile = random_tile(bench.rng, bench.layout, length=length, dense=dense, sparsity=sparsity)
        bench.add(tile, passes)
        gap = int(dense == 2 or length < 16 or bench.layout.entries_per_granule < 3)
        while not bench.records.received:
            await FallingEdge(dut.clk)
        await ClockCycles(dut.clk, passes * max(length + gap, len(tile.slot()) + 1))
        await bench.finish(wait=0)
        bench.stop()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(sparsity=[0.0, 1.0])
async def has_the_latency_that_it_documents(dut: Any, sparsity: float) -> None:
    await start(dut, component(parameters()), dense=1)
    bench = Bench(dut, 0.0, 1)
    bench.add(random_tile(bench.rng, bench.layout, length=1, dense=1, sparsity=sparsity))
    assert await latency(dut, "tiles", "records") == (6 if sparsity else 7)
    await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(case=["past_the_tile", "count_too_large"])
async def stops_at_a_malformed_tile(dut: Any, case: str) -> None:
    """The error is flagged and nothing of the next tile comes out; after a reset all is well."""
    await start(dut, component(parameters()), dense=1)
    bench = Bench(dut, 0.2, 1)
    layout, length = bench.layout, bench.layout.tile_k - 1
    if case == "past_the_tile":  # the last entry's position is the tile's length
        tile = Tile(layout, [[k] for k in range(length + 1)], [0] * length + [1])
        slot = tile.slot()
    else:
        tile = Tile(layout, [[k] for k in range(length)], [1] * length)
        slot = tile.slot() | {0: 255}
    bench.pending += [(slot, length, 1, 0)] * 2
    await ClockCycles(dut.clk, 40 * length + 100)
    assert dut.malformed.value == 1
    seen = [as_seen(record, 1) for record in bench.records.received]
    assert seen[: length - 1] == tile.records(0)[: length - 1] and len(seen) <= length

    bench.stop()
    await reset(dut)
    assert dut.malformed.value == 0
    bench = Bench(dut, 0.2, 1)
    bench.add_random(3, 0.5)
    await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def forgets_its_tiles_at_reset(dut: Any) -> None:
    async for dense in each_dense(dut):
        bench = Bench(dut, 0.2, dense)
        bench.add_random(5, 0.3)
        await ClockCycles(dut.clk, bench.rng.randrange(20, 40))
        bench.stop()
        await reset(dut)
        bench = Bench(dut, 0.0, dense)
        bench.add_random(5, 0.3)
        await bench.finish()
        bench.stop()
