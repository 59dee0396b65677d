"""Bench of hw/compensation.py: the sums of kept weights, and their subtraction for every r and lo_bits.

Each parameter set names the one of the two components that it tests; the tests of the other are skipped.
"""

from __future__ import annotations

import os
from typing import Any

import cocotb
import numpy as np
from amaranth.lib import data
from cocotb.triggers import FallingEdge, ReadOnly

from sliceforge.hw.compensation import CompensationSubtract, KeptWeightSum
from sliceforge.sim import sbr_slices
from sliceforge.verif.records import pack
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import reset, start, to_fields, to_int

CASES = [
    {"block": "kept_weight_sum", "vector": 4, "weight_slices": 2, "accumulator_bits": 27},
    {"block": "kept_weight_sum", "vector": 2, "weight_slices": 1, "accumulator_bits": 16},
    {"block": "kept_weight_sum", "vector": 8, "weight_slices": 3, "accumulator_bits": 22},
    {"block": "kept_weight_sum", "vector": 2, "weight_slices": 3, "accumulator_bits": 26},
    {"block": "compensation_subtract", "vector": 4, "accumulator_bits": 27},
    {"block": "compensation_subtract", "vector": 2, "accumulator_bits": 16},
    {"block": "compensation_subtract", "vector": 8, "accumulator_bits": 32},
]
COMPONENTS = {"kept_weight_sum": KeptWeightSum, "compensation_subtract": CompensationSubtract}

# No parameters where pytest imports this module to read CASES.
BLOCK = parameters()["block"] if "SLICEFORGE_PARAMETERS" in os.environ else ""
OF_SUM = {"skip": BLOCK != "kept_weight_sum"}
OF_SUBTRACT = {"skip": BLOCK != "compensation_subtract"}


def component(p: dict[str, Any]) -> KeptWeightSum | CompensationSubtract:
    return COMPONENTS[p["block"]](**{key: value for key, value in p.items() if key != "block"})


class SumBench:
    """``total`` (v,) is what the sums must be."""

    def __init__(self, dut: Any) -> None:
        block = component(parameters())
        self.p = parameters()
        self.dut = dut
        self.latency = block.LATENCY
        self.bits = self.p["accumulator_bits"] - 8
        self._layout = block.step.shape()
        self.rng = np.random.default_rng(cocotb.RANDOM_SEED)
        self.total = np.zeros(self.p["vector"], int)
        self.idle()

    def idle(self) -> None:
        """No step; what stands on its wires must not matter."""
        self.dut.step_valid.value = 0
        self.dut.step.value = int(self.rng.integers(1 << 62)) % (1 << len(self.dut.step))

    async def step(self, weights: Any, slice_index: int, high: int) -> None:
        activations = int(self.rng.integers(1 << 4 * self.p["vector"]))
        step = {"weights": pack(weights), "activations": activations}
        self.dut.step.value = to_int(self._layout, {**step, "slice_index": slice_index, "high": high})
        self.dut.step_valid.value = 1
        if high:
            self.total += np.asarray(weights, int) * 8**slice_index
        await FallingEdge(self.dut.clk)
        self.idle()

    async def random_step(self) -> None:
        weights = self.rng.integers(-8, 8, self.p["vector"])
        await self.step(weights, int(self.rng.integers(self.p["weight_slices"])), int(self.rng.integers(2)))

    async def wait(self, cycles: int) -> None:
        for _ in range(cycles):
            await FallingEdge(self.dut.clk)

    async def check(self) -> None:
        """Shifts all rows out, now and then after a pause; the first stands there LATENCY cycles after the
        last step, and the last leaves the sums empty."""
        await self.wait(self.latency - 1)
        for row in range(self.p["vector"]):
            while self.rng.random() < 0.2:
                await self.wait(1)
            self.dut.shift.value = 1
            await ReadOnly()
            assert int(self.dut.kept_weights.value) == int(self.total[row]) % (1 << self.bits), row
            await FallingEdge(self.dut.clk)
            self.dut.shift.value = 0
        self.total[:] = 0


async def begin_sum(dut: Any) -> SumBench:
    await start(dut, component(parameters()), step=0, step_valid=0, shift=0)
    return SumBench(dut)


@cocotb.test(**OF_SUM)
async def adds_every_slice(dut: Any) -> None:
    """Every slice value in every row, with every slice_index; with X_L (high = 0) it does not count."""
    bench = await begin_sum(dut)
    for slice_index in range(bench.p["weight_slices"]):
        for high in (0, 1):
            for a in range(16):
                await bench.step((a + np.arange(bench.p["vector"])) % 16 - 8, slice_index, high)
                await bench.check()


@cocotb.test(**OF_SUM)
@cocotb.parametrize(gap=[0.0, 0.5])
async def adds_whole_weights(dut: Any, gap: float) -> None:
    """``sum over kept k of W[:, k]``, from steps in the lane's order, back to back or with gaps."""
    bench = await begin_sum(dut)
    slices, v = bench.p["weight_slices"], bench.p["vector"]
    top = 1 << 3 * slices
    for length in (1, 2, 7, 8, 8):
        weights = bench.rng.integers(-top, top, (v, length))
        kept = bench.rng.random(length) < 0.5
        for k in range(length):
            for slice_index, slice_ in enumerate(sbr_slices(weights[:, k], 3 * slices + 1)):
                for high in range(1 + kept[k]):
                    while bench.rng.random() < gap:
                        await bench.wait(1)
                    await bench.step(slice_, slice_index, high)
        assert (bench.total == weights[:, kept].sum(axis=1)).all()
        await bench.check()


