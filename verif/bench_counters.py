"""Bench of hw/counters.py: sums of random amounts, in every cycle."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge

from sliceforge.hw.counters import Counters
from sliceforge.hw.payloads import COUNTER_BITS
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import reset, start

CASES = [
    {"amounts": {"cycles": 1, "products": 9, "bytes": 40, "others": 40}},
    {"amounts": {"cycles": 1}},
]


def component(p: dict[str, Any]) -> Counters:
    return Counters(**p)


class Bench:
    def __init__(self, dut: Any, case: str) -> None:
        self.dut, self.amounts = dut, parameters()["amounts"]
        self.rng = random.Random(f"{cocotb.RANDOM_SEED} {case}")
        self.expected = dict.fromkeys(self.amounts, 0)

    def amount(self, width: int, share: float) -> int:
        """0, all ones, or anything."""
        if self.rng.random() >= share:
            return 0
        return self.rng.choice([(1 << width) - 1, self.rng.getrandbits(width)])

    async def step(self, share: float, clear: bool = False) -> None:
        """A cycle; a counter gets an amount with probability ``share``."""
        dut = self.dut
        dut.clear.value = int(clear)
        for name, width in self.amounts.items():
            amount = self.amount(width, share)
            getattr(dut, f"add_{name}").value = amount
            total = (self.expected[name] + amount) % (1 << COUNTER_BITS)
            self.expected[name] = 0 if clear else total
        await FallingEdge(dut.clk)
        self.check()

    def check(self) -> None:
        assert {name: int(getattr(self.dut, name).value) for name in self.amounts} == self.expected


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(share=[0.1, 0.5, 1.0])
async def adds_up(dut: Any, share: float) -> None:
    """Amounts of all bits wrap many times; what is added while they are cleared is dropped."""
    await start(dut, component(parameters()))
    bench = Bench(dut, f"adds {share}")
    bench.check()
    for _ in range(1000):
        await bench.step(share, clear=bench.rng.random() < 0.02)
    for _ in range(20):
        await bench.step(0.0)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def clears_one_cycle_after_another(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, "clears")
    for clear in (False, True, True, False, True, False, False):
        await bench.step(1.0, clear)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def starts_from_zero_after_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut, "reset")
    for _ in range(10):
        await bench.step(1.0)
    await bench.step(0.0)
    await reset(dut)
    bench.expected = dict.fromkeys(bench.amounts, 0)
    bench.check()
    for _ in range(10):
        await bench.step(0.5)
