"""Bench of hw/accelerator.py, end to end: the production driver, a memory and a register port on
cocotbext-axi that pause at random, a protocol checker on both.

After each run all of memory is compared, results with the golden model of chains (sim/chain.py) and the tile
images that it implies; and all counters whose values follow from the layers. `MODULES` hold the tests of
errors and of resets.
"""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles

from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.registers import COUNTERS, REGISTER_SPACE, Access
from sliceforge.sim.driver import BusError
from sliceforge.sim.slices import sliced_activations
from sliceforge.verif.accelerator_coverage import sample_run
from sliceforge.verif.accelerator_layers import cut_layer, linked_layers, small_layer
from sliceforge.verif.accelerator_queues import random_queue
from sliceforge.verif.accelerator_system import System, component
from sliceforge.verif.placement import MEMORY_BYTES, long, place_layers, seeded

__all__ = ["CASES", "MODULES", "VISIBLE", "component"]

MODULES = [
    "accelerator_errors", "accelerator_illegal", "accelerator_malformed", "accelerator_resets",
    "accelerator_coverage",
]  # fmt: skip
"""Modules with more tests."""
VISIBLE = [("sequencer", "state_state"), ("sequencer", "soft_reset")]
"""For the coverage of soft resets."""

# Small memories, so that rings wrap and layers must be loaded again; short runs, so that fillers are needed.
CASES: list[dict[str, Any]] = [
    {"name": "tiny", "pea_count": 2, "lanes": 2, "run_bits": 2, "tile_k": 16, "wmem_kib": 1, "amem_kib": 1,
     "omem_kib": 1, "bus_bits": 64, "load_buffer": 16, "max_k": 512,
     "packed_products": 8, "table_products": 6, "coverage": True},
    # A bus beat is a quarter of a granule. 40 bits of address.
    {"name": "narrow", "pea_count": 1, "lanes": 2, "vector": 8, "weight_slices": 1, "run_bits": 6,
     "tile_k": 4, "wmem_kib": 1, "amem_kib": 1, "omem_kib": 2, "bus_bits": 32, "address_bits": 40,
     "load_buffer": 16, "max_k": 100},
    {"name": "three_slices", "pea_count": 2, "lanes": 4, "weight_slices": 3, "run_bits": 2, "tile_k": 8,
     "fifo_depth": 2, "wmem_kib": 2, "amem_kib": 2, "omem_kib": 2, "bus_bits": 256, "load_buffer": 32,
     "max_k": 300, "coverage": True},
    {"name": "odd", "pea_count": 3, "lanes": 5, "vector": 2, "run_bits": 1, "tile_k": 12, "fifo_depth": 3,
     "wmem_kib": 1, "amem_kib": 1, "omem_kib": 1, "bus_bits": 128, "load_buffer": 64, "max_k": 200},
    {"name": "wide", "pea_count": 1, "lanes": 3, "vector": 4, "run_bits": 4, "tile_k": 8, "wmem_kib": 1,
     "amem_kib": 1, "omem_kib": 1, "bus_bits": 512, "address_bits": 40, "load_buffer": 512, "max_k": 128,
     "packing": 4, "packed_products": 16},
]  # fmt: skip


@cocotb.test()
@cocotb.parametrize(pauses=[0.0, 0.25, 0.7])
async def random_layers(dut: Any, pauses: float) -> None:
    """Chains of layers of sizes around the tile, each with settings of its own, at any address."""
    system = await System.start(dut, pauses=pauses)
    rng = seeded("layers", pauses)
    for i in range(long(12, 60)):  # with the other tests enough layers for all kinds of them
        placed = place_layers(rng, random_queue(rng, system.config, (1, 1, 2, 3)[i % 4]))
        await system.run(placed)
        sample_run(placed)
    await system.finish()


@cocotb.test()
async def dataflows_feed_each_other(dut: Any) -> None:
    """Layers of each dataflow with the results of a layer of each, back to back."""
    system = await System.start(dut, pauses=0.1)
    rng = seeded("feeds")
    for first in Dataflow:
        placed = place_layers(
            rng,
            [layer for second in Dataflow for layer in linked_layers(rng, system.config, [first, second])],
        )
        await system.run(placed)
        sample_run(placed)
    await system.finish()


@cocotb.test()
@cocotb.parametrize(slow=["ar", "r", "aw", "w", "b"])
async def one_slow_channel(dut: Any, slow: str) -> None:
    """Everything at full speed but one channel of the memory."""
    system = await System.start(dut, pauses={slow: 0.9}, latency=0)
    rng = seeded("slow", slow)
    placed = place_layers(rng, random_queue(rng, system.config, 3))
    await system.run(placed)
    sample_run(placed)
    await system.finish()