@cocotb.test(**OF_SUM)
async def sum_reaches_both_ends(dut: Any) -> None:
    bench = await begin_sum(dut)
    slices, v = bench.p["weight_slices"], bench.p["vector"]
    for target in ((1 << bench.bits - 1) - 1, -(1 << bench.bits - 1)):
        steps = [(w, i) for w in ((7, 1) if target > 0 else (-8, -1)) for i in range(slices)]
        while (rest := abs(target - int(bench.total[0]))) != 0:
            fitting = [step for step in steps if abs(step[0]) * 8 ** step[1] <= rest]
            weight, slice_index = max(fitting, key=lambda step: abs(step[0]) * 8 ** step[1])
            await bench.step(np.full(v, weight), slice_index, 1)
        await bench.check()


@cocotb.test(**OF_SUM)
async def sum_has_its_latency(dut: Any) -> None:
    """Not complete before LATENCY; they may leave then, and a step in the next cycle counts."""
    bench = await begin_sum(dut)
    ones = np.ones(bench.p["vector"], int)
    for _ in range(3):
        await bench.step(ones, 0, 1)
        await bench.wait(bench.latency - 2)
        assert int(dut.kept_weights.value) == 0
        await bench.wait(1)
        assert int(dut.kept_weights.value) == 1
        await bench.check()
        await bench.random_step()
        await bench.check()


@cocotb.test(**OF_SUM)
async def sum_forgets_all_at_reset(dut: Any) -> None:
    """Also the steps that are under way."""
    bench = await begin_sum(dut)
    for after in range(bench.latency + 1):
        for _ in range(5):
            await bench.random_step()
        await bench.wait(after)
        dut.rst.value = 1
        await bench.wait(1)
        dut.rst.value = 0
        bench.total[:] = 0
        await bench.check()


def subtract_rows(p: dict[str, Any], rng: np.random.Generator, frequent: int, lo_bits: int) -> list[Any]:
    """(input, result): results in and at both ends of the accumulator's range, all kinds of kept weights.

    An accumulator that lies outside its width before the subtraction has wrapped.
    """
    bits, v = p["accumulator_bits"], p["vector"]
    top, kept_top = 1 << bits - 1, 1 << bits - 9
    ends = [-top, top - 1, -1, 0]
    rows = []
    for kept in (-kept_top, kept_top - 1, -1, 0, 1, *rng.integers(-kept_top, kept_top, 8).tolist()):
        results = rng.integers(-top, top, v).tolist()
        for c in range(v):
            if rng.random() < 0.5:
                results[c] = ends[rng.integers(len(ends))]
        # The shifted sum fits the accumulator's width too.
        results = [(result >> (lo_bits - 4)) << (lo_bits - 4) for result in results]
        accumulators = [(result >> (lo_bits - 4)) + 16 * frequent * kept for result in results]
        rows.append(({"accumulators": accumulators, "kept_weights": kept}, results))
    return rows


@cocotb.test(**OF_SUBTRACT)
@cocotb.parametrize(lo_bits=[4, 5, 6])
async def subtracts(dut: Any, lo_bits: int) -> None:
    """A row every cycle, for each r from 0 to 15: each result LATENCY cycles after its input."""
    await start(dut, component(parameters()), frequent=0, lo_bits=lo_bits, i=0)
    p = parameters()
    block = component(p)
    rng = np.random.default_rng([cocotb.RANDOM_SEED, lo_bits])
    for frequent in range(16):
        dut.frequent.value = frequent
        rows = subtract_rows(p, rng, frequent, lo_bits)
        for cycle in range(len(rows) + block.LATENCY):
            if cycle >= block.LATENCY:
                got = to_fields(data.ArrayLayout(32, p["vector"]), int(dut.sums.value))
                assert got == [result % (1 << 32) for result in rows[cycle - block.LATENCY][1]]
            dut.i.value = to_int(block.i.shape(), rows[min(cycle, len(rows) - 1)][0])
            await FallingEdge(dut.clk)


@cocotb.test(**OF_SUBTRACT)
async def subtract_forgets_all_at_reset(dut: Any) -> None:
    await start(dut, component(parameters()), frequent=7, lo_bits=5, i=0)
    block = component(parameters())
    rows = subtract_rows(parameters(), np.random.default_rng(cocotb.RANDOM_SEED), 7, 5)
    for row, _ in rows:
        dut.i.value = to_int(block.i.shape(), row)
        await FallingEdge(dut.clk)
    assert dut.sums.value != 0
    dut.i.value = 0
    await reset(dut, cycles=1)
    for _ in range(block.LATENCY + 1):
        assert dut.sums.value == 0
        await FallingEdge(dut.clk)
