"""Bench of hw/image_way.py: the granules of every tile, written in any order of banks; cycles; reset."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge

from sliceforge.gen.config import TileLayout
from sliceforge.hw.image_way import ImageWay
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import Sink, quiet, reset, start
from sliceforge.verif.tiles import Tile, image, join, random_length, random_tile

CASES = [
    {"vector": 4, "run_bits": 2, "tile_k": 16, "banks": 3},
    {"vector": 2, "run_bits": 5, "tile_k": 64, "banks": 9},  # counts in three granules
    {"vector": 8, "run_bits": 8, "tile_k": 12, "banks": 1},  # no run is long enough for a filler
]


def layout() -> TileLayout:
    p = parameters()
    return TileLayout(p["vector"], 1, p["run_bits"], p["tile_k"])


def component(p: dict[str, Any]) -> ImageWay:
    return ImageWay(layout=TileLayout(p["vector"], 1, p["run_bits"], p["tile_k"]), banks=p["banks"])


class Bench:
    """Writes tiles, each into the other half, as long as one is free, and reads them in order."""

    def __init__(self, dut: Any, frequent: int, *, gap: float = 0.0, stall: float = 0.0) -> None:
        self.dut, self.p, self.gap = dut, parameters(), gap
        self.frequent = frequent
        dut.frequent.value = frequent
        self.rng = random.Random(f"{cocotb.RANDOM_SEED} {frequent} {gap} {stall}")
        self.granules = Sink(dut, "granules", layout().granule_bits, stall=stall)
        self.tiles: list[tuple[int, list[Tile]]] = []  # used banks; a tile of each bank
        self.expected: list[int] = []
        self.written = self.read = 0
        self.cycles: list[int] = []  # of each read, from start to ended
        self.tasks = [cocotb.start_soon(self.write()), cocotb.start_soon(self.reads())]

    def tile(self, length: int, sparsity: float) -> Tile:
        tile = random_tile(self.rng, layout(), length=length, dense=1, sparsity=sparsity)
        # Its own frequent slice becomes the bench's: the vectors' difference from it stays.
        frequent = join([self.frequent] * self.p["vector"], 4)
        return Tile(tile.layout, tile.lo, [hi ^ tile.frequent ^ frequent for hi in tile.hi], frequent)

    def send(self, used: int, length: int, sparsity: float, kept: list[int] | None = None) -> None:
        """A tile of ``length`` positions in ``used`` banks; only the vectors at ``kept`` kept, if given."""
        frequent = join([self.frequent] * self.p["vector"], 4)
        tiles = [self.tile(length, sparsity) for _ in range(used)]
        for tile in tiles if kept is not None else ():
            tile.hi[:] = [frequent ^ (8 if k in kept else 0) for k in range(length)]
        padding = Tile(layout(), [[0]] * length, [frequent] * length, frequent)
        self.tiles.append((used, tiles))
        beats = image(tiles + [padding] * (self.p["banks"] - used), 1)
        self.expected += [beat["granules"][0] for beat in beats]

    async def write(self) -> None:
        dut, rng, vector_bits = self.dut, self.rng, 4 * self.p["vector"]
        while True:
            await FallingEdge(dut.clk)
            if self.written == len(self.tiles) or self.written > self.read + 1:
                continue
            used, tiles = self.tiles[self.written]
            for position in range(len(tiles[0])):
                for bank in rng.sample(range(used), used):
                    while rng.random() < self.gap:
                        for noise in (dut.lo, dut.hi):
                            noise.value = rng.getrandbits(vector_bits)
                        dut.write.value = 0
                        await FallingEdge(dut.clk)
                    dut.write.value, dut.write_half.value = 1, self.written % 2
                    dut.bank.value, dut.position.value = bank, position
                    dut.lo.value, dut.hi.value = tiles[bank].lo[position][0], tiles[bank].hi[position]
                    await FallingEdge(dut.clk)
                    dut.write.value = 0
            self.written += 1

    async def reads(self) -> None:
        dut = self.dut
        while True:
            await FallingEdge(dut.clk)
            if self.read == self.written:
                continue
            used, tiles = self.tiles[self.read]
            assert dut.ended.value == 1
            dut.read_half.value, dut.used.value = self.read % 2, used
            dut.lo_granules.value = len(tiles[0].lo_granules())
            dut.start.value = 1
            await FallingEdge(dut.clk)
            dut.start.value = 0
            self.cycles.append(0)
            looked = False
            while dut.ended.value == 0:
                if dut.granules__valid.value == 1 and not looked:
                    looked = True
                    assert dut.ho_granules.value == sum(len(tile.ho_granules()) for tile in tiles)
                self.cycles[-1] += 1
                await FallingEdge(dut.clk)
            assert looked
            self.read += 1

    def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.dut.write.value = self.dut.start.value = 0
        self.granules.stop()

    async def finish(self) -> None:
        await quiet(self.dut, self.granules, expected=[len(self.expected)], limit=50_000)
        assert self.granules.received == self.expected
        assert self.read == len(self.tiles) and self.dut.ended.value == 1
        self.stop()
        await reset(self.dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize((("stall", "sparsity"), [(0.0, 0.0), (0.0, 0.95), (0.2, 0.5), (0.2, 1.0), (0.8, 0.5)]))
async def gives_tiles(dut: Any, stall: float, sparsity: float) -> None:
    """Back to back, the next one written while one is read, with each number of banks that are used."""
    await start(dut, component(parameters()))
    for frequent, gap in ((0, 0.0), (15, 0.3)):
        bench = Bench(dut, frequent, gap=gap, stall=stall)
        for used in (bench.p["banks"], 1, (bench.p["banks"] + 1) // 2, bench.p["banks"]):
            bench.send(used, random_length(bench.rng, bench.p["tile_k"]), sparsity)
        await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def breaks_long_runs(dut: Any) -> None:
    """One kept vector, just before and after a filler is needed; fillers with no vector after them."""
    await start(dut, component(parameters()))
    bench = Bench(dut, 3)
    tile_k, step = bench.p["tile_k"], 1 << bench.p["run_bits"]
    near = {k + offset for k in range(0, tile_k + 1, step) for offset in (-1, 0)} | {tile_k - 1}
    for position in sorted(near & set(range(tile_k)))[:24]:
        bench.send(bench.p["banks"], tile_k, 1.0, [position])
        bench.send(bench.p["banks"], tile_k, 1.0, [0, position])
    await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def gives_tiles_of_every_length(dut: Any) -> None:
    """Up to 9; what is left of a longer tile in the same half does not show."""
    await start(dut, component(parameters()))
    bench = Bench(dut, 9)
    for length in range(1, min(bench.p["tile_k"], 9) + 1):
        bench.send(bench.p["banks"], bench.p["tile_k"], 0.0)
        bench.send(bench.p["banks"], bench.p["tile_k"], 0.0)
        bench.send(bench.p["banks"], length, 0.7)
        bench.send(1, length, 0.3)
    await bench.finish()


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(sparsity=[0.0, 0.9, 1.0])
async def gives_a_granule_a_cycle(dut: Any, sparsity: float) -> None:
    """A cycle for each bank to count, then one for each granule, without a pause."""
    await start(dut, component(parameters()))
    bench = Bench(dut, 5)
    banks = bench.p["banks"]
    for _ in range(4):
        bench.send(banks, bench.p["tile_k"], sparsity)
    expected = [banks + len(image(tiles, 1)) for _, tiles in bench.tiles]
    await bench.finish()
    assert bench.cycles == expected


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def forgets_tiles_at_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    for stall in (0.0, 0.3, 0.6, 0.8, 0.9):
        bench = Bench(dut, rng.randrange(16), stall=stall)
        for _ in range(3):
            bench.send(bench.p["banks"], bench.p["tile_k"], 0.3)
        while not bench.read and not bench.written:
            await FallingEdge(dut.clk)
        await ClockCycles(dut.clk, rng.randrange(2, 60))
        bench.stop()
        await reset(dut)
        bench = Bench(dut, rng.randrange(16), stall=0.2)
        for used in (1, bench.p["banks"]):
            bench.send(used, random_length(bench.rng, bench.p["tile_k"]), 0.6)
        await bench.finish()
