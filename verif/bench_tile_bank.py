"""Bench of hw/tile_bank.py: slots are written while others are read; every record is checked."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.gen.config import TileLayout
from sliceforge.hw.tile_bank import TileBank
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, Source, quiet, reset, start
from sliceforge.verif.tiles import Tile, as_seen, random_length, random_tile

CASES = [
    {"layout": {"vector": 4, "dense": 1, "run_bits": 4, "tile_k": 16}, "slots": 3},
    {"layout": {"vector": 2, "dense": 2, "run_bits": 1, "tile_k": 8}, "slots": 2},
    {"layout": {"vector": 8, "dense": 1, "run_bits": 6, "tile_k": 4}, "slots": 102},
]


def component(p: dict[str, Any]) -> TileBank:
    return TileBank(layout=TileLayout(**p["layout"]), slots=p["slots"])


class Bench:
    """Writes tiles into the ring of slots, in order, as slots are freed, and has each read some times."""

    def __init__(self, dut: Any, stall: float) -> None:
        block = component(parameters())
        self.dut, self.stall = dut, stall
        self.slots, self.layout = parameters()["slots"], TileLayout(**parameters()["layout"])
        self.rng = random.Random(f"{cocotb.RANDOM_SEED} {stall}")
        self.dense = self.rng.randint(1, self.layout.dense)
        dut.dense.value = self.dense
        self.tiles = Source(dut, "tiles", block.tiles.payload.shape(), stall=stall)
        self.records = Sink(dut, "records", block.records.payload.shape(), stall=stall)
        self.pending: list[tuple[dict[int, int], int, int]] = []  # slot, length, passes
        self.expected: list[Any] = []
        self.placed = self.freed = self.added = 0
        self.tasks = [cocotb.start_soon(self.fill()), cocotb.start_soon(self.count_freed())]

    def add_random(self, count: int, sparsity: float) -> None:
        for _ in range(count):
            length = random_length(self.rng, self.layout.tile_k)
            self.add(random_tile(self.rng, self.layout, length=length, dense=self.dense, sparsity=sparsity))

    def add(self, tile: Tile) -> None:
        passes = self.rng.choice([1, 1, 2, 3])
        self.pending.append((tile.slot(), len(tile), passes))
        self.added += 1
        for i in range(passes):
            self.expected += tile.records(i & 1)

    async def fill(self) -> None:
        """A slot's granules in any order, with gaps; its count comes beside noise."""
        dut, rng = self.dut, self.rng
        await FallingEdge(dut.clk)
        while True:
            if not self.pending or self.placed - self.freed == self.slots:
                await FallingEdge(dut.clk)
                continue
            slot, length, passes = self.pending.pop(0)
            base = self.placed % self.slots * self.layout.slot_granules
            for offset, granule in sorted(slot.items(), key=lambda _: rng.random()):
                while rng.random() < self.stall:
                    await FallingEdge(dut.clk)
                dut.write.value = 1
                dut.write_address.value = base + offset
                dut.write_header.value = int(offset == 0)
                dut.write_count.value = granule if offset == 0 else rng.getrandbits(8)
                noise = rng.getrandbits(self.layout.granule_bits)
                dut.write_granule.value = noise if offset == 0 else granule
                await FallingEdge(dut.clk)
                dut.write.value = 0
            self.placed += 1
            self.tiles.send(
                {"base": base, "length": length, "release": i == passes - 1, "last": i & 1}
                for i in range(passes)
            )

    async def count_freed(self) -> None:
        await FallingEdge(self.dut.clk)
        while True:
            await ReadOnly()
            self.freed += int(self.dut.slot_freed.value == 1)
            await FallingEdge(self.dut.clk)

    def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.dut.write.value = 0
        self.tiles.stop()
        self.records.stop()

    async def finish(self) -> None:
        await quiet(self.dut, self.records, expected=[len(self.expected)], limit=20_000)
        assert [as_seen(record, self.dense) for record in self.records.received] == self.expected
        assert self.tiles.idle and not self.pending
        assert self.freed == self.added
        assert self.dut.malformed.value == 0


@cocotb.test()
@cocotb.parametrize(stall=STALLS, sparsity=[0.0, 0.7, 1.0])
async def holds_tiles(dut: Any, stall: float, sparsity: float) -> None:
    """Enough tiles to use each slot, the last one too, more than once."""
    await start(dut, component(parameters()))
    bench = Bench(dut, stall)
    bench.add_random(10 + 2 * bench.slots, sparsity)
    await bench.finish()


@cocotb.test()
async def flags_a_malformed_tile(dut: Any) -> None:
    """An entry that lies past its tile; after a reset all is well."""
    await start(dut, component(parameters()))
    bench = Bench(dut, 0.2)
    length = bench.layout.tile_k
    tile = Tile(bench.layout, [[k] * bench.dense for k in range(length)], [0] * (length - 1) + [1])
    bench.pending.append((tile.slot(), length - 1, 2))
    await ClockCycles(dut.clk, 20 * length + 100)
    assert dut.malformed.value == 1
    assert len(bench.records.received) < length

    bench.stop()
    await reset(dut)
    assert dut.malformed.value == 0
    bench = Bench(dut, 0.2)
    bench.add_random(3, 0.5)
    await bench.finish()


@cocotb.test()
async def forgets_its_tiles_at_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, 0.2)
    bench.add_random(5, 0.3)
    await ClockCycles(dut.clk, bench.rng.randrange(30, 60))
    bench.stop()
    await reset(dut)
    bench = Bench(dut, 0.0)
    bench.add_random(5, 0.3)
    await bench.finish()
