"""Tests of `bench_accelerator`: whatever fails is reported once, with its code, and leaves the machine ready.

After each error the layers before the failed one are done, memory outside the failed layer's results is
untouched, and the next start is right.
"""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiResp

from sliceforge.gen.errors import ErrorCode
from sliceforge.gen.registers import PSUM_ALIGNMENT
from sliceforge.sim.driver import BusError
from sliceforge.verif.accelerator_coverage import sample_error, sample_fault, sample_stall
from sliceforge.verif.accelerator_layers import cut_layer, linked_layers, small_layer
from sliceforge.verif.accelerator_system import System
from sliceforge.verif.axi import Fault
from sliceforge.verif.placement import MEMORY_BYTES, Placed, long, place_layers, seeded

ACCESSES = {
    "descriptor": ErrorCode.DESCRIPTOR_READ,
    "weights": ErrorCode.WEIGHTS_READ,
    "activations": ErrorCode.ACTIVATIONS_READ,
    "parameters": ErrorCode.PARAMETERS_READ,
    "psums": ErrorCode.PSUMS_READ,
    "output": ErrorCode.OUTPUT_WRITE,
    "stored psums": ErrorCode.OUTPUT_WRITE,
}


def chain(rng: random.Random, system: System, count: int = 3, **settings: Any) -> list[Placed]:
    """Small layers with more than one tile each way."""
    return place_layers(rng, [small_layer(rng, system.config, **settings) for _ in range(count)])


def layers_with(rng: random.Random, system: System, access: str) -> tuple[list[Placed], int]:
    """A queue, and the number of a layer in it that has such an access."""
    c = system.config
    layers = [small_layer(rng, c, requantize=rng.random() < 0.5) for _ in range(2)]
    failing = rng.randrange(3)
    if "psums" in access or rng.random() < 0.3:
        middle = [cut_layer(rng, c, requantize=rng.random() < 0.5)]
    elif access == "activations" and rng.random() < 0.5:
        middle, failing = linked_layers(rng, c), min(failing, 1)
        return place_layers(rng, [*layers[:failing], *middle]), failing + 1
    else:
        middle = [small_layer(rng, c, requantize=rng.random() < 0.5)]
    return place_layers(rng, [*layers[:failing], *middle, *layers[failing:]]), failing


async def still_works(system: System, rng: random.Random) -> None:
    """The next start is right."""
    await system.run(chain(rng, system, 1))


