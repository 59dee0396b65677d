"""Bench of hw/pea.py: the compensated sums of all lanes in order, credits, work, reset."""

from __future__ import annotations

import random
from typing import Any

import cocotb
import numpy as np
from amaranth.lib import data
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.hw.compensation import CompensationSubtract
from sliceforge.hw.operator import Operator
from sliceforge.hw.pea import PEA
from sliceforge.verif import records
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import Source, quiet, reset, start, to_fields

_NAMES = ("lanes", "vector", "drain_lanes", "weight_slices", "max_k", "fifo_depth", "output_slots")
_VALUES = [(2, 4, 1, 2, 64, 8, 4), (1, 2, 1, 1, 13, 2, 2), (3, 8, 1, 3, 32, 4, 3), (6, 2, 2, 3, 16, 3, 1),
           (2, 4, 2, 2, 32, 16, 7)]  # fmt: skip
CASES = [dict(zip(_NAMES, values, strict=True)) for values in _VALUES]

# Shares of stalls; sparsities of the weights, and of the lanes' activations in turn.
WORK = [
    (0.0, (0, 0)), (0.0, (0.5, 1, 0, 0.8)), (0.0, (0, 0, 1)), (0.2, (1, 1)), (0.2, (0.5, 0.5)),
    (0.2, (0.5, 1, 0, 0.8)), (0.8, (0.5, 0.5)), (0.8, (0, 0, 1)),
]  # fmt: skip


def component(p: dict[str, Any]) -> PEA:
    rest = {key: value for key, value in p.items() if key != "max_k"}
    rest |= {"packing": 2, "packed_products": 0, "table_products": 2}
    return PEA(**rest, accumulator_bits=records.accumulator_bits(p))


def rows_of_a_tile() -> int:
    """Cycles in which the sums of a tile leave."""
    p = parameters()
    return p["lanes"] // p["drain_lanes"] * p["vector"]


