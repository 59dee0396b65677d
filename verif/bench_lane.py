"""Bench of hw/lane.py: sums and steps of tiles of every sparsity, cycle by cycle, and reset.

The expected sums come from whole weights and activations; the slices are what the lane is given.
"""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.hw.lane import Lane
from sliceforge.hw.operator import Operator
from sliceforge.verif import records
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, Source, quiet, reset, start

CASES = [
    {"vector": 4, "weight_slices": 2, "max_k": 64, "fifo_depth": 8},
    {"vector": 2, "weight_slices": 1, "max_k": 13, "fifo_depth": 2},
    {"vector": 8, "weight_slices": 3, "max_k": 32, "fifo_depth": 4},
    {"vector": 2, "weight_slices": 3, "max_k": 16, "fifo_depth": 3},
    {"vector": 8, "weight_slices": 1, "max_k": 16, "fifo_depth": 5},
    {"vector": 2, "weight_slices": 2, "max_k": 32, "fifo_depth": 64},
]


def component(p: dict[str, Any]) -> Lane:
    rest = {key: value for key, value in p.items() if key != "max_k"}
    rest |= {"packing": 2, "packed_products": p["vector"], "table_products": 0}
    return Lane(**rest, accumulator_bits=records.accumulator_bits(p))


def signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


class Bench:
    """A layer: its tiles, the sums that they must give, and the steps that they take."""

    def __init__(
        self, dut: Any, layer: dict[str, int] | None = None, *, stall: float = 0.2, sums: float | None = None
    ) -> None:
        self.p = parameters()
        self.dut = dut
        block = component(self.p)
        self.rng = np.random.default_rng([cocotb.RANDOM_SEED, round(100 * stall)])
        self.layer = layer or records.random_layer(self.rng, self.p["weight_slices"])
        dut.layer_slices.value = self.layer["slices"]
        self.weights = Source(dut, "weights", block.weights.payload.shape(), stall=stall)
        self.activations = Source(dut, "activations", block.activations.payload.shape(), stall=stall)
        self.sums = Sink(dut, "sums", block.sums.payload.shape(), stall=stall if sums is None else sums)
        self.expected: list[tuple[list[int], int]] = []  # v results, sum of kept weights
        self.steps: list[int] = []  # of each tile
        self.trace: list[int] = []  # busy in each cycle
        self._watch = cocotb.start_soon(self._watch_busy())

    def send(self, weights: Any, activations: Any, fillers: float = 0.1) -> None:
        p, slices = self.p, self.layer["slices"]
        dense = max(1, p["weight_slices"] - 1)
        w_records, w_kept = records.weight_records(self.rng, weights, slices, dense, fillers)
        x_records, x_kept = records.activation_records(self.rng, activations, self.layer, fillers)
        self.weights.send(w_records)
        self.activations.send(x_records)
        sums, kept_weights = (
            records.compensated(weights, activations, self.layer),
            weights[:, x_kept].sum(axis=1),
        )
        self.expected += [(sums[r].tolist(), int(kept_weights[r])) for r in range(p["vector"])]
        self.steps.append(records.outer_products(slices, w_kept, x_kept))

    def send_random(self, k: int, weight_sparsity: float, activation_sparsity: float) -> None:
        v = self.p["vector"]
        weights = records.random_weights(self.rng, self.layer["slices"], (v, k), weight_sparsity)
        self.send(weights, records.random_activations(self.rng, self.layer, (k, v), activation_sparsity))

    def lengths(self) -> list[int]:
        top = self.p["max_k"]
        return [1, 1, 2, 7, 13, int(self.rng.integers(1, top + 1)), top, 1]

    async def _watch_busy(self) -> None:
        while True:
            await FallingEdge(self.dut.clk)
            await ReadOnly()
            self.trace.append(int(self.dut.busy.value))

    def stop(self) -> None:
        self._watch.cancel()
        for driver in (self.weights, self.activations, self.sums):
            driver.stop()

    async def finish(self) -> None:
        await quiet(self.dut, self.sums, expected=[len(self.expected)], limit=20_000)
        bits, layer = records.accumulator_bits(self.p), self.layer
        for row, (results, kept_weights) in zip(self.sums.received, self.expected, strict=True):
            assert signed(row["kept_weights"], bits - 8) == kept_weights
            subtrahend = 16 * layer["frequent"] * kept_weights
            sums = [signed(sum_, bits) - subtrahend for sum_ in row["accumulators"]]
            assert [sum_ << (layer["lo_bits"] - 4) for sum_ in sums] == results
        assert self.weights.idle and self.activations.idle
        assert sum(self.trace) == sum(self.steps)
        self.stop()


