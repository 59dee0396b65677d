"""What surrounds an accelerator in a cocotb bench, on cocotbext-axi: a memory that can fail, random pauses,
and the port through which the driver reaches registers and memory.

cocotbext-axi 0.1.28 works with cocotb 2.1, with deprecation warnings. It insists on identifiers, which our
master does not have: `axi_checker.Watched` adds them.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cocotb
from cocotb.task import resume
from cocotb.triggers import ClockCycles, RisingEdge, SimTimeoutError, with_timeout
from cocotbext.axi import (
    AxiBus,
    AxiLiteBus,
    AxiLiteMaster,
    AxiRamRead,
    AxiRamWrite,
    AxiResp,
)

from sliceforge.sim.driver import BusError

__all__ = ["AxiMemory", "CocotbPort", "Fault", "Pauses"]

PERIOD = 10
"""Of the clock that `streams.start` makes, in ns."""


@dataclass
class Fault:
    """Answers accesses in bytes ``start`` .. ``stop - 1`` with ``response``, after ``after`` good beats."""

    kind: str  # "read" or "write"
    start: int
    stop: int
    response: AxiResp = AxiResp.SLVERR
    after: int = 0
    hits: int = field(default=0, init=False)

    def meets(self, kind: str, address: int, length: int) -> bool:
        if kind != self.kind or address >= self.stop or address + length <= self.start:
            return False
        if self.after:
            self.after -= 1
            return False
        self.hits += 1
        return True


def _silence(dut: Any, prefix: str) -> None:
    """cocotbext-axi logs every burst and every refusal."""
    logging.getLogger(f"cocotb.{dut._name}.{prefix}").setLevel(logging.CRITICAL)


class _Refused(Exception):
    """Makes cocotbext-axi's slave answer with an error."""


class _Side:
    """What reading and writing have in common; mixed into cocotbext-axi's RAM."""

    memory: AxiMemory
    kind: str

    async def _enter(self, address: int, length: int) -> None:
        """Waits for the latency; raises if the access is to fail, with its response in ``response``."""
        memory = self.memory
        if memory.latency and memory.random.random() < memory.latency_share:
            await ClockCycles(memory.clock, memory.random.randint(1, memory.latency))
        for fault in memory.faults:
            if fault.meets(self.kind, address, length):
                self.response = fault.response
                raise _Refused

    def _answer_through(self, channel: Any, name: str) -> None:
        """cocotbext-axi answers any failure with SLVERR; this lets the fault choose."""
        send = channel.send

        async def choose(answer: Any) -> None:
            if getattr(answer, name) != AxiResp.OKAY:
                setattr(answer, name, self.response)
            await send(answer)

        channel.send = choose


class _ReadSide(_Side, AxiRamRead):
    kind = "read"

    async def _read(self, address: int, length: int) -> bytes:
        await self._enter(address, length)
        return self.memory.get(address, length)


class _WriteSide(_Side, AxiRamWrite):
    kind = "write"

    async def _write(self, address: int, data: bytes) -> None:
        await self._enter(address, len(data))
        self.memory.put(address, data)


class AxiMemory:
    """``data``: a memory of ``size`` bytes at the AXI4 master ``prefix`` of ``dut``. It repeats over the
    whole address space.

    Members to set: ``faults``; ``latency``, the most cycles that a beat waits, in a share ``latency_share``
    of them.
    """

    def __init__(self, dut: Any, prefix: str, size: int) -> None:
        self.clock = dut.clk
        self.data = bytearray(size)
        self.faults: list[Fault] = []
        self.latency = 0
        self.latency_share = 0.02
        self.random = random.Random(f"memory {cocotb.RANDOM_SEED}")
        bus = AxiBus.from_prefix(dut, prefix)
        _silence(dut, prefix)
        self._read = _ReadSide(bus.read, dut.clk, dut.rst, mem=self.data)
        self._write = _WriteSide(bus.write, dut.clk, dut.rst, mem=self.data)
        self._read.memory = self._write.memory = self
        self._read._answer_through(self._read.r_channel, "rresp")
        self._write._answer_through(self._write.b_channel, "bresp")
        # Deep enough that the master's own limits hold it back.
        self._read.ar_channel.queue_occupancy_limit = 64
        self._write.aw_channel.queue_occupancy_limit = 64
        self._write.w_channel.queue_occupancy_limit = 64
        self._write.b_channel.queue_occupancy_limit = 64
        self.channels: Mapping[str, Any] = {
            "ar": self._read.ar_channel,
            "r": self._read.r_channel,
            "aw": self._write.aw_channel,
            "w": self._write.w_channel,
            "b": self._write.b_channel,
        }

    def get(self, address: int, size: int) -> bytes:
        at = address % len(self.data)
        return bytes(self.data[at : at + size])

    def put(self, address: int, data: bytes) -> None:
        at = address % len(self.data)
        assert at + len(data) <= len(self.data)
        self.data[at : at + len(data)] = data


