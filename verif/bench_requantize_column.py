"""Bench of hw/requantize_column.py: a result a cycle against Python integers, and the table."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge

from sliceforge.hw.requantize_column import ENTRIES, RequantizeColumn, entry_layout
from sliceforge.verif.streams import start, to_int

CASES: list[dict[str, Any]] = [{}]
LOW, HIGH = -(1 << 31), (1 << 31) - 1
RESULTS = (LOW, LOW + 1, -1, 0, 1, HIGH - 1, HIGH)
MULTIPLIERS = (0, 1, 2, 0xFFFF, 0x10000, 1 << 30, HIGH - 1, HIGH)


def component(p: dict[str, Any]) -> RequantizeColumn:
    return RequantizeColumn(**p)


def ties(rng: random.Random, multiplier: int, amount: int) -> list[int]:
    """Results that come to about a byte, at a tie or beside it."""
    halves = [rng.randint(-1100, 1100) for _ in range(5)]
    near = [((half << amount) // max(1, multiplier)) + rng.randint(-1, 1) for half in halves]
    return [max(LOW, min(HIGH, result)) for result in near]


async def values_of(dut: Any, operands: list[tuple[int, int, int]]) -> list[int]:
    """Sends (result, multiplier, amount), one a cycle; what leaves LATENCY cycles after each of them."""
    got = []
    for cycle in range(len(operands) + RequantizeColumn.LATENCY):
        await FallingEdge(dut.clk)
        if cycle >= RequantizeColumn.LATENCY:
            got.append(int(dut.value.value))
        if cycle < len(operands):
            dut.result.value = operands[cycle][0] & 0xFFFF_FFFF
        scale_of = cycle - RequantizeColumn.SCALE_AFTER
        if 0 <= scale_of < len(operands):
            dut.multiplier.value, dut.amount.value = operands[scale_of][1:]
    return got


async def write_table(dut: Any, table: list[int]) -> None:
    for address, value in enumerate(table):
        dut.entry.value = to_int(entry_layout(), {"address": address, "value": value, "valid": 1})
        await FallingEdge(dut.clk)
    dut.entry.value = to_int(entry_layout(), {"address": 7, "value": table[7] ^ 255})  # not valid


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(
    (
        ("offset", "lowest", "use_table"),
        [(0, 0, 0), (1, 1, 1), (128, 0, 0), (255, 255, 1), (257, 0, 1), (257, 255, 0)],
    )
)
async def is_exact(dut: Any, offset: int, lowest: int, use_table: int) -> None:
    """Every amount with each corner of the multiplier and a random one: corners of the result and ties."""
    await start(dut, component({}))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {offset} {lowest} {use_table}")
    table = [rng.randrange(256) for _ in range(ENTRIES)]
    await write_table(dut, table)
    dut.addend.value, dut.lowest.value, dut.use_table.value = 2 * offset + 1, lowest, use_table
    operands = [
        (result, multiplier, amount)
        for amount in range(62)
        for multiplier in (*MULTIPLIERS, rng.getrandbits(rng.randint(1, 31)))
        for result in (*RESULTS, rng.randint(LOW, HIGH), *ties(rng, multiplier, amount))
    ]
    rng.shuffle(operands)  # neighbours in the pipeline differ in everything
    got = await values_of(dut, operands)
    for (result, multiplier, amount), value in zip(operands, got, strict=True):
        scaled = (result * multiplier + (1 << amount)) >> (amount + 1)
        expected = max(lowest, min(255, scaled + offset))
        if use_table:
            expected = table[expected]
        assert value == expected, f"result {result}, multiplier {multiplier}, amount {amount}"


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def writes_and_reads_every_entry(dut: Any) -> None:
    """Twice, with another table: a later layer's replaces it."""
    await start(dut, component({}))
    rng = random.Random(cocotb.RANDOM_SEED)
    dut.addend.value, dut.use_table.value = 1, 1
    for _ in range(2):
        table = [rng.randrange(256) for _ in range(ENTRIES)]
        await write_table(dut, table)
        assert await values_of(dut, [(2 * i, 1, 0) for i in range(ENTRIES)]) == table
