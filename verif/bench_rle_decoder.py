"""Bench of hw/rle_decoder.py: every position of random and corner tiles, malformed streams, reset."""

from __future__ import annotations

import random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, FallingEdge

from sliceforge.hw.rle_decoder import RLEDecoder
from sliceforge.sim import rle_encode
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, Source, quiet, reset, start

CASES = [
    {"vector": 4, "run_bits": 4, "tile_k": 16, "max_count": 255},
    {"vector": 2, "run_bits": 1, "tile_k": 4, "max_count": 15},
    {"vector": 8, "run_bits": 6, "tile_k": 64, "max_count": 255},
    {"vector": 4, "run_bits": 8, "tile_k": 128, "max_count": 255},
]


def component(p: dict[str, Any]) -> RLEDecoder:
    return RLEDecoder(**p)


def random_tile(rng: random.Random, tile_k: int, vector: int, sparsity: float) -> np.ndarray:
    """(length, vector) slices; each vector is all 0 (compressed) with probability ``sparsity``."""
    length = rng.choice([1, 2, tile_k - 1, tile_k, rng.randint(1, tile_k)])
    tile = np.array([[rng.randrange(16) for _ in range(vector)] for _ in range(length)])
    tile[[rng.random() < sparsity for _ in range(length)]] = 0
    return tile


def bits(vector: Any) -> int:
    return sum(int(slice_) << 4 * i for i, slice_ in enumerate(vector))


class Bench:
    def __init__(self, dut: Any, stall: float) -> None:
        block = component(parameters())
        self.p = parameters()
        self.dut = dut
        self.tiles = Source(dut, "tiles", block.tiles.payload.shape(), stall=stall)
        self.entries = Source(dut, "entries", block.entries.payload.shape(), stall=stall)
        self.vectors = Sink(dut, "vectors", block.vectors.payload.shape(), stall=stall)
        self.expected: list[tuple[int, int, int]] = []  # kept, data, last

    def send(self, tile: np.ndarray) -> None:
        """A tile, coded by the golden encoder; fillers are kept vectors of zeros."""
        entries = rle_encode(tile, 0, self.p["run_bits"])
        self.tiles.send([{"length": len(tile), "count": len(entries)}])
        self.entries.send({"skip": e.skip, "data": bits(e.data)} for e in entries)
        kept = {e.position for e in entries}
        for k, vector in enumerate(tile):
            self.expected.append((int(k in kept), bits(vector) if k in kept else 0, int(k == len(tile) - 1)))

    def check(self) -> None:
        got = [(v["kept"], v["data"], v["last"]) for v in self.vectors.received]
        assert got == self.expected

    def stop(self) -> None:
        for driver in (self.tiles, self.entries, self.vectors):
            driver.stop()

    async def finish(self) -> None:
        await quiet(self.dut, self.vectors, expected=[len(self.expected)])
        self.check()
        assert self.tiles.idle and self.entries.idle
        assert self.dut.malformed.value == 0


@cocotb.test()
@cocotb.parametrize(stall=STALLS, sparsity=[0.0, 0.5, 0.95, 1.0])
async def decodes(dut: Any, stall: float, sparsity: float) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, stall)
    rng = random.Random(f"{cocotb.RANDOM_SEED} {stall} {sparsity}")
    for _ in range(20):
        bench.send(random_tile(rng, bench.p["tile_k"], bench.p["vector"], sparsity))
    await bench.finish()


@cocotb.test()
async def takes_a_position_a_cycle(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, 0.0)
    rng = random.Random(cocotb.RANDOM_SEED)
    bench.send(np.array([[rng.randrange(1, 16)] * bench.p["vector"] for _ in range(bench.p["tile_k"])]))
    await ClockCycles(dut.clk, bench.p["tile_k"] + 3)
    assert len(bench.vectors.received) == bench.p["tile_k"]
    await bench.finish()


@cocotb.test()
@cocotb.parametrize(case=["past_the_tile", "count_too_large"])
async def stops_at_a_malformed_stream(dut: Any, case: str) -> None:
    """The error is flagged and nothing more comes out; after a reset the next tile is decoded."""
    await start(dut, component(parameters()))
    bench = Bench(dut, 0.2)
    length = bench.p["tile_k"] - 1
    if case == "past_the_tile":  # the only entry's position is the tile's length
        runs, left = [], length + 1
        while left > 0:
            runs.append(min(left, 1 << bench.p["run_bits"]))
            left -= runs[-1]
        entries = [{"skip": run - 1, "data": 1} for run in runs]
    else:
        entries = [{"skip": 0, "data": 1}] * (length + 1)
    bench.tiles.send([{"length": length, "count": len(entries)}] * 2)
    bench.entries.send(entries * 2)
    await ClockCycles(dut.clk, 20 * length + 100)
    assert dut.malformed.value == 1
    assert len(bench.vectors.received) <= length

    bench.stop()
    await reset(dut)
    await FallingEdge(dut.clk)
    assert dut.malformed.value == 0
    bench = Bench(dut, 0.2)
    bench.send(np.ones((length, bench.p["vector"]), int))
    await bench.finish()


@cocotb.test()
async def forgets_a_tile_at_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, 0.2)
    rng = random.Random(cocotb.RANDOM_SEED)
    for _ in range(5):
        bench.send(random_tile(rng, bench.p["tile_k"], bench.p["vector"], 0.5))
    await ClockCycles(dut.clk, bench.p["tile_k"])
    bench.stop()
    await reset(dut)
    bench = Bench(dut, 0.0)
    for _ in range(5):
        bench.send(random_tile(rng, bench.p["tile_k"], bench.p["vector"], 0.5))
    await bench.finish()
