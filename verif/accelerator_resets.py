"""Tests of `bench_accelerator`: soft resets and resets at any time; what comes after them is right."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from sliceforge.verif.accelerator_coverage import STATES, sample_reset, sample_soft_reset
from sliceforge.verif.accelerator_layers import cut_layer, linked_layers, small_layer
from sliceforge.verif.accelerator_system import System
from sliceforge.verif.axi import Fault
from sliceforge.verif.placement import Placed, long, place_layers, seeded

SOFT_RESET = 2


def chain(rng: random.Random, system: System) -> list[Placed]:
    """Layers that keep partial sums in memory and feed each other: reads and writes go on side by side."""
    return place_layers(rng, linked_layers(rng, system.config))


def one(rng: random.Random, system: System) -> list[Placed]:
    """A layer that must be right after what was before."""
    return place_layers(rng, [cut_layer(rng, system.config)])


async def moment(system: System, rng: random.Random) -> None:
    """Waits for a random time, often until the bus owes something in particular."""
    await ClockCycles(system.dut.clk, rng.choice([rng.randrange(1, 60), rng.randrange(1, 1500)]))
    wanted = rng.choice(["", "reads are", "writes are", "both are"])
    edge = RisingEdge(system.dut.clk)
    for _ in range(800 if wanted else 0):
        if system.master.owed == wanted:
            break
        await edge


async def soft_reset(system: System) -> tuple[int, str, int]:
    """Writes SOFT_RESET. Returns the sequencer's state when it acts, what the bus owes then, the cycle."""

    async def acts() -> tuple[int, str, int]:
        edge = RisingEdge(system.dut.clk)
        while True:
            await edge
            if system.inside("soft_reset").value == 1:
                return int(system.inside("state_state").value), system.master.owed, system.master.cycle

    watching = cocotb.start_soon(acts())
    await system.write("CONTROL", SOFT_RESET)
    return await watching


async def check_reset(
    system: System, rng: random.Random, placed: list[Placed], before: bytearray, state: int
) -> None:
    """After a soft reset: the machine becomes idle by itself, has written nothing wrong, and works."""
    await system.wait_idle()
    assert await system.read("STATUS", "ERROR_CODE") == 0
    done = await system.read("LAYERS_DONE")
    pending = await system.port.read(system.registers["INTERRUPT_PENDING"].offset)
    # In IDLE all was done before the reset; it takes nothing back. Else it raises nothing.
    assert pending == int(STATES[state] == "IDLE")
    await system.write("INTERRUPT_PENDING", 7)
    await system.once()
    system.compare(before, placed[:done], placed[done : done + 1])
    await system.run(one(rng, system))


@cocotb.test()
async def soft_reset_in_every_state(dut: Any) -> None:
    """With a memory that takes the same time in each run, so that each state of the sequencer can be met."""
    system = await System.start(dut, pauses=0.0, latency=0)
    rng = seeded("states")
    placed = chain(rng, system)
    system.load(placed)
    before = bytearray(system.memory.data)

    # The states over time, from the end of the write that starts; and the time that a write takes to act.
    await system.begin(placed)
    trace: list[int] = []
    while not trace or trace[-1] != 0:
        await RisingEdge(dut.clk)
        trace.append(int(system.inside("state_state").value))
    await system.write("INTERRUPT_PENDING", 7)
    system.compare(before, placed)
    now = system.master.cycle
    _, _, acted = await soft_reset(system)
    delay = acted - now
    assert {STATES[state] for state in trace} | {"IDLE"} == set(STATES.values())

    for state in STATES:
        times = [time for time, seen in enumerate(trace) if seen == state and time > delay]
        for time in rng.sample(times, min(len(times), long(3, 12))):
            system.memory.put(0, before)
            await system.begin(placed)
            await ClockCycles(dut.clk, time + 1 - delay)
            met, owed, _ = await soft_reset(system)
            assert met == state, f"met {STATES[met]}, not {STATES[state]}"
            await check_reset(system, rng, placed, before, state)
            sample_soft_reset(met, owed)
            system.load(placed)
    await system.finish()


