"""Bench of hw/ram.py: random writes of parts of words, and reads of old and new words, against a list."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge

from sliceforge.hw.ram import Ram
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import reset, start

CASES = [
    {"shape": 60, "depth": 32, "parts": 3},
    {"shape": 8, "depth": 2, "parts": 1},
    {"shape": 64, "depth": 2040, "parts": 1},
    {"shape": 512, "depth": 16, "parts": 64},
]


def component(p: dict[str, Any]) -> Ram:
    return Ram(**p)


class Bench:
    """Drives both ports each cycle, and checks what is read against the words as they should be."""

    def __init__(self, dut: Any) -> None:
        self.dut, self.rng = dut, random.Random(cocotb.RANDOM_SEED)
        self.width, self.depth, self.parts = parameters().values()
        self.words: list[int | None] = [None] * self.depth
        self.expected: int | None = None  # of the read port; None: not known
        self.collisions = 0

    async def cycle(self, write: int, write_address: int, read: int, read_address: int) -> None:
        dut, data = self.dut, self.rng.getrandbits(self.width)
        dut.write.value, dut.write_address.value, dut.write_data.value = write, write_address, data
        dut.read.value, dut.read_address.value = read, read_address
        await FallingEdge(dut.clk)
        if read:
            self.expected = self.words[read_address]
            self.collisions += write != 0 and read_address == write_address
        part_bits = self.width // self.parts
        mask = sum(((1 << part_bits) - 1) << part_bits * p for p in range(self.parts) if write >> p & 1)
        before = self.words[write_address]
        if before is not None:
            self.words[write_address] = before & ~mask | data & mask
        elif mask == (1 << self.width) - 1:
            self.words[write_address] = data
        if self.expected is not None:
            assert int(dut.read_data.value) == self.expected

    async def fill(self) -> None:
        """The read port keeps its word meanwhile."""
        for address in range(self.depth):
            await self.cycle((1 << self.parts) - 1, address, 0, address)

    async def random_cycles(self, count: int) -> None:
        rng = self.rng
        for _ in range(count):
            write_address = rng.randrange(self.depth)
            read_address = write_address if rng.random() < 0.2 else rng.randrange(self.depth)
            write = rng.getrandbits(self.parts) if rng.random() < 0.7 else 0
            await self.cycle(write, write_address, int(rng.random() < 0.7), read_address)


@cocotb.test()
async def reads_what_was_written(dut: Any) -> None:
    bench = Bench(dut)
    await start(dut, component(parameters()))
    await bench.fill()
    await bench.random_cycles(2000)
    assert bench.collisions > 20
    for address in range(bench.depth):
        await bench.cycle(0, 0, 1, address)


@cocotb.test()
async def keeps_its_words_at_reset(dut: Any) -> None:
    bench = Bench(dut)
    await start(dut, component(parameters()))
    await bench.fill()
    await bench.cycle(0, 0, 1, bench.depth - 1)
    dut.read.value = 0
    await reset(dut)
    assert int(dut.read_data.value) == bench.words[-1]
    for address in range(bench.depth):
        await bench.cycle(0, 0, 1, address)
