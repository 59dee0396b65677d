"""Bench of hw/apsq_engine.py: every kind of group, all exponents, both ends of 8 and of 32 bits."""

from __future__ import annotations

import random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge

from sliceforge.hw.apsq_engine import APSQEngine, group_layout
from sliceforge.sim.apsq import dequantize, quantize
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import reset, start, to_int
from sliceforge.verif.tiles import join

CASES = [{"sums": 2}, {"sums": 8}]
LOW, HIGH = -(1 << 31), (1 << 31) - 1
MASK = (1 << 32) - 1
# (group size, position in the group, is there something stored): 0 is full width.
KINDS = [(size, position, adds) for size in range(5) for position in range(max(1, size)) for adds in (0, 1)]


def component(p: dict[str, Any]) -> APSQEngine:
    return APSQEngine(**p)


class Group:
    """What the engine is told of a tile whose step stands at ``position`` of its group."""

    def __init__(
        self, rng: random.Random, size: int, position: int, adds: int, exponent: int | None = None
    ) -> None:
        self.rng, self.full, self.head = rng, size == 0, size == 0 or position == 0
        count = max(1, size) if self.head else position
        self.added = count * adds  # stored positions
        self.first_bank = rng.randrange(4) if size == 1 else rng.choice([0, 2]) if size == 2 else 0
        self.exponent = rng.choice([0, 31, rng.randrange(32)]) if exponent is None else exponent
        # What is stored and added must leave room for the sums: not all can be large.
        self.exponents = [rng.choice([0, 21, rng.randrange(22)]) for _ in range(4)]

    def bits(self) -> int:
        return to_int(
            group_layout(),
            {
                "full": int(self.full),
                "head": int(self.head),
                "adds": (1 << self.added) - 1,
                "first_bank": self.first_bank,
                "exponent": self.exponent,
                "exponents": self.exponents,
            },
        )

    def stored(self, word: int) -> int:
        """What of a stored word counts."""
        if not self.added:
            return 0
        if self.full:
            return word - (word >> 31 << 32)
        banks = np.array([word >> 8 * bank & 255 for bank in range(4)], np.uint8).view(np.int8)
        return sum(int(dequantize(banks[self.first_bank + i], self.exponents[i])) for i in range(self.added))

    def expect(self, t: int, word: int, bias: int) -> tuple[int, int]:
        """(narrow, result), as bits; what narrow is at full width does not matter: 0."""
        stored = self.stored(word)
        if self.full:
            return 0, (t + stored + bias) & MASK
        before, after = (stored, 0) if self.head else (0, stored)
        q = int(quantize(t + before, self.exponent))
        return q & 255, (int(dequantize(q, self.exponent)) + after + bias) & MASK

    def some_sum(self, word: int) -> int:
        """At an end of 32 bits, at a step of the quantizer, or anywhere; with what is added it fits."""
        rng = self.rng
        step = 1 << self.exponent
        edge = rng.choice([-129, -128, -127, -1, 0, 1, 126, 127, 128]) * step + step // 2 - rng.randint(0, 1)
        total = rng.choice([LOW, HIGH, rng.randint(LOW, HIGH), rng.randint(-1 << 12, 1 << 12), edge, edge])
        total = min(max(total, LOW), HIGH)
        return total - self.stored(word) if self.head else total


class Bench:
    """Beats in a row; between them, and where a bias does not count, there is noise."""

    def __init__(self, dut: Any) -> None:
        self.dut, self.sums = dut, parameters()["sums"]
        self.rng = random.Random(cocotb.RANDOM_SEED)

    def noise(self) -> int:
        return self.rng.getrandbits(32 * self.sums)

    async def run(self, group: Group, beats: int, stall: float = 0.2) -> None:
        """Drives ``beats`` beats with this group, and checks each LATENCY cycles later."""
        dut, rng = self.dut, self.rng
        dut.group.value = group.bits()
        biases: dict[int, int] = {}  # by cycle
        expected: dict[int, list[tuple[int, int]]] = {}
        cycle = sent = 0
        while sent < beats or expected:
            if cycle in expected:
                narrow, result = int(dut.narrow.value), int(dut.result.value)
                wanted = expected.pop(cycle)
                assert result == join((value for _, value in wanted), 32)
                assert group.full or narrow == join((value for value, _ in wanted), 8)
            dut.sums.value, dut.stored.value = self.noise(), self.noise()
            if sent < beats and rng.random() >= stall:
                words = [rng.getrandbits(32) for _ in range(self.sums)]
                sums = [group.some_sum(word) for word in words]
                for i, (t, word) in enumerate(zip(sums, words, strict=True)):
                    if not LOW <= t <= HIGH:  # the stored sum alone is that large
                        sums[i], words[i] = 0, word & 0x01010101
                bias = rng.getrandbits(32)
                biases[cycle + APSQEngine.BIAS_DELAY] = bias
                expected[cycle + APSQEngine.LATENCY] = [
                    group.expect(t, word, bias) for t, word in zip(sums, words, strict=True)
                ]
                dut.sums.value = join((t & MASK for t in sums), 32)
                dut.stored.value = join(words, 32)
                sent += 1
            dut.bias.value = biases.pop(cycle, rng.getrandbits(32))
            await FallingEdge(dut.clk)
            cycle += 1


@cocotb.test()
async def accumulates_in_every_group(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut)
    for kind in KINDS:
        for _ in range(3):
            await bench.run(Group(bench.rng, *kind), 8)


@cocotb.test()
async def quantizes_with_every_exponent(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut)
    for exponent in range(32):
        for position, adds in ((0, 0), (2, 1)):
            await bench.run(Group(bench.rng, 3, position, adds, exponent), 12, stall=0.0)


@cocotb.test()
async def dequantizes_with_every_exponent(dut: Any) -> None:
    """One position at a time, with the others at 0."""
    await start(dut, component(parameters()))
    bench = Bench(dut)
    for exponent in range(32):
        group = Group(bench.rng, 4, 3, 0, 0)
        group.added, group.exponents = 3, [exponent] * 3 + [31]
        await bench.run(group, 4, stall=0.0)


@cocotb.test()
async def starts_again_after_a_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    bench = Bench(dut)
    for cycles in range(1, APSQEngine.LATENCY + 2):
        task = cocotb.start_soon(bench.run(Group(bench.rng, 0, 0, 1), 100))
        for _ in range(cycles):
            await FallingEdge(dut.clk)
        task.cancel()
        await reset(dut)
        assert dut.narrow.value == 0
        await bench.run(Group(bench.rng, 2, 1, 1), 5)