@cocotb.test()
async def long_latency(dut: Any) -> None:
    """A memory that takes its time, and layers without a gap: many requests on their way."""
    system = await System.start(
        dut, pauses={"ar": 0.5, "r": 0.5, "aw": 0.2, "w": 0.2, "b": 0.97}, latency=200
    )
    rng = seeded("latency")
    placed = place_layers(rng, random_queue(rng, system.config, 5))
    await system.run(placed)
    sample_run(placed)
    await system.finish()


@cocotb.test()
async def runs_as_the_driver_places_it(dut: Any) -> None:
    """`Driver.run`, which lays out memory itself."""
    system = await System.start(dut)
    rng = seeded("driver")
    for count in (1, 3):
        layers = random_queue(rng, system.config, count)
        images = [layer.image for layer in layers]
        result = await system.call(system.driver.run, images, base=0x340, memory_bytes=MEMORY_BYTES - 0x340)
        for layer, output in zip(layers, result.outputs, strict=True):
            expected, form = layer.result, layer.image.output
            if form is not None:
                expected = sliced_activations(expected, form.lo_bits)
            np.testing.assert_array_equal(output, expected)
        assert result.layers_done == count
        assert result.counters["OUTER_PRODUCTS"] == sum(layer.products() for layer in layers)
    await system.finish()


@cocotb.test()
async def is_fast_with_an_ideal_memory(dut: Any) -> None:
    """Without pauses and latency a layer takes little more than its largest part: array, loads or stores.

    And a bus that owes nothing does not count as stalled.
    """
    system = await System.start(dut, pauses=0.0, latency=0)
    await system.write("STALL_LIMIT", 16)
    c = system.config
    rng = seeded("fast")
    layer = small_layer(rng, c, (2 * c.tile_m, min(c.max_k, 6 * c.tile_k), 2 * c.tile_n))
    counters = await system.run(place_layers(rng, [layer]))
    beat = c.bus_bits // 8
    steps = max(
        counters["ARRAY_CYCLES"], counters["BYTES_READ"] // beat, counters["STORE_BUSY"] + 4 * layer.shape[0]
    )
    # Before the array starts: the descriptor and the first k-tiles of both operands. After it: the last tile.
    first = sum(sum(layer.region_beats(operand)) for operand in ("weights", "activations")) // 4
    last = c.tile_m * (c.tile_n + 4)
    assert counters["CYCLES"] <= 1.1 * steps + first + last + 150, (counters, steps, first, last)
    await system.finish()


@cocotb.test()
async def interrupts(dut: Any) -> None:
    """Pending, enabled, cleared; LAYER in the middle of a chain; DONE once."""
    system = await System.start(dut)
    rng = seeded("interrupts")
    pending = system.registers["INTERRUPT_PENDING"]
    done, error, layer = (pending.field(name).mask for name in ("DONE", "ERROR", "LAYER"))

    async def level(expected: int) -> None:
        await ClockCycles(dut.clk, 3)
        assert dut.irq.value == expected

    layers = [small_layer(rng, system.config) for _ in range(3)]
    placed = place_layers(rng, layers, interrupt=lambda i: i == 1)
    for enable in (0, done, error, layer, done | error | layer):
        await system.write("INTERRUPT_ENABLE", enable)
        system.load(placed)
        before = bytes(system.memory.data)
        await system.begin(placed)
        if enable & layer:
            await system.port.interrupt()
            assert await system.port.read(pending.offset) & layer
            assert await system.read("LAYERS_DONE") >= 2
            await system.write("INTERRUPT_PENDING", layer)
            assert not await system.port.read(pending.offset) & layer
        await system.wait_idle()
        system.compare(before, placed)
        expected = done if enable & layer else done | layer
        assert await system.port.read(pending.offset) == expected
        await level(int(bool(enable & expected)))
        if not enable:  # enabling later is enough; a bit is cleared by its own 1, and by nothing else
            for mask, high in ((error, 0), (layer, 1), (done, 1), (0, 0)):
                await system.write("INTERRUPT_ENABLE", mask)
                await level(high)
            await system.write("INTERRUPT_ENABLE", done | layer | error)
            await system.port.write(pending.offset + 1, bytes([0xFF, 0xFF, 0xFF]))
            await system.write("INTERRUPT_PENDING", error)
            assert await system.port.read(pending.offset) == done | layer
            await system.write("INTERRUPT_PENDING", done)
            assert await system.port.read(pending.offset) == layer
            await level(1)
        await system.write("INTERRUPT_PENDING", done | layer | error)
        await level(0)
        await system.once()
    await system.finish()