def fault_at(rng: random.Random, placed: Placed, access: str, when: str, response: AxiResp) -> Fault:
    """An error response to the ``when``, "first", "later" or "last", beat of an access."""
    bus = placed.layer.config.bus_bits // 8
    kind, what = ("read", access) if access in placed.reads() else ("write", access.removeprefix("stored "))
    spans = (placed.reads() if kind == "read" else placed.writes())[what]
    if what == "output":
        begin, size = placed.output_area()[-1] if placed.layer.image.output is not None else (0, 1 << 64)
        spans = [(at, length) for at, length in spans if begin <= at < begin + size]
    count = sum(-(-(at + size) // bus) - at // bus for at, size in spans)
    after = {"first": 0, "later": rng.randrange(count), "last": count - 1}[when]
    start, stop = min(at for at, _ in spans), max(at + size for at, size in spans)
    return Fault(kind, start, stop, response, after)


@cocotb.test()
@cocotb.parametrize(access=list(ACCESSES))
async def error_responses(dut: Any, access: str) -> None:
    """SLVERR and DECERR on the first, a later and the last beat, in any layer of a queue."""
    system = await System.start(dut)
    rng = seeded("faults", access)
    for when in ("first", "later", "last") * long(1, 5):
        for response in (AxiResp.SLVERR, AxiResp.DECERR):
            system.pauses.set_shares(rng.choice([0.0, 0.25]))
            placed, failing = layers_with(rng, system, access)
            fault = fault_at(rng, placed[failing], access, when, response)
            system.memory.faults = [fault]
            trusted = access in ("descriptor", "output", "stored psums")
            await system.fail(placed, ACCESSES[access], failing, trusted=trusted)
            assert fault.hits
            sample_fault(access, when, response.name)
            system.memory.faults = []
            await still_works(system, rng)
    await system.finish()


@cocotb.test()
async def several_errors_at_once(dut: Any) -> None:
    """Everything that is read or written fails: one error is reported, one of those; nothing more follows,
    not even from a memory that stops answering then."""
    system = await System.start(dut)
    rng = seeded("several")
    await system.write("STALL_LIMIT", 100)
    for _ in range(long(8, 40)):
        placed = place_layers(rng, [cut_layer(rng, system.config) for _ in range(2)])
        system.load(placed)
        failing = rng.randrange(2)
        before = bytearray(system.memory.data)
        accesses = rng.sample(list(ACCESSES), rng.randint(2, len(ACCESSES)))
        system.memory.faults = [
            fault_at(rng, placed[failing], access, rng.choice(["first", "later"]), AxiResp.SLVERR)
            for access in accesses
        ]
        await system.write("INTERRUPT_ENABLE", 3)
        await system.begin(placed)
        await system.port.interrupt()
        system.pauses.stopped.add(rng.choice(["ar", "r", "aw", "w", "b"]))
        code = await system.read("STATUS", "ERROR_CODE")
        assert code in [ACCESSES[access].value for access in accesses]
        await system.write("INTERRUPT_PENDING", 7)
        await ClockCycles(dut.clk, 400)
        assert dut.irq.value == 0 and await system.read("STATUS", "ERROR_CODE") == code
        system.pauses.stopped.clear()
        await system.wait_idle()
        await system.once()
        assert await system.read("STATUS", "ERROR_CODE") == code
        assert await system.read("LAYERS_DONE") == failing
        system.compare(before, placed[:failing], anything=placed[failing : failing + 1])
        system.memory.faults = []
        await still_works(system, rng)
    await system.finish()


@cocotb.test()
async def stops_where_the_address_space_ends(dut: Any) -> None:
    """What passes the end is an error; no access wraps to the start."""
    system = await System.start(dut)
    rng = seeded("past the space")
    end = 1 << system.config.address_bits
    for access in ("weights", "activations", "parameters", "output", "images", "stored psums"):
        for _ in range(long(2, 8)):
            layer = small_layer(rng, system.config, requantize=access == "images")
            if access == "stored psums":
                layer = cut_layer(rng, system.config, group=0)
            name = {"images": "OUTPUT", "stored psums": "PSUM"}.get(access, access.upper()) + "_ADDRESS"
            placed = place_layers(rng, [layer], memory_bytes=MEMORY_BYTES // 2, top=name)
            alignment = {"parameters": 4, "output": 4, "stored psums": PSUM_ALIGNMENT}.get(
                access, system.config.load_beat_bytes
            )
            fields, at = placed[0].fields, placed[0].fields[name]
            most = max(1, (end - at) // alignment - 1)
            if access == "images":  # of the last region
                beats = 1 + sum(map(len, layer.output_regions[-1]))
                at = end - (len(layer.output_regions) - 1) * fields["OUTPUT_STRIDE"] - beats * alignment
                most = beats - 1
            fields[name] = at + alignment * rng.randint(1, most)
            if access in ("weights", "activations", "parameters"):
                placed[0].clip(access, end - fields[name])
            else:
                placed[0].space = end
            reads, writes = len(system.master.reads), len(system.master.writes)
            system.load(placed)
            before = bytearray(system.memory.data)
            await system.expect(placed, ACCESSES.get(access, ErrorCode.OUTPUT_WRITE), 0)
            wrapped = [at for at, _ in system.master.reads[reads:] if at == 0]
            wrapped += [at for at, _ in system.master.writes[writes:] if at == 0]
            assert not wrapped, "an access wrapped to address 0"
            system.compare(before, [], anything=placed)
    await still_works(system, rng)
    await system.finish()


# A memory that stops.


@cocotb.test()
@cocotb.parametrize(channel=["ar", "r", "aw", "w", "b"])
async def reports_a_memory_that_stopped(dut: Any, channel: str) -> None:
    """STALLED when nothing has moved for STALL_LIMIT cycles; ready when the memory answers again."""
    system = await System.start(dut, pauses=0.1, latency=4)
    rng = seeded("stall", channel)
    for limit in (64, 300):
        await system.write("STALL_LIMIT", limit)
        for _ in range(long(3, 10)):
            placed = place_layers(rng, linked_layers(rng, system.config))
            system.load(placed)
            before = bytearray(system.memory.data)
            await system.write("INTERRUPT_ENABLE", 3)
            await system.begin(placed)
            await ClockCycles(dut.clk, rng.choice([0, 5, 20, 60, 100, rng.randrange(400)]))
            done = await system.read("LAYERS_DONE")
            system.pauses.stopped.add(channel)
            await system.port.interrupt()
            if await system.read("STATUS", "ERROR_CODE") == 0:  # it was done before it noticed
                system.pauses.stopped.clear()
                await system.write("INTERRUPT_PENDING", 7)
                system.compare(before, placed)
                continue
            still = system.master.still
            assert limit <= still <= limit + 30, f"reported after {still} cycles"
            assert await system.read("STATUS", "ERROR_CODE") == ErrorCode.STALLED.value
            assert await system.read("INTERRUPT_PENDING", "ERROR") == 1
            assert await system.read("STATUS", "BUSY") == 1
            layer = await system.read("LAYERS_DONE")
            assert layer >= done
            await system.write("INTERRUPT_PENDING", 7)
            try:
                await system.write("CONTROL", 1)
                raise AssertionError("START was accepted while the bus owes answers")
            except BusError:
                pass
            await ClockCycles(dut.clk, 3 * limit)
            assert dut.irq.value == 0 and await system.read("STATUS", "BUSY") == 1
            system.pauses.stopped.clear()
            await system.wait_idle()
            await system.once()
            system.compare(before, placed[:layer], placed[layer : layer + 1])
            sample_error(ErrorCode.STALLED)
            sample_stall(channel)
            await still_works(system, rng)
    # 0: it waits for ever.
    await system.write("STALL_LIMIT", 0)
    placed = chain(rng, system, 1)
    system.load(placed)
    before = bytearray(system.memory.data)
    await system.write("INTERRUPT_ENABLE", 3)
    system.pauses.stopped.add(channel)
    await system.begin(placed)
    await ClockCycles(dut.clk, 3000)
    assert dut.irq.value == 0
    system.pauses.stopped.clear()
    await system.port.interrupt()
    await system.write("INTERRUPT_PENDING", 7)
    system.compare(before, placed)
    await system.finish()
