# amaranth: UnusedElaboratable=no
# (a test makes the block only to list its ports)
"""Bench of hw/soc.py: the production driver on the whole SoC, through the serial line alone."""

from __future__ import annotations

import random
from typing import Any

import cocotb
import numpy as np
from cocotb.task import bridge, resume

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.host_link import HELLO_WORDS, MEMORY_BASE, MOST_WORDS, Operation, Status, hello
from sliceforge.gen.registers import IDENTITY, REGISTER_SPACE, register_map
from sliceforge.gen.verilog import soc
from sliceforge.hw.soc import Soc
from sliceforge.sim.driver import BusError, Driver
from sliceforge.verif.accelerator_layers import small_layer
from sliceforge.verif.link import Line, bodies, frame, request, word_bytes
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import start

CASES = [{"preset": "tiny", "clocks": 4, "memory_kib": 16}]

BAUD = 1_000_000


def component(p: dict[str, Any]) -> Soc:
    config = AcceleratorConfig.preset(p["preset"])
    return soc(config, clock_hz=p["clocks"] * BAUD, baud=BAUD, memory_kib=p["memory_kib"])


class Host:
    """A host with the driver's `Port`, for `cocotb.task.bridge`; its methods with an a are coroutines."""

    def __init__(self, dut: Any) -> None:
        self.p = parameters()
        self.dut = dut
        self.config = AcceleratorConfig.preset(self.p["preset"])
        self.registers = {register.name: register for register in register_map(self.config)}
        self.random = random.Random(f"host {cocotb.RANDOM_SEED}")
        self.line = Line(dut.uart_rx, dut.uart_tx, self.p["clocks"])
        self.tag = self.random.randrange(256)
        self.irq = 0  # the last answer's

    async def ask(
        self, operation: int, address: int = 0, words: Any = (), **named: Any
    ) -> tuple[int, list[int]]:
        """Sends a request, and returns status and words of its answer."""
        tag = named.pop("tag", None)
        if tag is None:
            tag = self.tag = (self.tag + 1) % 256
        self.line.received.clear()
        await self.line.send(frame(request(tag, operation, address, words, **named)))
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


async def begin(dut: Any) -> Host:
    await start(dut, component(parameters()), uart_rx=1)
    return Host(dut)


@cocotb.test()
async def says_hello(dut: Any) -> None:
    host = await begin(dut)
    memory_bytes = 1024 * host.p["memory_kib"]
    words = hello(clock_hz=host.p["clocks"] * BAUD, baud=BAUD, memory_bytes=memory_bytes)
    assert await host.ask(Operation.HELLO) == (Status.OK, list(words))
    assert len(words) == len(HELLO_WORDS)
    await host.finish()


@cocotb.test()
async def reaches_every_register(dut: Any) -> None:
    """And no address besides, below the memory."""
    host = await begin(dut)
    assert await host.register("ID") == IDENTITY
    for register in host.registers.values():
        expected = sum(field.reset << field.lsb for field in register.fields)
        assert await host.register(register.name) == expected, register.name
    offset = host.registers["STALL_LIMIT"].offset
    for value in (0, 0xFFFF_FFFF, 0x7E7D_7D7E):
        await host.awrite(offset, value)
        assert await host.aread(offset) == [value]
    for address in (
        0x3FC,
        REGISTER_SPACE,
        REGISTER_SPACE + offset,
        0x4000_0000,
        MEMORY_BASE - 4,
        0xFFFF_FFFC,
    ):
        assert await host.ask(Operation.READ, address, count=1) == (Status.SLAVE_ERROR, [])
        assert await host.ask(Operation.WRITE, address, [5]) == (Status.SLAVE_ERROR, [])
    assert await host.aread(offset) == [value]
    await host.finish()


@cocotb.test()
async def reaches_all_of_memory(dut: Any) -> None:
    """And nothing behind it: a write that leaves it has written what was inside."""
    host = await begin(dut)
    count = 256 * host.p["memory_kib"]
    words = [host.random.getrandbits(32) for _ in range(count)]
    for i in range(0, count, MOST_WORDS):
        await host.awrite(MEMORY_BASE + 4 * i, *words[i : i + MOST_WORDS])
    found = []
    for i in range(0, count, MOST_WORDS):
        found += await host.aread(MEMORY_BASE + 4 * i, MOST_WORDS)
    assert found == words
    end = MEMORY_BASE + 4 * count
    assert await host.ask(Operation.READ, end - 8, count=3) == (Status.SLAVE_ERROR, [])
    assert await host.ask(Operation.WRITE, end - 8, [1, 2, 3, 4]) == (Status.SLAVE_ERROR, [])
    assert await host.aread(end - 12, 3) == [words[-3], 1, 2]
    assert await host.aread(MEMORY_BASE) == words[:1]
    await host.finish()


async def run_layer(host: Host, driver: Driver, **settings: Any) -> None:
    """A layer of a few tiles through the driver, against the golden model."""
    layer = small_layer(host.random, host.config, **settings)
    result = await bridge(driver.run)(
        [layer.image], base=MEMORY_BASE, memory_bytes=1024 * host.p["memory_kib"]
    )  # fmt: skip
    np.testing.assert_array_equal(result.outputs[0], layer.result)
    assert result.counters["OUTER_PRODUCTS"] == layer.products()
    assert host.dut.irq.value == 0


@cocotb.test()
async def runs_layers(dut: Any) -> None:
    """Another layer right behind, and after a reset by the host."""
    host = await begin(dut)
    driver = await bridge(Driver)(host, host.config)
    await run_layer(host, driver)
    await run_layer(host, driver, shape=(3, 5, 2))
    assert await host.ask(Operation.RESET) == (Status.OK, [])
    await run_layer(host, driver, shape=(1, 1, 1))
    await host.finish()
