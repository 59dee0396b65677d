# amaranth: UnusedElaboratable=no
# (a test makes the block only to list its ports)
"""The SoC and a host at its serial line, for its bench: the driver's port through frames alone."""

from __future__ import annotations

import random
from typing import Any

import cocotb
import numpy as np
from cocotb.task import resume

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.host_link import MOST_WORDS, Operation, Status
from sliceforge.gen.registers import register_map
from sliceforge.gen.verilog import sdram_controller_module, soc
from sliceforge.hw.soc import Soc
from sliceforge.sim.driver import BusError
from sliceforge.verif.link import Line, bodies, frame, request, word_bytes
from sliceforge.verif.sdram_board import SDRAM, SdramBoard, check_chip, sdram_verilog
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import start

__all__ = ["BAUD", "Host", "begin", "component", "more_verilog"]

BAUD = 10_000
"""Low, so that the times that the SoC measures have few cycles."""


def component(p: dict[str, Any]) -> Soc | SdramBoard:
    """With ``sdram`` instead of ``memory_kib`` it has its chip, whose times are those of a clock of 50 MHz:
    the clock that the SoC is told to have is only the UART's, and that of time-outs."""
    config = AcceleratorConfig.preset(p["preset"])
    rates = {"clock_hz": p["clocks"] * BAUD, "baud": BAUD}
    if p.get("sdram"):
        return SdramBoard(soc(config, **rates, sdram=SDRAM), "sdram")
    return soc(config, **rates, memory_kib=p["memory_kib"])


def more_verilog(p: dict[str, Any]) -> str:
    if not p.get("sdram"):
        return ""
    return sdram_verilog(sdram_controller_module(AcceleratorConfig.preset(p["preset"])))


class Host:
    """A host with the driver's `Port`, for `cocotb.task.bridge`; its methods with an a are coroutines."""

    def __init__(self, dut: Any, mismatch: float = 0.0) -> None:
        self.p = parameters()
        self.dut = dut
        self.memory_bytes = SDRAM.chip.memory_bytes if self.p.get("sdram") else 1024 * self.p["memory_kib"]
        self.config = AcceleratorConfig.preset(self.p["preset"])
        self.registers = {register.name: register for register in register_map(self.config)}
        self.random = random.Random(f"host {cocotb.RANDOM_SEED}")
        self.line = Line(dut.uart_rx, dut.uart_tx, self.p["clocks"], mismatch=mismatch)
        self.tag = self.random.randrange(256)
        self.irq = 0  # the last answer's
        self.noise = 0.0  # share of requests that come damaged, too, before they come whole

    async def ask(
        self, operation: int, address: int = 0, words: Any = (), **named: Any
    ) -> tuple[int, list[int]]:
        """Sends a request, and returns status and words of its answer."""
        tag = named.pop("tag", None)
        if tag is None:
            tag = self.tag = (self.tag + 1) % 256
        self.line.received.clear()
        whole = frame(request(tag, operation, address, words, **named))
        if self.random.random() < self.noise:
            damaged, at = bytearray(whole), self.random.randrange(len(whole))
            broken = [at] if self.random.random() < 0.3 else []
            damaged[at] ^= 1 << self.random.randrange(8)
            await self.line.send(damaged, broken=broken)
        await self.line.send(whole)
        return await self.answer(tag, operation)

    async def answer(self, tag: int, operation: int) -> tuple[int, list[int]]:
        received = self.line.received
        for _ in range(20 * MOST_WORDS):
            if len(received) > 2 and received.endswith(b"\x7e"):
                break
            await self.line.bits(10)
        (body,) = bodies(bytes(received))
        assert body[:2] == bytes([tag, operation | 0x80]) and body[3] in (0, 1)
        self.irq = body[3]
        return body[2], [int.from_bytes(body[i : i + 4], "little") for i in range(4, len(body), 4)]

    async def aread(self, address: int, count: int = 1) -> list[int]:
        status, words = await self.ask(Operation.READ, address, count=count)
        if status != Status.OK:
            raise BusError(f"read of {address:#x}: {Status(status).name}")
        assert len(words) == count
        return words

    async def awrite(self, address: int, *words: int) -> None:
        status, answer = await self.ask(Operation.WRITE, address, words)
        assert answer == []
        if status != Status.OK:
            raise BusError(f"write of {address:#x}: {Status(status).name}")

    async def register(self, name: str) -> int:
        return (await self.aread(self.registers[name].offset))[0]

    async def finish(self) -> None:
        """Nothing more comes."""
        self.line.received.clear()
        await self.line.bits(50)
        assert not self.line.received and self.dut.uart_tx.value == 1
        if self.p.get("sdram"):
            check_chip(self.dut)

    # The port.

    def read_register(self, offset: int) -> int:
        return resume(self.aread)(offset)[0]

    def write_register(self, offset: int, value: int) -> None:
        resume(self.awrite)(offset, value)

    def read_memory(self, address: int, size: int) -> bytes:
        assert address % 4 == size % 4 == 0
        counts = [min(MOST_WORDS, size // 4 - i) for i in range(0, size // 4, MOST_WORDS)]
        pieces = [resume(self.aread)(address + 4 * MOST_WORDS * i, count) for i, count in enumerate(counts)]
        return b"".join(map(word_bytes, pieces))

    def write_memory(self, address: int, data: bytes) -> None:
        assert address % 4 == len(data) % 4 == 0
        words = np.frombuffer(data, "<u4").tolist()
        for i in range(0, len(words), MOST_WORDS):
            resume(self.awrite)(address + 4 * i, *words[i : i + MOST_WORDS])

    def wait_interrupt(self, progress: Any = None) -> None:
        for _ in range(1000):
            resume(self.ask)(Operation.HELLO)
            if self.irq:
                return
        raise TimeoutError("no interrupt in 1000 requests")


async def begin(dut: Any, mismatch: float = 0.0) -> Host:
    """After a reset. ``mismatch``: as of `Line`."""
    await start(dut, component(parameters()), uart_rx=1)
    return Host(dut, mismatch)
