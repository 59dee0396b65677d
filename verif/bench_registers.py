"""Bench of hw/registers.py: the whole map over AXI4-Lite, against gen/registers.py.

Through cocotbext-axi's master, with random pauses on all channels; `registers_by_hand` has the tests of
orders and delays. A protocol checker watches all of them.
"""

from __future__ import annotations

from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly

from sliceforge.gen.registers import REGISTER_SPACE, Access
from sliceforge.hw.axi import OKAY, SLVERR
from sliceforge.verif.axi import CocotbPort, Pauses
from sliceforge.verif.registers_model import ONES, WRITABLE, Bench, component
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, start

MODULES = ["registers_by_hand"]
CASES = [{"address_bits": 40}, {"address_bits": 32}, {"address_bits": 64}]


class Through(Bench):
    """Accesses through cocotbext-axi."""

    def __init__(self, dut: Any, case: str, stall: float) -> None:
        super().__init__(dut, f"{case} {stall}")
        self.port = CocotbPort(dut, "s_axi", None)
        self.pauses = Pauses(dut.clk, self.port.channels, stall)

    async def check_read(self, offset: int) -> None:
        """Reads, by the address of any of the word's bytes."""
        answer = await self.port.master.read(offset + self.rng.randrange(4), 1)
        whole = await self.port.master.read(offset, 4)
        expected = self.word(offset)
        assert answer.resp == whole.resp == (SLVERR if expected is None else OKAY), f"{offset:#x}"
        if expected is not None:
            assert int.from_bytes(whole.data, "little") == expected, f"{offset:#x}: {whole.data}"

    async def check_write(self, offset: int, value: int, strobes: int = 15) -> None:
        expected = self.write(offset, value, strobes)
        address = offset + self.rng.randrange(4)
        assert await self.port.write_strobed(address, value, strobes) == expected, f"{offset:#x}"


async def through(dut: Any, case: str, stall: float) -> Through:
    await start(dut, component(parameters()))
    return Through(dut, case, stall)


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def reads_every_address(dut: Any, stall: float) -> None:
    """After reset, and with anything in all fields that the hardware sets."""
    bench = await through(dut, "reads", stall)
    for _ in range(2):
        offsets = list(range(0, REGISTER_SPACE, 4))
        bench.rng.shuffle(offsets)
        for offset in offsets:
            await bench.check_read(offset)
        bench.set_status()
        await bench.raise_events()
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def writes_every_address(dut: Any, stall: float) -> None:
    """All ones and all zeros: only the fields take them, reserved bits and read-only registers do not."""
    bench = await through(dut, "writes", stall)
    bench.set_status(busy=0)
    for value in (ONES, 0, ONES):
        await bench.raise_events(1.0)
        offsets = list(range(0, REGISTER_SPACE, 4))
        bench.rng.shuffle(offsets)
        for offset in offsets:
            await bench.check_write(offset, value)
        bench.check()
        for offset in bench.registers:
            await bench.check_read(offset)
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def writes_every_bit(dut: Any) -> None:
    """Each bit of each control field is there, alone, and goes to its port."""
    bench = await through(dut, "bits", 0.2)
    for offset, register in bench.registers.items():
        if not any(field.access == Access.CONTROL for field in register.fields):
            continue
        for bit in range(32):
            await bench.check_write(offset, 1 << bit)
            bench.check()
            await bench.check_read(offset)
            await bench.check_write(offset, ONES ^ 1 << bit)
            bench.check()
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def follows_any_accesses(dut: Any, stall: float) -> None:
    """Reads and writes of anything with any strobes, while events come and BUSY changes."""
    bench = await through(dut, "any", stall)
    for _ in range(300):
        bench.set_status()
        if bench.rng.random() < 0.5:
            await bench.raise_events()
        offset = bench.any_offset()
        if bench.rng.random() < 0.3:
            await bench.check_read(offset)
        else:
            value = bench.rng.choice([0, ONES, 1, 2, 3, bench.rng.getrandbits(32)])
            strobes = bench.rng.choice([15, bench.rng.getrandbits(4)])
            await bench.check_write(offset, value, strobes)
            if bench.rng.random() < 0.5:
                await bench.check_read(offset)
        bench.check()
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def answers_back_to_back(dut: Any, stall: float) -> None:
    """Writes and reads that are sent without waiting for answers, both at the same time."""
    bench = await through(dut, "back to back", stall)
    bench.set_status(busy=0)
    writes, reads = [], []
    constant = [
        offset
        for offset in range(0, REGISTER_SPACE, 4)
        if not any(field.access in WRITABLE for field in getattr(bench.registers.get(offset), "fields", ()))
    ]
    for _ in range(60):
        offset, value = bench.any_offset(), bench.rng.getrandbits(32)
        task = cocotb.start_soon(bench.port.master.write(offset, value.to_bytes(4, "little")))
        writes.append((task, bench.write(offset, value)))
        offset = bench.rng.choice(constant)
        reads.append((cocotb.start_soon(bench.port.master.read(offset, 4)), bench.word(offset)))
    for task, response in writes:
        assert (await task).resp == response
    for task, word in reads:
        answer = await task
        assert answer.resp == (SLVERR if word is None else OKAY)
        assert word is None or int.from_bytes(answer.data, "little") == word
    bench.check()
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def refuses_a_start_while_busy(dut: Any, stall: float) -> None:
    """Also one right behind a start that has been accepted: BUSY rises in the cycle after the pulse."""
    bench = await through(dut, "busy", stall)
    dut.status_busy.value = 0

    async def sequencer() -> None:
        while True:
            await ReadOnly()
            starts = dut.control_start.value == 1
            await FallingEdge(dut.clk)
            if starts:
                dut.status_busy.value = 1

    await FallingEdge(dut.clk)
    task = cocotb.start_soon(sequencer())
    control = bench.named["CONTROL"].offset
    start_, soft_reset = (bench.named["CONTROL"].field(name).mask for name in ("START", "SOFT_RESET"))
    words = [start_, start_, start_ | soft_reset, soft_reset, 0, ONES, start_]
    writes = [
        cocotb.start_soon(bench.port.master.write(control, word.to_bytes(4, "little"))) for word in words
    ]
    expected = [OKAY, SLVERR, SLVERR, OKAY, OKAY, SLVERR, SLVERR]
    assert [(await write).resp for write in writes] == expected
    bench.expected_pulses = {"control_start": 1, "control_soft_reset": 1}
    bench.values["status_busy"] = 1
    for strobes in range(16):  # without the strobe of its byte it is no start
        await bench.check_write(control, ONES, strobes)
    task.cancel()
    bench.set_status(busy=0)
    await bench.check_write(control, start_ | soft_reset)
    await bench.finish()
