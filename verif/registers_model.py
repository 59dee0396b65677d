"""What the registers must hold: shared by the benches of hw/registers.py."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, RisingEdge

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.registers import REGISTER_SPACE, Access, Field, Register, register_map
from sliceforge.hw.axi import OKAY, SLVERR
from sliceforge.hw.registers import Registers
from sliceforge.verif.axi_checker import AxiChecker, Watched, watch
from sliceforge.verif.simulation import parameters

__all__ = ["ONES", "WRITABLE", "Bench", "component", "port"]

WRITABLE = (Access.CONTROL, Access.PULSE, Access.STICKY)
ONES = 0xFFFF_FFFF


def registers(p: dict[str, Any]) -> tuple[Register, ...]:
    return register_map(AcceleratorConfig.preset("tiny", **p))


def component(p: dict[str, Any]) -> Watched:
    return Watched(Registers(registers=registers(p)), {"s_axi": True})


def port(register: Register, field: Field) -> str:
    """A field's port: the register's name alone where there is one field."""
    return (register.name if field.name == "VALUE" else f"{register.name}_{field.name}").lower()


def byte_mask(strobes: int) -> int:
    return sum(0xFF << 8 * byte for byte in range(4) if strobes >> byte & 1)


class Bench:
    """The block, what it must hold, and a count of the cycles in which each pulse was high."""

    def __init__(self, dut: Any, case: str) -> None:
        self.dut = dut
        self.rng = random.Random(f"{cocotb.RANDOM_SEED} {case}")
        self.registers = {register.offset: register for register in registers(parameters())}
        self.named = {register.name: register for register in self.registers.values()}
        self.fields = [
            (port(register, field), register, field)
            for register in self.registers.values()
            for field in register.fields
        ]
        self.values = {name: field.reset for name, _, field in self.fields}
        self.pulses = dict.fromkeys(self.of(Access.PULSE), 0)
        self.expected_pulses = dict.fromkeys(self.pulses, 0)
        self.task = cocotb.start_soon(self.count_pulses())
        self.checker = AxiChecker("s_axi", address_bits=10, data_bits=32, lite=True)
        watch(dut, {"s_axi": self.checker})

    def of(self, *accesses: Access) -> list[str]:
        return [name for name, _, field in self.fields if field.access in accesses]

    async def count_pulses(self) -> None:
        while True:
            await RisingEdge(self.dut.clk)
            for name in self.pulses:
                self.pulses[name] += int(getattr(self.dut, name).value == 1)

    def set_status(self, busy: int | None = None) -> None:
        """Anything on what the hardware shows. ``busy`` as given."""
        for name, _, field in self.fields:
            if field.access == Access.STATUS:
                self.values[name] = self.rng.choice(
                    [0, field.mask >> field.lsb, self.rng.getrandbits(field.width)]
                )
        if busy is not None:
            self.values["status_busy"] = busy
        for name in self.of(Access.STATUS):
            getattr(self.dut, name).value = self.values[name]

    async def raise_events(self, share: float = 0.5) -> None:
        """Sets some of the sticky fields, in one cycle."""
        raised = [name for name in self.of(Access.STICKY) if self.rng.random() < share]
        for value in (1, 0):
            await FallingEdge(self.dut.clk)
            for name in raised:
                getattr(self.dut, f"set_{name}").value = value
        self.values |= dict.fromkeys(raised, 1)

    def word(self, offset: int) -> int | None:
        """What reads at ``offset``; None where no register is."""
        if offset not in self.registers:
            return None
        register = self.registers[offset]
        return sum(
            self.values[port(register, field)] << field.lsb
            for field in register.fields
            if field.access != Access.PULSE
        )

    def write(self, offset: int, value: int, strobes: int = 15) -> int:
        """Follows a write; returns its response."""
        register = self.registers.get(offset)
        if register is None or not any(field.access in WRITABLE for field in register.fields):
            return SLVERR
        mask = byte_mask(strobes)
        if register.name == "CONTROL" and value & mask & 1 and self.values["status_busy"]:
            return SLVERR
        for field in register.fields:
            name = port(register, field)
            bits, here = (value & mask & field.mask) >> field.lsb, (mask & field.mask) >> field.lsb
            if field.access == Access.CONTROL:
                self.values[name] = self.values[name] & ~here | bits
            elif field.access == Access.STICKY:
                self.values[name] &= ~bits
            elif field.access == Access.PULSE:
                self.expected_pulses[name] += bits
        return OKAY

    def check(self) -> None:
        """The ports, and how often pulses were seen."""
        seen = {name: int(getattr(self.dut, name).value) for name in self.of(Access.CONTROL, Access.STICKY)}
        assert seen == {name: self.values[name] for name in seen}
        assert self.pulses == self.expected_pulses

    async def finish(self) -> None:
        """Nothing more happens."""
        for _ in range(5):
            await FallingEdge(self.dut.clk)
        self.check()
        self.checker.finish()

    def any_offset(self) -> int:
        """Of a register, mostly one that can be written; now and then of none."""
        written = [
            offset
            for offset, register in self.registers.items()
            if any(field.access in WRITABLE for field in register.fields)
        ]
        return self.rng.choice(
            [self.rng.choice(written), self.rng.choice(written), self.rng.choice(list(self.registers)),
             self.rng.randrange(0, REGISTER_SPACE, 4)]
        )  # fmt: skip
