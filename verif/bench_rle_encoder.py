"""Bench of hw/rle_encoder.py: entries, fillers and counts against the golden encoder; cycles; reset."""

from __future__ import annotations

import itertools
import random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, FallingEdge

from sliceforge.hw.rle_encoder import RLEEncoder
from sliceforge.sim import rle_encode
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, Source, quiet, reset, start

CASES = [
    {"vector": 4, "run_bits": 2, "tile_k": 16},
    {"vector": 2, "run_bits": 1, "tile_k": 4},
    {"vector": 8, "run_bits": 4, "tile_k": 64},
    {"vector": 2, "run_bits": 6, "tile_k": 128},
    {"vector": 4, "run_bits": 8, "tile_k": 32},  # no run is long enough for a filler
]


def component(p: dict[str, Any]) -> RLEEncoder:
    return RLEEncoder(**p)


def bits(vector: Any) -> int:
    return sum(int(slice_) << 4 * i for i, slice_ in enumerate(vector))


class Bench:
    """Sends tiles with one frequent slice; ``stalls`` of vectors, entries and counts."""

    def __init__(self, dut: Any, frequent: int, stalls: tuple[float, float, float] = (0, 0, 0)) -> None:
        block = component(parameters())
        self.p = parameters()
        self.dut = dut
        self.frequent = frequent
        dut.frequent.value = frequent
        self.vectors = Source(dut, "vectors", block.vectors.payload.shape(), stall=stalls[0])
        self.entries = Sink(dut, "entries", block.entries.payload.shape(), stall=stalls[1])
        self.counts = Sink(dut, "counts", block.counts.payload.shape(), stall=stalls[2])
        self.expected: list[tuple[int, int]] = []  # skip, data
        self.lengths: list[int] = []  # entries of each tile
        self.fillers = 0
        self._order = cocotb.start_soon(self._watch_order())

    def send(self, tile: np.ndarray) -> None:
        last = len(tile) - 1
        self.vectors.send({"data": bits(vector), "last": k == last} for k, vector in enumerate(tile))
        entries = rle_encode(tile, self.frequent, self.p["run_bits"])
        self.expected += [(e.skip, bits(e.data)) for e in entries]
        self.lengths.append(len(entries))
        self.fillers += int(entries.filler.sum())

    def random_tile(self, rng: random.Random, sparsity: float) -> np.ndarray:
        """(length, vector); a kept vector differs from the frequent one in one slice, or in most."""
        tile_k, vector = self.p["tile_k"], self.p["vector"]
        length = rng.choice([1, 2, tile_k - 1, tile_k, rng.randint(1, tile_k)])
        tile = np.full((length, vector), self.frequent)
        for k in range(length):
            if rng.random() >= sparsity:
                tile[k, rng.randrange(vector)] ^= rng.randrange(1, 16)
                if rng.random() < 0.5:
                    tile[k] = [rng.randrange(16) for _ in range(vector)]
        return tile

    async def _watch_order(self) -> None:
        """A tile's count never comes before its entries."""
        while True:
            await FallingEdge(self.dut.clk)
            assert sum(self.counts.received) <= len(self.entries.received)

    def stop(self) -> None:
        self._order.cancel()
        for driver in (self.vectors, self.entries, self.counts):
            driver.stop()

    async def finish(self) -> None:
        expected = [len(self.expected), len(self.lengths)]
        await quiet(self.dut, self.entries, self.counts, expected=expected, limit=20_000)
        assert [(e["skip"], e["data"]) for e in self.entries.received] == self.expected
        assert self.counts.received == self.lengths
        assert self.vectors.idle
        self.stop()


@cocotb.test()
@cocotb.parametrize(
    stalls=[*((s, s, s) for s in STALLS), (0.0, 0.8, 0.0), (0.0, 0.0, 0.8), (0.8, 0.2, 0.2)],
    sparsity=[0.0, 0.5, 0.95, 1.0],
)
async def encodes(dut: Any, stalls: tuple[float, float, float], sparsity: float) -> None:
    """Tiles back to back; the frequent slice changes only where all has left."""
    await start(dut, component(parameters()), frequent=0)
    rng = random.Random(f"{cocotb.RANDOM_SEED} {stalls} {sparsity}")
    for frequent in (0, 15, rng.randrange(1, 15)):
        bench = Bench(dut, frequent, stalls)
        for _ in range(6 if bench.p["tile_k"] <= 16 else 2):
            bench.send(bench.random_tile(rng, sparsity))
        await bench.finish()


