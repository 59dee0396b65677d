"""Bench of hw/sdram_memory.py, with hw/sdram_words.py, hw/sdram_start.py and LiteDRAM's controller in it:
bursts and the host's accesses at once, against a model, in an SDRAM chip that watches its rules.
"""

from __future__ import annotations

from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly
from cocotbext.axi.axi_channels import AxiARTransaction, AxiAWTransaction, AxiWTransaction

from sliceforge.gen.host_link import MEMORY_BASE
from sliceforge.hw.sdram_memory import SdramMemory
from sliceforge.verif.axi_checker import Watched
from sliceforge.verif.memory_bench import OKAY, Bench
from sliceforge.verif.sdram_board import CONTROLLER, SDRAM, SdramBoard, check_chip, sdram_verilog
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, start

CASES = [
    {"bus_bits": 64, "address_bits": 32},
    {"bus_bits": 32, "address_bits": 40},
    {"bus_bits": 512, "address_bits": 64},
    {"bus_bits": 128, "address_bits": 33},
]

SIZE = SDRAM.chip.memory_bytes
ROW = 2 << SDRAM.chip.column_bits  # bytes of a row of a bank
NEXT_ROW = 4 * ROW  # the same bank's next row
AREAS = [
    (0, 2 * ROW), (NEXT_ROW - 512, NEXT_ROW + ROW), (5 * NEXT_ROW + ROW, 5 * NEXT_ROW + 2 * ROW),
    (SIZE // 2 - 1024, SIZE // 2 + 512), (SIZE - ROW, SIZE),
]  # fmt: skip
"""Across rows and banks, at both ends, and in the middle: those behind one another share banks."""
PAUSE = SDRAM.cycles()["power_up"]
FIRST_WORD = 12
"""Cycles from a read's address to its first beat, and as many more as it has words, where the row is open."""

REFRESH_CYCLES = 20
"""That the longest refresh takes, with its row closed before and opened again. In 1,024 words are up to 3."""


def component(p: dict[str, Any]) -> Watched:
    memory = SdramMemory(**SDRAM.parameters(CONTROLLER), **p)
    return Watched(SdramBoard(memory, "pins"), {"s_axi": False, "s_lite": True})


def more_verilog(p: dict[str, Any]) -> str:
    return sdram_verilog()


async def begin(dut: Any, pauses: float = 0.0) -> Bench:
    p = parameters()
    await start(dut, component(p))
    bench = Bench(dut, size=SIZE, pauses=pauses, areas=AREAS, resets=("rst", "restart"), **p)
    await bench.fill()
    return bench


async def finish(bench: Bench) -> None:
    await bench.finish()
    check_chip(bench.dut)


@cocotb.test(timeout_time=20, timeout_unit="ms")
@cocotb.parametrize(pauses=STALLS)
async def serves_both_at_once(dut: Any, pauses: float) -> None:
    """Bursts are written in some areas and read in others; the host does both in the last."""
    bench = await begin(dut, pauses)
    rng = bench.random
    for _ in range(3):
        areas = rng.sample(AREAS, len(AREAS))
        written, read, host = areas[:2], areas[2:4], areas[4]

        async def host_accesses(area: tuple[int, int] = host) -> None:
            for _ in range(40):
                address = MEMORY_BASE + rng.randrange(*area, 4)
                if rng.random() < 0.5:
                    await bench.host_write(address, rng.choice([15, rng.randrange(16)]))
                else:
                    await bench.host_read(address)

        tasks = [
            cocotb.start_soon(bench.write([bench.burst(*rng.choice(written)) for _ in range(12)])),
            cocotb.start_soon(bench.read([bench.burst(*rng.choice(read)) for _ in range(12)])),
            cocotb.start_soon(host_accesses()),
        ]
        for task in tasks:
            await task
    await finish(bench)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def answers_outside_with_an_error(dut: Any) -> None:
    """Before, behind and across the end; and where only the highest bits of an address differ."""
    bench = await begin(dut, 0.2)
    bursts = [
        (0, 2), (MEMORY_BASE - 2 * bench.beat, 2), (MEMORY_BASE >> 1, 1), (bench.end, 4),
        (MEMORY_BASE | 1 << 30, 1), ((1 << bench.address_bits) - bench.beat, 1),
        *((MEMORY_BASE | 1 << bit, 1) for bit in range(32, bench.address_bits)),
    ]  # fmt: skip
    bench.random.shuffle(bursts)
    await bench.read(bursts)
    await bench.write(bursts)
    for address in [0, 0x400, MEMORY_BASE - 4, bench.end, MEMORY_BASE | 1 << 30, 0xFFFF_FFFC]:
        await bench.host_write(address)
        await bench.host_read(address)
    await finish(bench)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def lets_the_host_in_between_bursts(dut: Any) -> None:
    """However many bursts wait, its access waits for a few: those that are begun, and what is queued."""
    bench = await begin(dut)
    writes = cocotb.start_soon(bench.write([(MEMORY_BASE, 8)] * 60))
    reads = cocotb.start_soon(bench.read([(MEMORY_BASE + ROW, 8)] * 60))
    for i in range(10):
        for access in (bench.host_read, bench.host_write):
            before = len(bench.axi.reads), len(bench.axi.writes)
            await access(MEMORY_BASE + SIZE - 4 * (i + 1))
            assert len(bench.axi.reads) <= before[0] + 6 and len(bench.axi.writes) <= before[1] + 6
    assert not writes.done() and not reads.done()
    await writes
    await reads
    await finish(bench)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def does_not_wait_for_a_bursts_data(dut: Any) -> None:
    """A read that was asked for later is answered while a write has no data yet."""
    bench = await begin(dut)
    await bench.aw.send(AxiAWTransaction(**bench.fields("w", MEMORY_BASE, 1)))
    await ClockCycles(dut.clk, 20)
    await bench.read([(MEMORY_BASE + SIZE - ROW, 4)] * 3)
    await bench.host_read(MEMORY_BASE + ROW)
    value = bench.random.getrandbits(8 * bench.beat)
    await bench.w.send(AxiWTransaction(wdata=value, wstrb=(1 << bench.beat) - 1, wlast=1))
    bench.put(MEMORY_BASE, value, (1 << bench.beat) - 1, bench.beat)
    assert (await bench.b.recv()).bresp == OKAY
    await finish(bench)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def takes_the_cycles_that_it_documents(dut: Any) -> None:
    """Nothing is answered in the power-up pause. In an open row a word takes a cycle, in both directions; a
    refresh, which closes it, comes in between."""
    bench = await begin(dut)
    assert bench.axi.cycle > PAUSE
    seen: dict[str, list[int]] = {}

    async def watch_transfers() -> None:
        while True:
            await ReadOnly()
            for name in ("ar", "r", "aw", "w", "b"):
                valid, ready = (getattr(dut, f"s_axi_{name}{end}").value for end in ("valid", "ready"))
                if valid == 1 and ready == 1:
                    seen.setdefault(name, []).append(bench.axi.cycle)
            await FallingEdge(dut.clk)

    task = cocotb.start_soon(watch_transfers())
    words = bench.beat // 2
    beats = 512 // bench.beat
    latencies = set()
    for _ in range(10):  # one or two of them meet a refresh
        seen.clear()
        await bench.read([(MEMORY_BASE, beats)] * 4)
        assert seen["r"][-1] - seen["r"][0] <= words * (4 * beats - 1) + 3 + 3 * REFRESH_CYCLES
        latencies.add(seen["r"][0] - seen["ar"][0])
        seen.clear()
        await bench.write([(MEMORY_BASE, beats)] * 4)
        assert seen["w"][-1] - seen["w"][0] <= words * (4 * beats - 1) + 4 + 3 * REFRESH_CYCLES
        assert len(seen["b"]) == 4
    assert min(latencies) == FIRST_WORD + words, latencies
    task.cancel()
    await finish(bench)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def is_refreshed_while_nothing_happens(dut: Any) -> None:
    """For ten times the longest that the chip allows between refreshes; and so under load, all the time."""
    bench = await begin(dut)
    await ClockCycles(dut.clk, 20 * SDRAM.cycles()["refresh"])
    await finish(bench)


@cocotb.test(timeout_time=50, timeout_unit="ms")
@cocotb.parametrize(signal=["restart", "rst"])
async def keeps_its_content_through_a_reset(dut: Any, signal: str) -> None:
    """Whenever it comes: what was answered is there, to the byte; what was under way is as it was, or as it
    was to be, word for word. Nothing of before is answered, and the host is served again."""
    bench = await begin(dut)
    rng = bench.random
    whole = (1 << bench.beat) - 1
    for _ in range(40 if signal == "restart" else 4):
        await bench.write([bench.burst(*rng.choice(AREAS))], whole)
        at, beats = bench.burst(*rng.choice(AREAS))
        before = bytes(bench.data)
        tasks = []
        if rng.random() < 0.7:  # else right behind the answer
            await bench.ar.send(AxiARTransaction(**bench.fields("r", *bench.burst(*rng.choice(AREAS)))))
            tasks = [
                cocotb.start_soon(bench.write([(at, beats)], whole)),
                cocotb.start_soon(bench.host.master.read(MEMORY_BASE, 4)),
            ]
            await ClockCycles(dut.clk, rng.randrange(1, 80))
        await FallingEdge(dut.clk)
        for task in tasks:
            task.cancel()
        bench.hold(True)
        getattr(dut, signal).value = 1
        await ClockCycles(dut.clk, rng.randrange(1, 5))
        await FallingEdge(dut.clk)
        getattr(dut, signal).value = 0
        bench.hold(False)
        if tasks:
            after, found = bytes(bench.data), await bench.look(at, beats)
            bench.data[:] = before
            for i in range(0, len(found), 2):
                here = slice(at - MEMORY_BASE + i, at - MEMORY_BASE + i + 2)
                assert found[i : i + 2] in (before[here], after[here]), f"{at + i:#x}"
                bench.data[here] = found[i : i + 2]
        await bench.read(rng.sample(bench.whole_areas(), 3))
        await bench.host_read(MEMORY_BASE + rng.randrange(*rng.choice(AREAS), 4))
    await finish(bench)