class OutputBank:
    """Receives the sums; gives a slot back, after its tile is in, with probability ``free`` a cycle."""

    def __init__(self, dut: Any, free: float) -> None:
        self.p = parameters()
        self.dut, self.free = dut, free
        self.received: list[tuple[list[int], int]] = []  # sums of drain_lanes lanes, tile_done
        self.freed = 0
        self.products: list[int] = []  # in each cycle
        self.done: list[int] = []  # cycles in which a tile was complete
        self._random = random.Random(cocotb.RANDOM_SEED)
        self._task = cocotb.start_soon(self._run())

    @property
    def tiles(self) -> int:
        return sum(done for _, done in self.received)

    def stop(self) -> None:
        self._task.cancel()
        self.dut.slot_freed.value = 0

    async def _run(self) -> None:
        dut = self.dut
        layout = data.ArrayLayout(32, self.p["drain_lanes"] * self.p["vector"])
        while True:
            frees = self.freed < self.tiles and self._random.random() < self.free
            dut.slot_freed.value = int(frees)
            self.freed += frees
            await ReadOnly()
            self.products.append(int(dut.products.value))
            if dut.sums_valid.value:
                sums = to_fields(layout, int(dut.sums.value))
                self.received.append(
                    ([s - (1 << 32) if s >> 31 else s for s in sums], int(dut.tile_done.value))
                )
                begun = -(-len(self.received) // rows_of_a_tile())
                assert begun - self.freed <= self.p["output_slots"], "a tile without a slot"
                if dut.tile_done.value:
                    self.done.append(len(self.products) - 1)
            else:
                assert dut.tile_done.value == 0
            await FallingEdge(dut.clk)


class Bench:
    """A layer: its tiles, each with activations for every lane, the sums, and the steps."""

    def __init__(
        self, dut: Any, layer: dict[str, int] | None = None, *, stall: float = 0.2, free: float = 0.3
    ) -> None:
        self.p = parameters()
        self.dut = dut
        block = component(self.p)
        self.rng = np.random.default_rng([cocotb.RANDOM_SEED, round(100 * stall)])
        self.layer = layer or records.random_layer(self.rng, self.p["weight_slices"])
        dut.layer_slices.value = self.layer["slices"]
        dut.frequent.value = self.layer["frequent"]
        dut.lo_bits.value = self.layer["lo_bits"]
        self.weights = Source(dut, "weights", block.weights.payload.shape(), stall=stall)
        self.activations = [
            Source(dut, f"activations_{j}", block.activations_0.payload.shape(), stall=stall)
            for j in range(self.p["lanes"])
        ]
        self.bank = OutputBank(dut, free)
        self.expected: list[tuple[list[int], int]] = []
        self.steps = 0

    def send(self, weights: Any, activations: list[Any], fillers: float = 0.1) -> None:
        p, slices = self.p, self.layer["slices"]
        w_records, w_kept = records.weight_records(
            self.rng, weights, slices, max(1, p["weight_slices"] - 1), fillers
        )
        self.weights.send(w_records)
        sums = []
        for j, lane in enumerate(activations):
            x_records, x_kept = records.activation_records(self.rng, lane, self.layer, fillers)
            self.activations[j].send(x_records)
            self.steps += records.outer_products(slices, w_kept, x_kept)
            sums.append(records.compensated(weights, lane, self.layer))
        for first in range(0, p["lanes"], p["drain_lanes"]):  # rows of some lanes, side by side
            side_by_side = np.concatenate(sums[first : first + p["drain_lanes"]], axis=1)
            self.expected += [(row.tolist(), 0) for row in side_by_side]
        self.expected[-1] = (self.expected[-1][0], 1)

    def send_random(self, k: int, weight_sparsity: float, *activation_sparsity: float) -> None:
        """activation_sparsity: one for all lanes, or some that the lanes take in turn."""
        v = self.p["vector"]
        weights = records.random_weights(self.rng, self.layer["slices"], (v, k), weight_sparsity)
        lanes = []
        for j in range(self.p["lanes"]):
            sparsity = activation_sparsity[j % len(activation_sparsity)]
            lanes.append(records.random_activations(self.rng, self.layer, (k, v), sparsity))
        self.send(weights, lanes)

    def stop(self) -> None:
        for driver in (self.weights, *self.activations, self.bank):
            driver.stop()

    async def finish(self) -> None:
        await quiet(self.dut, self.bank, expected=[len(self.expected)], limit=20_000)
        while self.bank.freed < self.bank.tiles:  # for the next layer all slots are free again
            await FallingEdge(self.dut.clk)
        await FallingEdge(self.dut.clk)
        assert self.bank.received == self.expected
        assert all(source.idle for source in (self.weights, *self.activations))
        assert sum(self.bank.products) == self.steps
        self.stop()


async def begin(dut: Any) -> None:
    await start(dut, component(parameters()), layer_slices=1, frequent=0, lo_bits=4, slot_freed=0)


@cocotb.test()
@cocotb.parametrize((("stall", "sparsity"), WORK))
async def multiplies(dut: Any, stall: float, sparsity: tuple[float, ...]) -> None:
    """Tiles in a row, weights and lanes of equal or of different sparsity."""
    await begin(dut)
    bench = Bench(dut, stall=stall)
    for k in (1, 2, 13, int(bench.rng.integers(1, bench.p["max_k"] + 1)), 1, 7):
        bench.send_random(k, *sparsity)
    await bench.finish()


@cocotb.test()
async def changes_the_layer(dut: Any) -> None:
    """Layers one after another, without a reset: fewer slices, every lo_bits, ends of r."""
    await begin(dut)
    for slices in range(1, parameters()["weight_slices"] + 1):
        for lo_bits in (4, 5, 6):
            for frequent in (0, 1, (1 << 8 - lo_bits) - 1):
                bench = Bench(dut, {"slices": slices, "lo_bits": lo_bits, "frequent": frequent})
                bench.send_random(5, 0.5, 0.5)
                bench.send_random(3, 0.5, 0.0, 1.0)
                await bench.finish()


@cocotb.test()
@cocotb.parametrize(lo_bits=[4, 5, 6])
async def reaches_both_ends(dut: Any, lo_bits: int) -> None:
    """K = max_k, and the extremes of weights, activations and r."""
    await begin(dut)
    p = parameters()
    top, shape = 1 << 3 * p["weight_slices"], (p["vector"], p["max_k"])
    for frequent in (0, (1 << 8 - lo_bits) - 1):
        bench = Bench(dut, {"slices": p["weight_slices"], "lo_bits": lo_bits, "frequent": frequent})
        for weight in (-top, top - 1):
            lanes = [np.full(shape[::-1], 255 * ((j + (weight > 0)) % 2)) for j in range(p["lanes"])]
            bench.send(np.full(shape, weight), lanes, 0.0)
            bench.send(np.full(shape, weight), lanes[::-1], 1.0)
        await bench.finish()


@cocotb.test()
async def waits_for_a_free_slot(dut: Any) -> None:
    """As many tiles leave as there are slots; then one for each slot that becomes free, and none is lost.

    Nor is a slot: all are there again after tiles that left while slots became free.
    """
    await begin(dut)
    bench = Bench(dut, stall=0.0)
    for _ in range(10):
        bench.send_random(1, 0.5, 0.5)
    await bench.finish()
    bench = Bench(dut, free=0.0)
    slots, rows = bench.p["output_slots"], rows_of_a_tile()
    for _ in range(2 * slots + 4):
        bench.send_random(3, 0.5, 0.5)
    for freed in (0, 1, 2):
        bench.bank.free = float(freed > 0)
        while bench.bank.freed < freed:
            await FallingEdge(dut.clk)
        bench.bank.free = 0.0
        await ClockCycles(dut.clk, 100 + (slots if freed == 0 else 1) * 100)
        assert len(bench.bank.received) == (slots + freed) * rows
    assert not bench.weights.idle
    bench.bank.free = 1.0
    await bench.finish()


@cocotb.test()
async def works_in_every_cycle(dut: Any) -> None:
    """Lanes that have the same to do work side by side; the sums leave one row a cycle right after that."""
    await begin(dut)
    bench = Bench(dut, stall=0.0, free=1.0)
    lanes, v, slices = bench.p["lanes"], bench.p["vector"], bench.layer["slices"]
    k = bench.p["max_k"]
    x = np.full((k, v), 255 - (bench.layer["frequent"] << bench.layer["lo_bits"]))
    x[:, 0] ^= 1 << bench.layer["lo_bits"]  # two HO slices: every vector is kept
    bench.send(np.full((v, k), -(1 << 3 * slices)), [x] * lanes)
    await bench.finish()
    steps = bench.steps // lanes
    assert steps == k * 2 * slices
    first = bench.bank.products.index(lanes)
    assert bench.bank.products[first : first + steps] == [lanes] * steps
    last_step = first + steps - 2  # a cycle before it is counted
    last_sum = last_step + Operator.LATENCY + rows_of_a_tile() - 1
    assert bench.bank.done == [last_sum + CompensationSubtract.LATENCY]


@cocotb.test()
async def forgets_all_at_reset(dut: Any) -> None:
    """In the middle of the steps, and of the sums; all slots are free again, with no credit too many."""
    await begin(dut)
    for rows in (0, 1, 2 * rows_of_a_tile() + 1):
        bench = Bench(dut, stall=0.0, free=float(rows > 1))
        for _ in range(6):
            bench.send_random(7, 0.5, 0.5)
        while len(bench.bank.received) < rows or sum(bench.bank.products) < 5:
            await FallingEdge(dut.clk)
        bench.stop()
        await reset(dut)
        bench = Bench(dut, free=0.0)
        slots = bench.p["output_slots"]
        for _ in range(slots + 1):
            bench.send_random(2, 0.5, 0.5)
        await ClockCycles(dut.clk, 100 * slots + 200)
        assert bench.bank.tiles == slots
        assert len(bench.bank.received) == slots * rows_of_a_tile()
        bench.bank.free = 1.0
        await bench.finish()
