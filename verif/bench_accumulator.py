"""Bench of hw/accumulator.py: random additions and shifts against an integer, both ends of its range."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge

from sliceforge.hw.accumulator import Accumulator
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import reset, start

CASES = [{"bits": 27, "addend_bits": 15}, {"bits": 8, "addend_bits": 4}, {"bits": 32, "addend_bits": 22}]


def component(p: dict[str, Any]) -> Accumulator:
    return Accumulator(**p)


class Bench:
    """Drives a cycle at a time, and checks the sum after each."""

    def __init__(self, dut: Any) -> None:
        self.dut, self.rng = dut, random.Random(cocotb.RANDOM_SEED)
        self.bits, self.addend_bits = parameters().values()
        self.total = 0

    async def cycle(self, addend: int, carry: int, shift: int, above: int) -> None:
        dut = self.dut
        dut.addend.value, dut.carry.value = addend % (1 << self.addend_bits), carry
        dut.shift.value, dut.above.value = shift, above % (1 << self.bits)
        self.total = above if shift else self.total + addend + carry
        await FallingEdge(dut.clk)
        assert int(dut.sum.value) == self.total % (1 << self.bits)

    def value(self, bits: int) -> int:
        """At random, often at an end of the range or next to 0."""
        top = 1 << bits - 1
        return self.rng.choice([-top, top - 1, -1, 0, 1, self.rng.randrange(-top, top)])


async def begin(dut: Any) -> Bench:
    await start(dut, component(parameters()), addend=0, carry=0, shift=0, above=0)
    return Bench(dut)


@cocotb.test()
async def adds_or_takes_over(dut: Any) -> None:
    bench = await begin(dut)
    for often in (0.0, 0.1, 0.5, 1.0):
        for _ in range(500):
            shift = int(bench.rng.random() < often)
            carry = bench.rng.getrandbits(1)
            await bench.cycle(bench.value(bench.addend_bits), carry, shift, bench.value(bench.bits))


@cocotb.test()
async def forgets_at_reset(dut: Any) -> None:
    bench = await begin(dut)
    for _ in range(5):
        await bench.cycle(bench.value(bench.addend_bits), 1, 0, 0)
        await reset(dut)
        bench.total = 0
        await bench.cycle(0, 0, 0, 0)