@cocotb.test()
@cocotb.parametrize(stall=STALLS, sparsity=[(0, 0), (1, 1), (0, 1), (1, 0), (0.5, 0.5), (0.9, 0.7)])
async def multiplies(dut: Any, stall: float, sparsity: tuple[float, float]) -> None:
    """Tiles in a row: K = 1, primes, the longest; all kept, none, and random."""
    await start(dut, component(parameters()), layer_slices=1)
    bench = Bench(dut, stall=stall)
    for k in bench.lengths():
        bench.send_random(k, *sparsity)
    await bench.finish()


@cocotb.test()
async def multiplies_layers_of_fewer_slices(dut: Any) -> None:
    """Layers one after another, without a reset; every lo_bits, the largest and the smallest r."""
    await start(dut, component(parameters()), layer_slices=1)
    for slices in [*range(1, parameters()["weight_slices"] + 1), 1]:
        for lo_bits in (4, 5, 6):
            for frequent in (0, (1 << 8 - lo_bits) - 1):
                bench = Bench(dut, {"slices": slices, "lo_bits": lo_bits, "frequent": frequent})
                for k in (1, 5, bench.p["max_k"]):
                    bench.send_random(k, 0.5, 0.5)
                await bench.finish()


@cocotb.test()
async def reaches_both_ends(dut: Any) -> None:
    """The largest and the smallest sums that K = max_k can give."""
    await start(dut, component(parameters()), layer_slices=1)
    p = parameters()
    top = 1 << 3 * p["weight_slices"]
    for lo_bits in (4, 6):
        largest = (1 << 8 - lo_bits) - 1
        bench = Bench(dut, {"slices": p["weight_slices"], "lo_bits": lo_bits, "frequent": 0})
        bench.send(np.full((p["vector"], p["max_k"]), -top), np.full((p["max_k"], p["vector"]), 255))
        bench.send(np.full((p["vector"], p["max_k"]), top - 1), np.full((p["max_k"], p["vector"]), 255))
        await bench.finish()
        for fillers in (0.0, 1.0):  # x stands for r in all of them, or in none; kept, all the same
            bench = Bench(dut, {"slices": p["weight_slices"], "lo_bits": lo_bits, "frequent": largest})
            for weight in (-top, top - 1):
                for x in (0, 255):
                    shape = (p["vector"], p["max_k"])
                    bench.send(np.full(shape, weight), np.full(shape[::-1], x), fillers)
            await bench.finish()


@cocotb.test()
@cocotb.parametrize(sparsity=[(0, 0), (1, 1), (0.5, 0.5)])
async def works_in_every_cycle(dut: Any, sparsity: tuple[float, float]) -> None:
    """A step a cycle from a tile's first to its last, then LATENCY + vector - 1 cycles for its sums."""
    await start(dut, component(parameters()), layer_slices=1)
    bench = Bench(dut, stall=0.0)
    for k in (20, 1, bench.p["max_k"], 2, 3):
        bench.send_random(min(k, bench.p["max_k"]), *sparsity)
    bench.trace.clear()
    await bench.finish()
    gap = [0] * (Operator.LATENCY + bench.p["vector"] - 1)
    expected = [busy for steps in bench.steps for busy in [1] * steps + gap]
    first = bench.trace.index(1)
    # The first record is on offer in the first cycle of the trace, and in the FIFO a cycle later.
    assert first == 1
    assert bench.trace[first : first + len(expected)] == expected
    assert not any(bench.trace[first + len(expected) :])


@cocotb.test()
async def holds_still_until_its_sums_have_left(dut: Any) -> None:
    """Meanwhile only the FIFOs fill; no step of the next tile is issued."""
    await start(dut, component(parameters()), layer_slices=1)
    bench = Bench(dut, stall=0.0, sums=1.0)
    k, depth = 5, bench.p["fifo_depth"]
    for _ in range(2 + depth // k + 1):
        bench.send_random(k, 0.5, 0.5)
    await ClockCycles(dut.clk, 200)
    assert sum(bench.trace) == bench.steps[0]
    assert bench.weights.sent == bench.activations.sent == k + depth
    assert dut.sums__valid.value == 1
    bench.sums.stall = 0.0
    await bench.finish()


@cocotb.test()
async def forgets_a_tile_at_reset(dut: Any) -> None:
    """In the middle of its steps, and of its sums."""
    await start(dut, component(parameters()), layer_slices=1)
    for sums in (1.0, 0.5):
        bench = Bench(dut, stall=0.0, sums=sums)
        for _ in range(5):
            bench.send_random(7, 0.5, 0.5)
        while sum(bench.trace) < bench.steps[0] // 2 if sums == 1.0 else not bench.sums.received:
            await FallingEdge(dut.clk)
        bench.stop()
        await reset(dut)
        bench = Bench(dut)
        for k in bench.lengths():
            bench.send_random(k, 0.5, 0.5)
        await bench.finish()