@cocotb.test()
async def encodes_every_pattern(dut: Any) -> None:
    """Every pattern of kept and compressed vectors in tiles of up to 7, in every order of length."""
    await start(dut, component(parameters()), frequent=0)
    bench = Bench(dut, 5, (0.0, 0.1, 0.1))
    for length in range(1, min(bench.p["tile_k"], 7) + 1):
        for pattern in itertools.product((0, 1), repeat=length):
            tile = np.full((length, bench.p["vector"]), bench.frequent)
            tile[np.flatnonzero(pattern), length % bench.p["vector"]] = np.flatnonzero(pattern) + 6
            bench.send(tile)
    await bench.finish()


@cocotb.test()
async def breaks_long_runs(dut: Any) -> None:
    """One kept vector, just before and after the run is too long for its entries: each number of fillers."""
    await start(dut, component(parameters()), frequent=0)
    bench = Bench(dut, 3, (0.0, 0.2, 0.2))
    tile_k, step = bench.p["tile_k"], 1 << bench.p["run_bits"]
    near = {k + offset for k in range(0, tile_k + 1, step) for offset in (-1, 0)} | {tile_k - 1}
    positions = sorted(near & set(range(tile_k)))
    for position in positions:
        tile = np.full((tile_k, bench.p["vector"]), bench.frequent)
        tile[position, -1] = 4
        bench.send(tile)
    assert bench.fillers == sum(position // step for position in positions)
    await bench.finish()


@cocotb.test()
@cocotb.parametrize(sparsity=[0.0, 0.5, 0.95])
async def takes_a_vector_a_cycle(dut: Any, sparsity: float) -> None:
    """A cycle for each vector and each filler, the ends of tiles included, where nothing stalls."""
    await start(dut, component(parameters()), frequent=0)
    bench = Bench(dut, 9)
    rng = random.Random(f"{cocotb.RANDOM_SEED} {sparsity}")
    for _ in range(10):
        bench.send(bench.random_tile(rng, sparsity))
    await bench.finish()
    assert bench.vectors.refused == bench.fillers


@cocotb.test()
@cocotb.parametrize(blocked=["entries", "counts"])
async def waits_for_either_stream(dut: Any, blocked: str) -> None:
    """With one of its outputs blocked, no vector passes that needs it, and nothing is lost or doubled."""
    await start(dut, component(parameters()), frequent=0)
    bench = Bench(dut, 7, (0.0, float(blocked == "entries"), float(blocked == "counts")))
    for _ in range(3):
        bench.send(np.full((2, bench.p["vector"]), 1))
    await ClockCycles(dut.clk, 20)
    assert bench.vectors.sent == (0 if blocked == "entries" else 1)
    assert len(bench.entries.received) == (0 if blocked == "entries" else 2)
    assert bench.counts.received == []
    bench.entries.stall = bench.counts.stall = 0.0
    await bench.finish()


@cocotb.test()
async def forgets_a_tile_at_reset(dut: Any) -> None:
    """In the middle of a run; and where a tile's last entry has left, but not its count."""
    await start(dut, component(parameters()), frequent=0)
    rng = random.Random(cocotb.RANDOM_SEED)
    for case in ("run", "count"):
        bench = Bench(dut, 2, (0.0, 0.0, float(case == "count")))
        tile = np.full((bench.p["tile_k"], bench.p["vector"]), 2)
        tile[:: 1 if case == "count" else 3] = 1
        bench.send(tile)
        await ClockCycles(dut.clk, bench.p["tile_k"] + 5 if case == "count" else 3)
        assert bench.entries.received and not bench.counts.received
        bench.stop()
        await reset(dut)
        bench = Bench(dut, 2)
        for _ in range(5):
            bench.send(bench.random_tile(rng, 0.5))
        await bench.finish()
