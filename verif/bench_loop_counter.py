"""Bench of hw/loop_counter.py: every tile of many totals and steps, pauses, several rounds, reset."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly

from sliceforge.hw.loop_counter import LoopCounter
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import reset, start

CASES = [{"width": 8, "most": 16}, {"width": 6, "most": 1}, {"width": 24, "most": 8 * ((1 << 24) - 1)}]


def component(p: dict[str, Any]) -> LoopCounter:
    return LoopCounter(**p)


def tiles(total: int, step: int) -> list[tuple[int, int, int]]:
    """(length, first, last) of each tile."""
    starts = range(0, total, step)
    return [(min(step, total - k), int(k == 0), int(k + step >= total)) for k in starts]


async def check(dut: Any, expected: tuple[int, int, int]) -> None:
    """In this cycle, in which the outputs must stand."""
    await ReadOnly()
    assert (int(dut.length.value), int(dut.first.value), int(dut.last.value)) == expected
    await FallingEdge(dut.clk)


async def settle(dut: Any) -> None:
    for _ in range(LoopCounter.SETTLES):
        await FallingEdge(dut.clk)


async def go_on(dut: Any, expected: tuple[int, int, int]) -> None:
    """From the tile ``expected`` to the next, as early as may be."""
    dut.next.value = 1
    await check(dut, expected)
    dut.next.value = 0
    await settle(dut)


@cocotb.test()
async def counts_tiles_round_after_round(dut: Any) -> None:
    p = parameters()
    rng = random.Random(cocotb.RANDOM_SEED)
    await start(dut, component(p), total=1, step=1, next=0)
    widest, most = (1 << p["width"]) - 1, p["most"]
    for step in sorted({1, max(1, most // 2), most, *(rng.randint(1, min(most, widest)) for _ in range(3))}):
        largest = min(widest, 20 * step)
        for total in sorted({1, min(max(1, step - 1), largest), min(step + 1, largest), largest}):
            dut.total.value, dut.step.value = total, step
            await settle(dut)
            for _ in range(2):
                for tile in tiles(total, step):
                    while rng.random() < 0.4:  # the tile stays until next
                        await check(dut, tile)
                    await go_on(dut, tile)
            await check(dut, tiles(total, step)[0])


@cocotb.test()
async def starts_anew_at_reset(dut: Any) -> None:
    step = min(parameters()["most"], (1 << parameters()["width"]) // 3)
    await start(dut, component(parameters()), total=3 * step, step=step, next=0)
    await settle(dut)
    await go_on(dut, (step, 1, 0))
    await go_on(dut, (step, 0, 0))
    await check(dut, (step, 0, 1))
    await reset(dut)
    await settle(dut)
    await check(dut, (step, 1, 0))
