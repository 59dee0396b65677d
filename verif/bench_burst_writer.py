"""Bench of hw/burst_writer.py: bursts, data and answers of random jobs, errors, and dropping at any time."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.hw.burst_writer import BurstWriter
from sliceforge.verif.read_memory import spans
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, start
from sliceforge.verif.write_jobs import WriteJobs, window_beats
from sliceforge.verif.write_memory import ADDRESS_FIRST, DATA_FIRST, DECERR, FREE, SLVERR, WriteMemory

CASES = [
    {"bus_bits": 64, "address_bits": 32, "most_beats": 8, "in_flight": 16},
    {"bus_bits": 32, "address_bits": 40, "most_beats": 300, "in_flight": 4},
    {"bus_bits": 512, "address_bits": 64, "most_beats": 3, "in_flight": 2},
    {"bus_bits": 128, "address_bits": 33, "most_beats": 1, "in_flight": 16},
]


def component(p: dict[str, Any]) -> BurstWriter:
    return BurstWriter(**p)


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(order=[FREE, ADDRESS_FIRST, DATA_FIRST], address=STALLS, data=STALLS)
async def writes_jobs(dut: Any, order: str, address: float, data: float) -> None:
    """Also to memories that insist on an order, and that answer late."""
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {order} {address} {data}")
    memory = WriteMemory(
        dut, (address, data, rng.choice(STALLS)), order=order, late=rng.choice([1, 20])
    )  # fmt: skip
    late = rng.choice(STALLS)
    bench = WriteJobs(dut, memory, stall=late, beats=late)
    bench.add_random(60)
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def has_as_many_bursts_in_flight_as_it_may(dut: Any) -> None:
    """No more without an answer, and no fewer; `AxiChecker` watches the bound in all tests."""
    await start(dut, component(parameters()))
    memory, most = WriteMemory(dut, (0.0, 0.0, 1.0)), parameters()["in_flight"]
    bench = WriteJobs(dut, memory)
    for i in range(2 * most):
        bench.add(window_beats() * i, 1)
    await ClockCycles(dut.clk, 20 * most)
    assert memory.bursts == bench.bursts[:most] and len(memory.data) == most
    memory.stalls[2] = 0.5
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(count=[1, 300])
async def writes_a_beat_a_cycle(dut: Any, count: int) -> None:
    """Jobs of one beat too, where so many bursts may be in flight as an answer takes cycles."""
    await start(dut, component(parameters()))
    count = min(count, parameters()["most_beats"])
    if count * parameters()["in_flight"] < 16:
        return
    memory = WriteMemory(dut)
    bench = WriteJobs(dut, memory)
    for i in range(1 + 100 // count):
        bench.add(100 + i * count, count)
    while not memory.data:
        await FallingEdge(dut.clk)
    first = memory.last_data
    await bench.finish()
    assert memory.last_data - first == len(bench.payloads) - 1


@cocotb.test(timeout_time=500, timeout_unit="us")
async def has_the_latency_that_it_documents(dut: Any) -> None:
    """2 cycles from job to address; data follow a cycle after the address, or after their beat."""
    await start(dut, component(parameters()))
    memory = WriteMemory(dut)
    bench = WriteJobs(dut, memory)
    seen: dict[str, int] = {}

    async def watch() -> None:
        while True:
            await ReadOnly()
            for name in ("jobs__valid", "beats__valid", "m_axi_awvalid", "m_axi_wvalid"):
                if getattr(dut, name).value == 1:
                    seen.setdefault(name, memory.cycle)
            await FallingEdge(dut.clk)

    task = cocotb.start_soon(watch())
    bench.add(5, 1)
    await bench.finish()
    assert seen["m_axi_awvalid"] - seen["jobs__valid"] == 2
    assert seen["m_axi_wvalid"] - seen["m_axi_awvalid"] == 1
    seen.clear()
    memory = WriteMemory(dut)
    bench = WriteJobs(dut, memory, beats=1.0)
    bench.add(5, 1)
    await ClockCycles(dut.clk, 10)
    bench.beats.stall = 0.0
    await bench.finish()
    assert seen["m_axi_wvalid"] - seen["beats__valid"] == 1
    task.cancel()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(stall=STALLS, order=[FREE, ADDRESS_FIRST, DATA_FIRST])
async def completes_what_it_began_when_dropped(dut: Any, stall: float, order: str) -> None:
    """Beats that were taken are written, the others of the bursts that began go out without strobes.

    Half of the time jobs and beats stay on offer. Jobs are swallowed then, beats are not.
    """
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {stall} {order}")
    for offers in (False, True, False, True):
        memory = WriteMemory(
            dut, rng.sample(STALLS, 3) if stall else (0.0,) * 3, order=order, late=rng.randint(1, 9)
        )
        bench = WriteJobs(dut, memory, stall=rng.choice(STALLS), beats=stall)
        bench.add_random(150)
        await ClockCycles(dut.clk, rng.randrange(40))
        await FallingEdge(dut.clk)
        dut.drop.value = 1
        if not offers:
            bench.jobs.stop()
            bench.beats.stop()
        await FallingEdge(dut.clk)
        await bench.idle()
        if offers:
            while not bench.jobs.idle:
                await FallingEdge(dut.clk)
            await bench.idle()
        assert memory.bursts == bench.bursts[: len(memory.bursts)]
        assert memory.contents() == bench.written(memory.beats)
        assert dut.failed.value == 0
        bench.stop()
        dut.drop.value = 0
        memory = WriteMemory(dut)
        bench = WriteJobs(dut, memory)
        bench.add_random(20)
        await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(resp=[SLVERR, DECERR], which=[0, 3])
async def fails_at_an_error(dut: Any, resp: int, which: int) -> None:
    """``failed`` rises after the answer with the error, not before, and falls when dropped."""
    await start(dut, component(parameters()))
    memory = WriteMemory(dut, (0.2, 0.2, 0.5), errors={which: resp})
    bench = WriteJobs(dut, memory, stall=0.2, beats=0.2)
    for i in range(6):
        bench.add(i * window_beats() + i, 1)
    while not memory.failed:
        assert dut.failed.value == 0
        await FallingEdge(dut.clk)
    await bench.finish()
    assert dut.failed.value == 1
    # An error while it is dropped is no news.
    memory = WriteMemory(dut, (0.0, 0.0, 0.0), late=30, errors={0: resp})
    bench = WriteJobs(dut, memory)
    bench.add(3, 1)
    await ClockCycles(dut.clk, 10)
    await FallingEdge(dut.clk)
    dut.drop.value = 1
    for _ in range(50):
        await FallingEdge(dut.clk)
        assert dut.failed.value == 0
    await bench.finish()
    dut.drop.value = 0
    memory = WriteMemory(dut)
    bench = WriteJobs(dut, memory)
    bench.add_random(20)
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(inside=[0, 1, 3], beyond=[1, 200])
async def fails_past_the_end_of_the_space(dut: Any, inside: int, beyond: int) -> None:
    """A job with ``inside`` beats in the space and ``beyond`` behind: no burst leaves the space."""
    await start(dut, component(parameters()))
    most = parameters()["most_beats"]
    inside = min(inside, most - 1)
    beyond = min(beyond, most - inside)
    for far in (False, True):
        memory = WriteMemory(dut, (0.2, 0.2, 0.2))
        bench = WriteJobs(dut, memory)
        first = bench.space - inside
        if far and not inside:
            first += bench.rng.randrange(bench.space - beyond)
        bench.add(20, 1)
        bench.add(first, inside + beyond, beats=inside)
        bench.add(8, 1, beats=0)  # is not begun
        await ClockCycles(dut.clk, 100)
        assert dut.failed.value == 1 and dut.idle.value == 0
        assert memory.bursts == [(20, 1), *(spans(first, inside, window_beats()) if inside else [])]
        assert memory.contents() == bench.written(1 + inside)
        await FallingEdge(dut.clk)
        bench.jobs.stop()
        dut.drop.value = 1
        await FallingEdge(dut.clk)
        await bench.idle()
        assert dut.failed.value == 0
        bench.stop()
        dut.drop.value = 0
        memory = WriteMemory(dut)
        bench = WriteJobs(dut, memory)
        bench.add_random(20)
        await bench.finish()