class Pauses:
    """Holds cocotbext-axi channels still in random cycles; ``shares`` of cycles by channel name.

    A channel in ``stopped`` holds still for good.
    """

    def __init__(self, clock: Any, channels: Mapping[str, Any], shares: Mapping[str, float] | float) -> None:
        self._clock, self._channels = clock, channels
        self.stopped: set[str] = set()
        self.set_shares(shares)
        self._random = random.Random(f"pauses {cocotb.RANDOM_SEED}")
        self._task = cocotb.start_soon(self._run())

    def set_shares(self, shares: Mapping[str, float] | float) -> None:
        if not isinstance(shares, Mapping):
            shares = dict.fromkeys(self._channels, shares)
        self._shares = shares

    async def _run(self) -> None:
        edge = RisingEdge(self._clock)
        while True:
            for name, channel in self._channels.items():
                share = self._shares.get(name, 0.0)
                channel.pause = name in self.stopped or (share > 0 and self._random.random() < share)
            await edge


class CocotbPort:
    """The driver's `Port` over AXI4-Lite; its methods are to be called inside ``cocotb.task.bridge``.

    Parameters
    ----------
    prefix : of the AXI4-Lite slave. memory : whose bytes are read and written without simulated time.
    limit : cycles after which `wait_interrupt` gives up.
    """

    def __init__(self, dut: Any, prefix: str, memory: AxiMemory, *, limit: int = 30_000) -> None:
        self._dut, self._memory, self.limit = dut, memory, limit
        _silence(dut, prefix)
        self.master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, prefix), dut.clk, dut.rst)
        write, read = self.master.write_if, self.master.read_if
        self.channels: Mapping[str, Any] = {
            "ar": read.ar_channel, "r": read.r_channel, "aw": write.aw_channel, "w": write.w_channel,
            "b": write.b_channel,
        }  # fmt: skip

    def read_register(self, offset: int) -> int:
        return resume(self.read)(offset)

    def write_register(self, offset: int, value: int) -> None:
        resume(self.write)(offset, value.to_bytes(4, "little"))

    def read_memory(self, address: int, size: int) -> bytes:
        return self._memory.get(address, size)

    def write_memory(self, address: int, data: bytes) -> None:
        self._memory.put(address, data)

    def wait_interrupt(self, progress: Any = None) -> None:
        resume(self.interrupt)()

    # The same for coroutines.

    async def read(self, offset: int) -> int:
        answer = await self.master.read(offset, 4)
        if answer.resp != AxiResp.OKAY:
            raise BusError(f"read of register {offset:#x}: {answer.resp.name}")
        return int.from_bytes(answer.data, "little")

    async def write(self, offset: int, data: bytes) -> None:
        """``data``: up to 4 bytes from ``offset`` on; the strobes of others are 0."""
        answer = await self.master.write(offset, data)
        if answer.resp != AxiResp.OKAY:
            raise BusError(f"write to register {offset:#x}: {answer.resp.name}")

    async def write_strobed(self, offset: int, value: int, strobes: int) -> int:
        """With any strobes; returns the response. cocotbext-axi's master only writes bytes in a row."""
        write = self.master.write_if
        address, data = write.aw_channel._transaction_obj(), write.w_channel._transaction_obj()
        address.awaddr, data.wdata, data.wstrb = offset, value, strobes
        await write.w_channel.send(data)
        await write.aw_channel.send(address)
        return int((await write.b_channel.recv()).bresp)

    async def interrupt(self) -> None:
        """Returns when the interrupt is high; TimeoutError after ``limit`` cycles."""
        if self._dut.irq.value == 1:
            return
        try:
            await with_timeout(RisingEdge(self._dut.irq), self.limit * PERIOD, "ns")
        except SimTimeoutError:
            raise TimeoutError(f"no interrupt in {self.limit} cycles") from None
