"""Bench of hw/sdram_memory.py, with hw/sdram_words.py, hw/sdram_start.py and LiteDRAM's controller in it: bursts
and the host's accesses at once, against a model, in an SDRAM chip that watches its rules.
"""

from __future__ import annotations

from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly
from cocotbext.axi.axi_channels import AxiARTransaction, AxiAWTransaction

from sliceforge.gen.host_link import MEMORY_BASE
from sliceforge.hw.sdram_memory import SdramMemory
from sliceforge.verif.axi_checker import Watched
from sliceforge.verif.memory_bench import Bench
from sliceforge.verif.sdram_board import CONTROLLER, SDRAM, SdramBoard, check_chip, sdram_verilog
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, reset, start

CASES = [
    {"bus_bits": 64, "address_bits": 32},
    {"bus_bits": 32, "address_bits": 40},
    {"bus_bits": 512, "address_bits": 64},
    {"bus_bits": 128, "address_bits": 33},
]

SIZE = SDRAM.chip.memory_bytes
ROW = 2 << SDRAM.chip.column_bits  # bytes of a row of a bank
NEXT_ROW = 4 * ROW  # the same bank's next row
AREAS = [
    (0, 2 * ROW), (NEXT_ROW - 512, NEXT_ROW + ROW), (5 * NEXT_ROW + ROW, 5 * NEXT_ROW + 2 * ROW),
    (SIZE // 2 - 1024, SIZE // 2 + 512), (SIZE - ROW, SIZE),
]  # fmt: skip
"""Across rows and banks, at both ends, and in the middle: those behind one another share banks."""
PAUSE = SDRAM.cycles()["power_up"]
FIRST_BEAT = {32: 13, 64: 15, 128: 19, 512: 43}
"""Cycles from a read's address to its first beat, where the row is open."""


def component(p: dict[str, Any]) -> Watched:
    memory = SdramMemory(**SDRAM.parameters(CONTROLLER), **p)
    return Watched(SdramBoard(memory, "pins"), {"s_axi": False, "s_lite": True})


def more_verilog(p: dict[str, Any]) -> str:
    return sdram_verilog()


async def begin(dut: Any, pauses: float = 0.0) -> Bench:
    p = parameters()
    await start(dut, component(p))
    bench = Bench(dut, size=SIZE, pauses=pauses, areas=AREAS, resets=("rst", "restart"), **p)
    await bench.fill()
    return bench


async def finish(bench: Bench) -> None:
    await bench.finish()
    check_chip(bench.dut)


@cocotb.test(timeout_time=20, timeout_unit="ms")
@cocotb.parametrize(pauses=STALLS)
async def serves_both_at_once(dut: Any, pauses: float) -> None:
    """Bursts are written in some areas and read in others; the host does both in the last."""
    bench = await begin(dut, pauses)
    rng = bench.random
    for _ in range(3):
        areas = rng.sample(AREAS, len(AREAS))
        written, read, host = areas[:2], areas[2:4], areas[4]

        async def host_accesses(area: tuple[int, int] = host) -> None:
            for _ in range(40):
                address = MEMORY_BASE + rng.randrange(*area, 4)
                if rng.random() < 0.5:
                    await bench.host_write(address, rng.choice([15, rng.randrange(16)]))
                else:
                    await bench.host_read(address)

        tasks = [
            cocotb.start_soon(bench.write([bench.burst(*rng.choice(written)) for _ in range(12)])),
            cocotb.start_soon(bench.read([bench.burst(*rng.choice(read)) for _ in range(12)])),
            cocotb.start_soon(host_accesses()),
        ]
        for task in tasks:
            await task
    await finish(bench)
