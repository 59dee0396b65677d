"""Bench of hw/operator.py: every pair of slices, both ends of the accumulators, way out, latency, reset."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np
from amaranth.lib import data
from cocotb.triggers import FallingEdge, ReadOnly

from sliceforge.hw.operator import Operator
from sliceforge.sim import sbr_slices
from sliceforge.verif.records import pack
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import reset, start, to_fields, to_int

_NAMES = ("vector", "weight_slices", "accumulator_bits", "packing", "packed_products", "table_products")
_VALUES = [
    (4, 2, 27, 2, 0, 0), (2, 1, 16, 2, 2, 2), (8, 3, 32, 4, 56, 2), (4, 3, 21, 4, 8, 4), (2, 2, 24, 4, 4, 0),
    (8, 1, 24, 2, 10, 30), (4, 2, 24, 2, 8, 6), (4, 2, 27, 2, 0, 16), (4, 2, 22, 4, 16, 0),
    (4, 2, 27, 2, 16, 0),
]  # fmt: skip
CASES = [dict(zip(_NAMES, values, strict=True)) for values in _VALUES]


def component(p: dict[str, Any]) -> Operator:
    return Operator(**p)


class Bench:
    """``total`` (v, v) is what the accumulators must hold, as integers without bounds."""

    def __init__(self, dut: Any) -> None:
        block = component(parameters())
        self.p = parameters()
        self.dut = dut
        self.latency = block.LATENCY
        self._layout = block.step.shape()
        self._sums = data.ArrayLayout(self.p["accumulator_bits"], self.p["vector"])
        self.rng = np.random.default_rng(cocotb.RANDOM_SEED)
        self.total = np.zeros((self.p["vector"],) * 2, object)
        self.idle()

    def idle(self) -> None:
        """No step; what stands on its wires must not matter."""
        self.dut.step_valid.value = 0
        self.dut.step.value = int(self.rng.integers(1 << 62)) % (1 << len(self.dut.step))

    async def step(self, weights: Any, activations: Any, slice_index: int, high: int) -> None:
        """One outer product, in this cycle."""
        step = {"weights": pack(weights), "activations": pack(activations)}
        self.dut.step.value = to_int(self._layout, {**step, "slice_index": slice_index, "high": high})
        self.dut.step_valid.value = 1
        self.total += np.outer(weights, activations).astype(object) * (8**slice_index * 16**high)
        await FallingEdge(self.dut.clk)
        self.idle()

    async def random_step(self) -> None:
        v = self.p["vector"]
        weights, activations = self.rng.integers(-8, 8, v), self.rng.integers(0, 16, v)
        await self.step(
            weights, activations, int(self.rng.integers(self.p["weight_slices"])), int(self.rng.integers(2))
        )

    async def wait(self, cycles: int) -> None:
        for _ in range(cycles):
            await FallingEdge(self.dut.clk)

    async def check(self) -> None:
        """Shifts all rows out, now and then after a pause; the first stands there LATENCY cycles after the
        last step, and the last leaves the accumulators empty."""
        await self.wait(self.latency - 1)
        for row in range(self.p["vector"]):
            while self.rng.random() < 0.2:
                await self.wait(1)
            self.dut.shift.value = 1
            await ReadOnly()
            got = to_fields(self._sums, int(self.dut.sums.value))
            assert got == [int(total) % (1 << self.p["accumulator_bits"]) for total in self.total[row]], row
            await FallingEdge(self.dut.clk)
            self.dut.shift.value = 0
        self.total[:] = 0


async def begin(dut: Any) -> Bench:
    await start(dut, component(parameters()), step=0, step_valid=0, shift=0)
    return Bench(dut)


@cocotb.test()
@cocotb.parametrize(high=[0, 1])
async def multiplies_every_pair(dut: Any, high: int) -> None:
    """Each of the v * v multipliers sees each of the 16 x 16 pairs, with each weight of the product."""
    bench = await begin(dut)
    v = np.arange(bench.p["vector"])
    for slice_index in range(bench.p["weight_slices"]):
        for a in range(16):
            for b in range(16):
                await bench.step((a + v) % 16 - 8, (b + 3 * v) % 16, slice_index, high)
                if b % (len(v) // 2) == 0:  # a wrong product stays in the sum: reading it later is enough
                    await bench.check()
            await bench.check()


@cocotb.test()
@cocotb.parametrize(gap=[0.0, 0.5])
async def accumulates(dut: Any, gap: float) -> None:
    """Random steps, back to back or with gaps."""
    bench = await begin(dut)
    for _ in range(30):
        for _ in range(bench.rng.integers(1, 30)):
            while bench.rng.random() < gap:
                await bench.wait(1)
            await bench.random_step()
        await bench.check()


@cocotb.test()
async def multiplies_whole_numbers(dut: Any) -> None:
    """The four (or two, or six) kinds of steps of one k add up to the product of weight and activation."""
    bench = await begin(dut)
    slices, v = bench.p["weight_slices"], bench.p["vector"]
    top = 1 << 3 * slices
    for _ in range(20):
        w, x = bench.rng.integers(-top, top, v), bench.rng.integers(0, 256, v)
        w[bench.rng.random(v) < 0.2], x[bench.rng.random(v) < 0.2] = -top, 255
        for slice_index, weights in enumerate(sbr_slices(w, 3 * slices + 1)):
            await bench.step(weights, x % 16, slice_index, 0)
            await bench.step(weights, x // 16, slice_index, 1)
        bench.total[:] = np.outer(w, x)
        await bench.check()


async def steps_to(bench: Bench, target: int) -> None:
    """Steps that bring all accumulators from the number they share to ``target``."""
    slices, v = bench.p["weight_slices"], bench.p["vector"]
    while (rest := target - int(bench.total[0, 0])) != 0:
        sign = 1 if rest > 0 else -1
        extreme = 7 if rest > 0 else -8
        weight, activation, slice_index, high = max(
            (
                step
                for step in [(w, x, i, h) for w in (sign, extreme) for x in (1, 15)
                             for i in range(slices) for h in (0, 1)]
                if abs(step[0]) * step[1] * 8 ** step[2] * 16 ** step[3] <= abs(rest)
            ),
            key=lambda step: abs(step[0]) * step[1] * 8 ** step[2] * 16 ** step[3],
        )  # fmt: skip
        await bench.step(np.full(v, weight), np.full(v, activation), slice_index, high)


@cocotb.test()
async def reaches_both_ends(dut: Any) -> None:
    """The largest and the smallest sum; and sums that wrap on the way and end in range."""
    bench = await begin(dut)
    top = 1 << bench.p["accumulator_bits"] - 1
    for path in ([top - 1], [-top], [top + 1000, top - 1], [-top - 1000, -top], [-1, 0]):
        for target in path:
            await steps_to(bench, target)
        await bench.check()


@cocotb.test()
async def has_its_latency(dut: Any) -> None:
    bench = await begin(dut)
    ones = np.ones(bench.p["vector"], int)
    for _ in range(3):
        before = int(bench.total[0, 0])
        await bench.step(ones, ones, 0, 0)
        await bench.wait(bench.latency - 2)
        assert to_fields(bench._sums, int(dut.sums.value))[0] == before
        await bench.wait(1)
        assert to_fields(bench._sums, int(dut.sums.value))[0] == before + 1


@cocotb.test()
async def empties(dut: Any) -> None:
    """As early as allowed after a step; a step in the next cycle counts."""
    bench = await begin(dut)
    for _ in range(10):
        await bench.random_step()
        await bench.check()
        await bench.random_step()
        await bench.check()
    await bench.check()


@cocotb.test()
async def forgets_all_at_reset(dut: Any) -> None:
    """Also the steps that are under way."""
    bench = await begin(dut)
    for after in range(bench.latency + 1):
        for _ in range(5):
            await bench.random_step()
        await bench.wait(after)
        dut.rst.value = 1
        await bench.wait(1)
        dut.rst.value = 0
        bench.total[:] = 0
        await bench.check()
    await bench.random_step()
    await bench.check()
    await reset(dut)
    bench.total[:] = 0
    await bench.check()
