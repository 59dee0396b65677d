"""Bench of hw/onchip_memory.py: bursts and the host's accesses at once, against a model; what is outside.

Through cocotbext-axi's channels, with random pauses; protocol checkers watch both interfaces.
"""

from __future__ import annotations

from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly
from cocotbext.axi.axi_channels import AxiARTransaction, AxiAWTransaction

from sliceforge.gen.host_link import MEMORY_BASE
from sliceforge.hw.onchip_memory import OnChipMemory
from sliceforge.verif.axi_checker import Watched
from sliceforge.verif.memory_bench import Bench
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, reset, start

CASES = [
    {"memory_bytes": 1024, "bus_bits": 64, "address_bits": 32},
    {"memory_bytes": 3072, "bus_bits": 32, "address_bits": 40},
    {"memory_bytes": 65536, "bus_bits": 512, "address_bits": 64},
    {"memory_bytes": 5120, "bus_bits": 128, "address_bits": 33},
]


def component(p: dict[str, Any]) -> Watched:
    return Watched(OnChipMemory(**p), {"s_axi": False, "s_lite": True})


async def begin(dut: Any, pauses: float = 0.0) -> Bench:
    p = parameters()
    await start(dut, component(p))
    bench = Bench(
        dut, size=p["memory_bytes"], bus_bits=p["bus_bits"], address_bits=p["address_bits"], pauses=pauses
    )
    await bench.fill()
    return bench


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize(pauses=STALLS)
async def serves_both_at_once(dut: Any, pauses: float) -> None:
    """Bursts are written in a third of the memory and read in another; the host does both in the last."""
    bench = await begin(dut, pauses)
    rng = bench.random
    cuts = [i * bench.size // 3 // 64 * 64 for i in range(3)] + [bench.size]
    areas = [(cuts[i], cuts[i + 1]) for i in range(3)]
    for _ in range(3):
        rng.shuffle(areas)
        written, read, host = areas

        async def host_accesses(area: tuple[int, int] = host) -> None:
            for _ in range(60):
                address = MEMORY_BASE + rng.randrange(*area, 4)
                if rng.random() < 0.5:
                    await bench.host_write(address, rng.choice([15, rng.randrange(16)]))
                else:
                    await bench.host_read(address)

        tasks = [
            cocotb.start_soon(bench.write([bench.burst(*written) for _ in range(12)])),
            cocotb.start_soon(bench.read([bench.burst(*read) for _ in range(12)])),
            cocotb.start_soon(host_accesses()),
        ]
        for task in tasks:
            await task
    await bench.finish()


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def answers_outside_with_an_error(dut: Any) -> None:
    """Before, behind and across the end; and where only the highest bits of an address differ."""
    bench = await begin(dut, 0.2)
    page = 4096 - bench.end % 4096  # what a burst may still have behind the end
    bursts = [
        (0, 2), (MEMORY_BASE - 2 * bench.beat, 2), (MEMORY_BASE >> 1, 1), (MEMORY_BASE + bench.size, 1),
        (MEMORY_BASE | 1 << 30, 1), ((1 << bench.address_bits) - bench.beat, 1),
        *((MEMORY_BASE | 1 << bit, 1) for bit in range(32, bench.address_bits)),
    ]  # fmt: skip
    if page < 4096:
        inside = min(4, bench.size // bench.beat)
        bursts += [
            (bench.end - inside * bench.beat, inside + 2), (bench.end, min(256, page // bench.beat))
        ]  # fmt: skip
    bench.random.shuffle(bursts)
    await bench.read(bursts)
    await bench.write(bursts)
    addresses = [0, 0x400, MEMORY_BASE - 4, bench.end, MEMORY_BASE | 1 << 30, MEMORY_BASE >> 1, 0xFFFF_FFFC]
    for address in [*addresses, MEMORY_BASE, bench.end - 4]:
        await bench.host_write(address)
        await bench.host_read(address)
    await bench.finish()


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def lets_the_host_in_between_bursts(dut: Any) -> None:
    """However many bursts wait, its access waits for one or two."""
    bench = await begin(dut)
    half = bench.size // 2
    writes = cocotb.start_soon(bench.write([(MEMORY_BASE, 8)] * 60))
    reads = cocotb.start_soon(bench.read([(MEMORY_BASE + half, 8)] * 60))
    for i in range(10):
        for access, bursts in ((bench.host_read, bench.axi.reads), (bench.host_write, bench.axi.writes)):
            before = len(bursts)
            await access(MEMORY_BASE + bench.size - 4 * (i + 1))
            assert len(bursts) <= before + 2
    assert not writes.done() and not reads.done()
    await writes
    await reads
    await bench.finish()


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def takes_the_cycles_that_it_documents(dut: Any) -> None:
    """2 to a burst's first beat, then a beat a cycle; a cycle between bursts; 2 for the host."""
    bench = await begin(dut)
    seen: dict[str, list[int]] = {}

    async def watch_transfers() -> None:
        names = ("s_axi_ar", "s_axi_r", "s_axi_aw", "s_axi_w", "s_axi_b")
        names += ("s_lite_ar", "s_lite_r", "s_lite_w", "s_lite_b")
        while True:
            await ReadOnly()
            for name in names:
                if getattr(dut, f"{name}valid").value == 1 and getattr(dut, f"{name}ready").value == 1:
                    seen.setdefault(name, []).append(bench.axi.cycle)
            await FallingEdge(dut.clk)

    task = cocotb.start_soon(watch_transfers())
    await bench.read([(MEMORY_BASE, 8), (MEMORY_BASE + 8 * bench.beat, 8)])
    first, second = seen["s_axi_ar"]
    assert second - first == 9
    assert seen["s_axi_r"] == [*range(first + 2, first + 10), *range(second + 2, second + 10)]
    await bench.write([(MEMORY_BASE, 8)])
    (first,) = seen["s_axi_aw"]
    data = seen["s_axi_w"]
    assert data == list(range(first + 1, first + 9)) and seen["s_axi_b"] == [data[-1] + 1]
    await bench.host_read(MEMORY_BASE)
    assert seen["s_lite_r"][0] - seen["s_lite_ar"][0] == 2
    await bench.host_write(MEMORY_BASE)
    assert seen["s_lite_b"][0] - seen["s_lite_w"][0] == 2
    task.cancel()
    await bench.finish()


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def keeps_its_content_through_a_reset(dut: Any) -> None:
    """And forgets what was under way."""
    bench = await begin(dut)
    await bench.ar.send(AxiARTransaction(**bench.fields("r", MEMORY_BASE, 8)))
    await bench.aw.send(AxiAWTransaction(**bench.fields("w", MEMORY_BASE, 8)))
    access = cocotb.start_soon(bench.host.master.read(MEMORY_BASE, 4))
    await ClockCycles(dut.clk, 6)
    access.cancel()
    await FallingEdge(dut.clk)
    await reset(dut, 3)
    for channel in (bench.r, bench.b):
        channel.clear()
    await bench.host_read(MEMORY_BASE)
    await bench.finish()
