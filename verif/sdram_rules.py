"""Bench of sim/sdram_chip.v alone: commands by hand, of which the last offends against a rule, or none does.

`test_sdram.py` runs it, once for each rule: the chip has no reset, and says nothing after its first fault.
"""

from __future__ import annotations

from typing import Any

import cocotb
from amaranth import Module
from amaranth.lib import wiring
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

from sliceforge.hw.axi import other_side
from sliceforge.hw.sdram_memory import sdram_pins
from sliceforge.sim.sdram_chip import FAULTS, chip_verilog
from sliceforge.verif.sdram_board import SDRAM, SdramBoard
from sliceforge.verif.simulation import parameters

__all__ = ["SEQUENCES", "component", "more_verilog"]

# Longer times than the board's chip has, no two of which are the same by chance, and a small memory.
T = {
    "ROW_BITS": SDRAM.chip.row_bits, "COLUMN_BITS": 4, "POWER_UP": 100, "REFRESHES": 8, "REFRESH": 200,
    "T_RP": 3, "T_RCD": 3, "T_RAS": 5, "T_RC": 12, "T_RRD": 2, "T_RFC": 6, "T_WR": 3,
}  # fmt: skip
NOP, ACTIVATE, READ, WRITE, PRECHARGE, REFRESH, MODE, STOP = 0, 4, 2, 3, 5, 6, 7, 1
ALL = 1 << 10
MODE_VALUE = 0x20

Step = tuple[Any, ...]
"""Cycles to wait with NOP, then command, bank, address, and fields that differ."""

FIRST: list[Step] = [
    (T["POWER_UP"], PRECHARGE, 0, ALL),
    (T["T_RP"], REFRESH, 0, 0),
    *[(T["T_RFC"], REFRESH, 0, 0)] * (T["REFRESHES"] - 1),
]
READY: list[Step] = [*FIRST, (T["T_RFC"], MODE, 0, MODE_VALUE)]
OPEN: list[Step] = [*READY, (2, ACTIVATE, 1, 77)]
WROTE: list[Step] = [*OPEN, (T["T_RCD"], WRITE, 1, 5, {"data": 0x1234})]
CLOSED: list[Step] = [*OPEN, (T["T_RAS"], PRECHARGE, 1, 0)]
READ_NOW: list[Step] = [*OPEN, (T["T_RCD"], READ, 1, 5)]

SEQUENCES: dict[int, list[Step]] = {
    0: [
        *WROTE, (1, WRITE, 1, 6, {"data": 0xABCD, "mask": 1}), (1, READ, 1, 5), (1, READ, 1, 6),
        (3, WRITE, 1, 5, {"data": 0}), (T["T_WR"], PRECHARGE, 1, 0), (T["T_RP"], ACTIVATE, 1, 78),
        (T["T_RRD"], ACTIVATE, 2, 78), (T["T_RCD"], READ, 2, 5 | ALL), (T["T_RAS"], PRECHARGE, 0, ALL),
        (T["T_RP"], REFRESH, 0, 0), (T["T_RFC"], ACTIVATE, 2, 78),
    ],
    1: [(T["POWER_UP"] - 1, PRECHARGE, 0, ALL)],
    2: [*FIRST, (T["T_RFC"] - 1, MODE, 0, MODE_VALUE)],
    3: [(T["POWER_UP"], REFRESH, 0, 0)],
    4: [*FIRST, (T["T_RFC"], ACTIVATE, 0, 0)],
    5: [*OPEN, (T["T_RC"], ACTIVATE, 1, 77)],
    6: [*CLOSED, (T["T_RP"] - 1, ACTIVATE, 1, 77)],
    7: [*CLOSED, (T["T_RP"], ACTIVATE, 1, 77)],
    8: [*OPEN, (T["T_RRD"] - 1, ACTIVATE, 2, 77)],
    9: [*READY, (T["REFRESH"] + 1, ACTIVATE, 1, 77)],
    10: [*OPEN, (T["T_RCD"] - 1, READ, 1, 5)],
    11: [*OPEN, (T["T_RAS"] - 1, PRECHARGE, 1, 0)],
    12: [*OPEN, (T["T_RAS"], WRITE, 1, 5, {"data": 0}), (T["T_WR"] - 1, PRECHARGE, 1, 0)],
    13: [*READ_NOW, (2, WRITE, 1, 5, {"data": 0})],
    14: [*OPEN, (T["T_RCD"], WRITE, 1, 5)],
    15: [*OPEN, (T["T_RCD"], READ, 1, 5, {"mask": 2})],
    16: [*OPEN, (T["T_RAS"], REFRESH, 0, 0)],
    17: [*FIRST, (T["T_RFC"], MODE, 0, 0x30)],
    18: [*READY, (2, STOP, 0, 0)],
}  # fmt: skip
"""By fault: with one cycle less, or something else that is wrong, in the last step."""


class Pins(wiring.Component):
    """The pins themselves, for `SdramBoard`."""

    def __init__(self) -> None:
        outward = sdram_pins("pins", SDRAM.chip.row_bits)
        inward = {name.replace("pins", "drive"): member for name, member in other_side(outward).items()}
        super().__init__({**outward, **inward})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for name in sdram_pins("pins", SDRAM.chip.row_bits):
            pin, drive = getattr(self, name), getattr(self, name.replace("pins", "drive"))
            m.d.comb += drive.eq(pin) if name.endswith("read_data") else pin.eq(drive)
        return m


def component(p: dict[str, Any]) -> SdramBoard:
    return SdramBoard(Pins(), "pins", chip=T)


def more_verilog(p: dict[str, Any]) -> str:
    return chip_verilog()


@cocotb.test()
async def finds_the_fault(dut: Any) -> None:
    """In the last step, and not before it."""
    fault = parameters()["fault"]
    Clock(dut.clk, 10, unit="ns").start()
    dut.rst.value = 0
    for name in ("ras", "cas", "we", "bank", "address", "mask", "write_data", "write_enable"):
        getattr(dut, f"drive_{name}").value = 0

    async def step(command: int, bank: int = 0, address: int = 0, **other: int) -> None:
        dut.drive_ras.value, dut.drive_cas.value, dut.drive_we.value = (command >> i & 1 for i in (2, 1, 0))
        dut.drive_bank.value, dut.drive_address.value = bank, address
        dut.drive_mask.value, dut.drive_write_data.value = other.get("mask", 0), other.get("data", 0)
        dut.drive_write_enable.value = int("data" in other)
        read.append(int(dut.drive_read_data.value))
        await FallingEdge(dut.clk)

    read: list[int] = []
    asked = []
    *before, last = SEQUENCES[fault]
    for number, (wait, command, bank, address, *other) in enumerate([*before, last]):
        for _ in range(wait - 1):
            await step(NOP)
        assert dut.fault.value == 0, f"too early, in step {number}: {FAULTS[int(dut.fault.value)]}"
        await step(command, bank, address, **(other[0] if other else {}))
        if command == READ and bank == 1:
            asked.append(len(read))
    for _ in range(4):
        await step(NOP)
    assert dut.fault.value == fault, FAULTS[int(dut.fault.value)]
    if fault == 0:
        found = [read[at + 2] for at in asked]
        assert found[0] == 0x1234 and found[1] >> 8 == 0xAB, [hex(value) for value in found]