@cocotb.test()
async def start_while_busy_is_refused(dut: Any) -> None:
    """It gets SLVERR, and neither it nor other accesses disturb the layers that run."""
    system = await System.start(dut)
    rng = seeded("busy")
    placed = place_layers(rng, random_queue(rng, system.config, 2))
    other = place_layers(rng, [small_layer(rng, system.config)])
    system.load(placed)
    before = bytes(system.memory.data)
    system.pauses.stopped.add("w")  # so that it cannot end meanwhile
    await system.begin(placed)
    for _ in range(10):
        assert await system.read("STATUS", "BUSY") == 1
        await system.write("QUEUE_ADDRESS", other[0].address & 0xFFFF_FFFF)
        try:
            await system.write("CONTROL", 1)
            raise AssertionError("START was accepted while BUSY")
        except BusError:
            pass
        for name in COUNTERS:
            await system.read(name)
    system.pauses.stopped.clear()
    await system.wait_idle()
    system.compare(before, placed)
    assert await system.read("LAYERS_DONE") == 2
    await system.write("INTERRUPT_PENDING", 7)
    await system.run(place_layers(rng, [small_layer(rng, system.config)]))
    await system.finish()


@cocotb.test()
async def registers_answer_as_the_map_says(dut: Any) -> None:
    """Every word of the register space: reset values, constants, SLVERR where nothing is, strobes."""
    system = await System.start(dut)
    rng = seeded("registers")
    writable: dict[int, int] = {}
    by_offset = {register.offset: register for register in system.registers.values()}
    for offset in range(0, REGISTER_SPACE, 4):
        register = by_offset.get(offset)
        accesses = {field.access for field in register.fields} if register else set()
        try:
            value = await system.port.read(offset)
            assert register, f"read of unmapped {offset:#x} is answered with OKAY"
            expected = sum(field.reset << field.lsb for field in register.fields)
            assert value == expected, f"{register.name} is {value:#x} after reset, not {expected:#x}"
        except BusError:
            assert not register, f"read of {register.name} is answered with an error"
        for data in (0, rng.getrandbits(32) & ~3):
            try:
                await system.port.write(offset, data.to_bytes(4, "little"))
                assert accesses & {Access.CONTROL, Access.PULSE, Access.STICKY}, f"{offset:#x} was written"
            except BusError:
                assert not accesses & {Access.CONTROL, Access.PULSE, Access.STICKY}, f"{offset:#x} was not"
        if register and accesses == {Access.CONTROL}:
            writable[offset] = sum(field.mask for field in register.fields)
    values = {offset: await system.port.read(offset) for offset in writable}
    for _ in range(60):
        offset = rng.choice(list(writable))
        data, strobes = rng.getrandbits(32), rng.randrange(16)
        response = await system.port.write_strobed(offset, data, strobes)
        assert response == 0
        mask = sum(0xFF << 8 * i for i in range(4) if strobes >> i & 1) & writable[offset]
        values[offset] = values[offset] & ~mask | data & mask
        assert await system.port.read(offset) == values[offset]
    # Several accesses at once: none is lost or mixed up.
    reads = [system.port.master.init_read(offset, 4) for offset in values for _ in range(2)]
    writes = [system.port.master.init_write(0x118, bytes([i, 0, 0, 0])) for i in range(6)]
    for event, offset in zip(reads, [offset for offset in values for _ in range(2)], strict=True):
        await event.wait()
        if offset != 0x118:
            assert int.from_bytes(event.data.data, "little") == values[offset]
    for event in writes:
        await event.wait()
    assert await system.read("STALL_LIMIT") == 5
    # START with its byte not strobed does nothing.
    assert await system.port.write_strobed(system.registers["CONTROL"].offset, 1, 0b1110) == 0
    await system.once()
    await system.write("STALL_LIMIT", 1 << 20)
    await system.write("INTERRUPT_PENDING", 7)
    await system.run(place_layers(rng, [small_layer(rng, system.config)]))
    await system.finish()


@cocotb.test()
async def addresses_at_the_end_of_the_space(dut: Any) -> None:
    """A layer that ends where the address space ends is right."""
    system = await System.start(dut)
    rng = seeded("end of the space")
    c = system.config
    names = ("WEIGHTS", "ACTIVATIONS", "PARAMETERS", "OUTPUT", "PSUM")
    for what in (*(f"{name}_ADDRESS" for name in names), "descriptor"):
        for requantize in (False, True):
            layer = cut_layer(rng, c, requantize=requantize)
            await system.run(place_layers(rng, [layer], memory_bytes=MEMORY_BYTES // 2, top=what))
    await system.finish()
