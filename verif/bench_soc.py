"""Bench of hw/soc.py: the production driver on the whole SoC, through the serial line alone."""

from __future__ import annotations

from math import log2
from typing import Any

import cocotb
import numpy as np
from cocotb.task import bridge
from cocotb.triggers import RisingEdge
from cocotb.utils import get_sim_time

from sliceforge.gen.host_link import HELLO_WORDS, MEMORY_BASE, MOST_WORDS, Operation, Status, hello
from sliceforge.gen.registers import IDENTITY, REGISTER_SPACE
from sliceforge.sim.driver import Driver, place
from sliceforge.verif.accelerator_layers import GoldenLayer, small_layer
from sliceforge.verif.link import PERIOD, frame, request
from sliceforge.verif.simulation import parameters
from sliceforge.verif.soc_host import BAUD, Host, begin, component, more_verilog
from sliceforge.verif.streams import reset

__all__ = ["CASES", "component", "more_verilog"]

CASES = [
    {"preset": "tiny", "clocks": 4, "memory_kib": 12},
    {"preset": "tiny", "clocks": 4, "sdram": True},
]

DONE, START = 1, 1
"""Bits of INTERRUPT_PENDING and INTERRUPT_ENABLE, and of CONTROL."""


@cocotb.test()
async def says_hello(dut: Any) -> None:
    host = await begin(dut)
    words = hello(clock_hz=host.p["clocks"] * BAUD, baud=BAUD, memory_bytes=host.memory_bytes)
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
    """And nothing behind it: a write that leaves it has written what was inside. Of an SDRAM: both ends, and
    a row of each bank."""
    host = await begin(dut)
    count = host.memory_bytes // 4
    blocks = list(range(0, count, MOST_WORDS))
    if host.p.get("sdram"):
        blocks = [0, *(i * count // 16 + i * MOST_WORDS for i in range(1, 8)), count - MOST_WORDS]
    words = {i: [host.random.getrandbits(32) for _ in range(MOST_WORDS)] for i in blocks}
    for i in blocks:
        await host.awrite(MEMORY_BASE + 4 * i, *words[i])
    for i in blocks:
        assert await host.aread(MEMORY_BASE + 4 * i, MOST_WORDS) == words[i]
    end = MEMORY_BASE + 4 * count
    assert await host.ask(Operation.READ, end - 8, count=3) == (Status.SLAVE_ERROR, [])
    assert await host.ask(Operation.WRITE, end - 8, [1, 2, 3, 4]) == (Status.SLAVE_ERROR, [])
    assert await host.aread(end - 12, 3) == [words[blocks[-1]][-3], 1, 2]
    assert await host.aread(MEMORY_BASE) == words[0][:1]
    await host.finish()


async def run_layer(host: Host, driver: Driver, **settings: Any) -> None:
    """A layer of a few tiles through the driver, against the golden model."""
    layer = small_layer(host.random, host.config, **settings)
    result = await bridge(driver.run)([layer.image], base=MEMORY_BASE, memory_bytes=host.memory_bytes)
    np.testing.assert_array_equal(result.outputs[0], layer.result)
    assert result.counters["OUTER_PRODUCTS"] == layer.products()
    assert host.dut.irq.value == 0


@cocotb.test()
@cocotb.parametrize(noise=[0.0, 0.5])
async def runs_layers(dut: Any, noise: float) -> None:
    """One behind the other, and after a reset by the host; also if half of the requests come damaged, too."""
    host = await begin(dut)
    host.noise = noise
    driver = await bridge(Driver)(host, host.config)
    await run_layer(host, driver)
    await run_layer(host, driver, shape=(3, 5, 2))
    assert await host.ask(Operation.RESET) == (Status.OK, [])
    await run_layer(host, driver, shape=(1, 1, 1))
    await host.finish()


async def load(host: Host, shape: tuple[int, int, int]) -> GoldenLayer:
    """Puts a layer into memory, and all but its start into the registers."""
    layer = small_layer(host.random, host.config, shape)
    placement = place([layer.image], base=MEMORY_BASE, memory_bytes=host.memory_bytes)
    await bridge(host.write_memory)(placement.address, placement.data)
    await host.awrite(host.registers["QUEUE_ADDRESS"].offset, placement.address)
    await host.awrite(host.registers["INTERRUPT_ENABLE"].offset, DONE)
    return layer


@cocotb.test()
async def starts_once(dut: Any) -> None:
    """However often the host sends the START whose answer it missed."""
    host = await begin(dut)
    await load(host, (3, 5, 2))
    control = host.registers["CONTROL"].offset
    for tag in (0x7D, 0x7E):
        answer = await host.ask(Operation.WRITE, control, [START], tag=tag)
        if dut.irq.value == 0:
            await RisingEdge(dut.irq)
        for _ in range(2):
            assert answer == (Status.OK, [])
            answer = await host.ask(Operation.WRITE, control, [START], tag=tag)
            assert host.irq == 1
        assert await host.register("LAYERS_DONE") == 1 and await host.register("INTERRUPT_PENDING") == DONE
        await host.awrite(host.registers["INTERRUPT_PENDING"].offset, DONE)
        assert await host.register("STATUS") == 0 and host.irq == 0
    await host.finish()


@cocotb.test()
async def resets_a_run(dut: Any) -> None:
    """A RESET in the middle of a layer leaves the machine as new, and in memory what was there."""
    host = await begin(dut)
    c = host.config
    await load(host, (4 * c.tile_m, 16 * c.tile_k, c.tile_n))
    before = await host.aread(MEMORY_BASE, MOST_WORDS)
    await host.awrite(host.registers["CONTROL"].offset, START)
    assert await host.ask(Operation.RESET) == (Status.OK, [])
    assert await host.register("LAYERS_DONE") == 0, "the layer was too short for this test"
    for name in ("STATUS", "QUEUE_ADDRESS", "INTERRUPT_ENABLE", "INTERRUPT_PENDING", "CYCLES"):
        assert await host.register(name) == 0, name
    assert await host.aread(MEMORY_BASE, MOST_WORDS) == before
    await run_layer(host, await bridge(Driver)(host, c))
    await host.finish()


@cocotb.test()
@cocotb.parametrize(mismatch=[-0.02, 0.02])
async def follows_the_hosts_rate(dut: Any, mismatch: float) -> None:
    """2 % below and above its own."""
    host = await begin(dut, mismatch)
    words = [host.random.getrandbits(32) for _ in range(MOST_WORDS)]
    await host.awrite(MEMORY_BASE, *words)
    assert await host.aread(MEMORY_BASE, MOST_WORDS) == words
    await host.finish()


@cocotb.test()
async def forgets_half_a_frame(dut: Any) -> None:
    """After a quarter of a second of silence, and not before."""
    host = await begin(dut)
    whole = frame(request(0x11, Operation.HELLO))
    for seconds, answered in ((0.2, True), (0.3, False)):
        host.line.received.clear()
        await host.line.send(whole[:6])
        await host.line.bits(seconds * BAUD)
        await host.line.send(whole[6:])
        await host.line.bits(500)
        assert bool(host.line.received) == answered
    assert await host.register("ID") == IDENTITY
    await host.finish()


@cocotb.test()
async def starts_afresh_at_reset(dut: Any) -> None:
    """In the middle of a request and of an answer: neither is ever ended."""
    host = await begin(dut)
    for cut in (25, 60, 150, 190, 300):
        task = cocotb.start_soon(host.ask(Operation.HELLO))
        await host.line.bits(cut)
        task.cancel()
        host.line.stop()
        dut.uart_rx.value = 1
        await reset(dut, 40)
        assert dut.uart_tx.value == 1
        host = Host(dut)
        await host.finish()
        assert await host.register("ID") == IDENTITY
    await host.finish()


@cocotb.test()
async def shows_that_it_is_alive(dut: Any) -> None:
    """A square wave of 0.7 to 1.5 Hz."""
    await begin(dut)
    bits = round(log2(parameters()["clocks"] * BAUD))
    assert 0.7 < parameters()["clocks"] * BAUD / 2**bits < 1.5
    assert dut.alive.value == 0
    start_time = get_sim_time("ps")
    await RisingEdge(dut.alive)
    assert (get_sim_time("ps") - start_time) // PERIOD in (2**bits // 2 - 1, 2**bits // 2)