@cocotb.test()
@cocotb.parametrize(pauses=[0.1, 0.5])
async def soft_reset_at_any_time(dut: Any, pauses: float) -> None:
    """Also in the middle of bursts, and of the answers that are owed after one."""
    system = await System.start(dut, pauses=pauses)
    rng = seeded("soft", pauses)
    for _ in range(long(12, 150)):
        placed = chain(rng, system)
        system.load(placed)
        before = bytearray(system.memory.data)
        await system.begin(placed)
        await moment(system, rng)
        state, owed, _ = await soft_reset(system)
        if rng.random() < 0.3:
            await soft_reset(system)
        await check_reset(system, rng, placed, before, state)
        sample_soft_reset(state, owed)
    await system.finish()


@cocotb.test()
async def soft_reset_after_an_error(dut: Any) -> None:
    """While the bus still owes answers to a layer that failed: the error stays, and nothing comes twice."""
    system = await System.start(dut, pauses=0.3)
    rng = seeded("after an error")
    error = system.registers["INTERRUPT_PENDING"].field("ERROR").mask
    for _ in range(long(6, 30)):
        placed = one(rng, system)
        system.load(placed)
        start, data = placed[0].pieces()["weights"]
        system.memory.faults = [Fault("read", start, start + len(data))]
        await system.write("INTERRUPT_ENABLE", error)
        await system.begin(placed)
        system.pauses.stopped.add("r")
        await ClockCycles(dut.clk, rng.randrange(20, 200))
        system.pauses.stopped.clear()
        await system.port.interrupt()
        state, owed, _ = await soft_reset(system)
        await system.wait_idle()
        assert await system.read("STATUS", "ERROR_CODE") != 0
        assert await system.port.read(system.registers["INTERRUPT_PENDING"].offset) == error
        await system.write("INTERRUPT_PENDING", 7)
        await system.once()
        system.memory.faults = []
        await system.run(one(rng, system))
        sample_soft_reset(state, owed)
    await system.finish()


@cocotb.test()
async def soft_reset_ends_a_ring_of_layers(dut: Any) -> None:
    """A layer that names itself as the next one runs again and again, until a soft reset."""
    system = await System.start(dut, pauses=0.1)
    rng = seeded("ring")
    placed = place_layers(rng, [small_layer(rng, system.config)])
    placed[0].fields |= {"NEXT": 1, "NEXT_ADDRESS": placed[0].address, "INTERRUPT": 1}
    system.load(placed)
    before = bytearray(system.memory.data)
    await system.begin(placed)
    for _ in range(1000):
        if await system.read("LAYERS_DONE") >= 3:
            break
    else:
        raise AssertionError("the ring does not go round")
    layer = system.registers["INTERRUPT_PENDING"].field("LAYER").mask
    assert await system.port.read(system.registers["INTERRUPT_PENDING"].offset) == layer
    await soft_reset(system)
    await system.wait_idle()
    await system.write("INTERRUPT_PENDING", layer)
    await system.once()
    system.compare(before, placed)
    # Both bits of CONTROL at once: the soft reset is the stronger one.
    await system.write("CONTROL", 3)
    await system.once()
    await system.run(one(rng, system))
    await system.finish()


@cocotb.test()
@cocotb.parametrize(pauses=[0.0, 0.3])
async def reset_at_any_time(dut: Any, pauses: float) -> None:
    """``rst`` in the middle of anything, memory and register port included."""
    system = await System.start(dut, pauses=pauses)
    rng = seeded("reset", pauses)
    for _ in range(long(12, 150)):
        placed = chain(rng, system)
        system.load(placed)
        before = bytearray(system.memory.data)
        await system.begin(placed)
        await moment(system, rng)
        owed = system.master.owed
        await system.reset(rng.randint(1, 4))
        for name, register in system.registers.items():
            expected = sum(field.reset << field.lsb for field in register.fields)
            if name in ("STATUS", "INTERRUPT_PENDING", "QUEUE_ADDRESS", "STALL_LIMIT", "CYCLES"):
                assert await system.port.read(register.offset) == expected, f"{name} after reset"
        await system.once()
        system.compare(before, [], placed)
        await system.run(one(rng, system))
        sample_reset(owed)
    await system.finish()
