# amaranth: UnusedElaboratable=no
# (a test makes the block only to list its ports)
"""A block with an SDRAM's pins, and the chip at them (sim/sdram_chip.v), for benches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth import ClockSignal, Instance, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sliceforge.gen.sdram import CHIPS, Sdram, controller_verilog
from sliceforge.hw.sdram_memory import sdram_pins
from sliceforge.sim.sdram_chip import FAULTS, chip_parameters, chip_verilog

__all__ = ["CONTROLLER", "SDRAM", "SdramBoard", "check_chip", "sdram_verilog"]

SDRAM = Sdram(CHIPS["ulx3s"], 50_000_000)
CONTROLLER = "sdram_controller"


def sdram_verilog(controller: str = CONTROLLER) -> str:
    """The modules that are none of ours: LiteDRAM's controller, by this name, and the chip."""
    return controller_verilog(SDRAM, controller) + chip_verilog()


class SdramBoard(wiring.Component):
    """``block`` with the chip at its pins, whose names begin with ``prefix``; its other ports are passed on.

    chip: parameters of the chip's module, by default the board's. Member ``fault`` : out; the chip's.
    """

    def __init__(self, block: Any, prefix: str, chip: Mapping[str, int] | None = None) -> None:
        self._chip = chip_parameters(SDRAM) if chip is None else chip
        self._block, self._pins = block, sdram_pins(prefix, SDRAM.chip.row_bits)
        self._prefix = prefix
        others = {name: member for name, member in block.signature.members.items() if name not in self._pins}
        super().__init__({**others, "fault": Out(8)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.block = block = self._block
        for name, member in self.signature.members.items():
            if name != "fault":
                inner, outer = getattr(block, name), getattr(self, name)
                m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
        m.submodules.chip = Instance(
            "sdram_chip",
            i_clk=ClockSignal(),
            o_fault=self.fault,
            **{f"p_{name}": value for name, value in self._chip.items()},
            **{
                f"{'o' if member.flow == In else 'i'}_{name.removeprefix(f'{self._prefix}_')}": getattr(
                    block, name
                )
                for name, member in self._pins.items()
            },
        )
        return m


def check_chip(dut: Any) -> None:
    """The chip was never treated against its rules."""
    assert dut.fault.value == 0, f"the SDRAM saw {FAULTS[int(dut.fault.value)]}"
