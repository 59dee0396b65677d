"""Bench of hw/onchip_memory.py: bursts and the host's accesses at once, against a model; what is outside.

Through cocotbext-axi's channels, with random pauses; protocol checkers watch both interfaces.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly
from cocotbext.axi import AxiBus, AxiResp
from cocotbext.axi.axi_channels import (
    AxiARSource,
    AxiARTransaction,
    AxiAWSource,
    AxiAWTransaction,
    AxiBSink,
    AxiRSink,
    AxiWSource,
    AxiWTransaction,
)

from sliceforge.gen.host_link import MEMORY_BASE
from sliceforge.hw.onchip_memory import OnChipMemory
from sliceforge.verif.axi import CocotbPort, Pauses
from sliceforge.verif.axi_checker import AxiChecker, Watched, watch
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, reset, start

CASES = [
    {"memory_bytes": 1024, "bus_bits": 64, "address_bits": 32},
    {"memory_bytes": 3072, "bus_bits": 32, "address_bits": 40},
    {"memory_bytes": 65536, "bus_bits": 512, "address_bits": 64},
    {"memory_bytes": 5120, "bus_bits": 128, "address_bits": 33},
]

OKAY, DECERR = AxiResp.OKAY, AxiResp.DECERR


def component(p: dict[str, Any]) -> Watched:
    return Watched(OnChipMemory(**p), {"s_axi": False, "s_lite": True})


class Bench:
    """``data`` is what the memory must hold, once `fill` has written all of it."""

    def __init__(self, dut: Any, pauses: float = 0.0) -> None:
        p = parameters()
        self.dut = dut
        self.random = random.Random(f"{cocotb.RANDOM_SEED} {pauses}")
        self.size, self.beat, self.address_bits = p["memory_bytes"], p["bus_bits"] // 8, p["address_bits"]
        self.end = MEMORY_BASE + self.size
        self.data = bytearray(self.size)
        bus = AxiBus.from_prefix(dut, "s_axi")
        self.host = CocotbPort(dut, "s_lite", None)
        self.ar, self.aw = (
            AxiARSource(bus.read.ar, dut.clk, dut.rst),
            AxiAWSource(bus.write.aw, dut.clk, dut.rst),
        )
        self.r, self.b = AxiRSink(bus.read.r, dut.clk, dut.rst), AxiBSink(bus.write.b, dut.clk, dut.rst)
        self.w = AxiWSource(bus.write.w, dut.clk, dut.rst)
        channels = {"ar": self.ar, "r": self.r, "aw": self.aw, "w": self.w, "b": self.b}
        channels |= {f"host {name}": channel for name, channel in self.host.channels.items()}
        self.pauses = Pauses(dut.clk, channels, pauses)
        self.axi = AxiChecker("s_axi", address_bits=self.address_bits, data_bits=p["bus_bits"])
        self.lite = AxiChecker("s_lite", address_bits=32, data_bits=32, lite=True)
        watch(dut, {"s_axi": self.axi, "s_lite": self.lite})

    def fields(self, channel: str, address: int, beats: int) -> dict[str, int]:
        values = {"addr": address, "len": beats - 1, "size": self.beat.bit_length() - 1, "burst": 1}
        values |= {"id": 0, "lock": 0, "cache": 3, "prot": 0}
        return {f"a{channel}{name}": value for name, value in values.items()}

    def inside(self, address: int) -> bool:
        return MEMORY_BASE <= address < self.end

    def burst(self, first: int, stop: int) -> tuple[int, int]:
        """Address and beats of a random burst within bytes ``first`` .. ``stop - 1`` of the memory."""
        at = self.random.randrange(first, stop, self.beat)
        page = 4096 - (MEMORY_BASE + at) % 4096
        most = min(256, (min(stop - at, page)) // self.beat)
        return MEMORY_BASE + at, self.random.choice([1, most, self.random.randint(1, most)])

    async def read(self, bursts: Sequence[tuple[int, int]]) -> None:
        """Asks for all of them, and checks the answers, beat by beat."""
        for address, beats in bursts:
            await self.ar.send(AxiARTransaction(**self.fields("r", address, beats)))
        for address, beats in bursts:
            for i in range(beats):
                answer, at = await self.r.recv(), address + i * self.beat
                assert answer.rresp == (OKAY if self.inside(at) else DECERR), f"{at:#x}: {answer.rresp!r}"
                assert int(answer.rlast) == (i == beats - 1)
                if self.inside(at):
                    self.check(at, int(answer.rdata), self.beat)

    def check(self, address: int, found: int, size: int) -> None:
        at = address - MEMORY_BASE
        expected = int.from_bytes(self.data[at : at + size], "little")
        assert found == expected, f"{address:#x} holds {found:#x}, not {expected:#x}"

    def put(self, address: int, value: int, strobes: int, size: int) -> None:
        for i in range(size):
            if strobes >> i & 1 and self.inside(address):
                self.data[address - MEMORY_BASE + i] = value >> 8 * i & 0xFF

    async def write(self, bursts: Sequence[tuple[int, int]], strobes: int | None = None) -> None:
        """Random data with random strobes (or these), and the answers."""
        expected = []
        for address, beats in bursts:
            await self.aw.send(AxiAWTransaction(**self.fields("w", address, beats)))
            for i in range(beats):
                at, value = address + i * self.beat, self.random.getrandbits(8 * self.beat)
                words = self.random.getrandbits(self.beat // 4)
                mask = sum(15 << 4 * word for word in range(self.beat // 4) if words >> word & 1)
                mask = mask if strobes is None else strobes
                await self.w.send(AxiWTransaction(wdata=value, wstrb=mask, wlast=int(i == beats - 1)))
                self.put(at, value, mask, self.beat)
            whole = self.inside(address) and self.inside(address + (beats - 1) * self.beat)
            expected.append(OKAY if whole else DECERR)
        for response in expected:
            assert (await self.b.recv()).bresp == response

    async def fill(self) -> None:
        """Writes all of the memory."""
        spans = range(0, self.size, min(4096, 256 * self.beat))
        await self.write(
            [(MEMORY_BASE + at, (min(spans.step, self.size - at)) // self.beat) for at in spans],
            (1 << self.beat) - 1,
        )

    async def host_read(self, address: int) -> None:
        answer = await self.host.master.read(address, 4)
        assert answer.resp == (OKAY if self.inside(address) else DECERR), f"{address:#x}: {answer.resp!r}"
        if self.inside(address):
            self.check(address, int.from_bytes(answer.data, "little"), 4)

    async def host_write(self, address: int, strobes: int = 15) -> None:
        value = self.random.getrandbits(32)
        response = await self.host.write_strobed(address, value, strobes)
        assert response == (OKAY if self.inside(address) else DECERR), f"{address:#x}: {response!r}"
        self.put(address, value, strobes, 4)

    async def finish(self) -> None:
        """All of the memory is right, and both interfaces are quiet."""
        self.pauses.set_shares(0.0)
        spans = range(0, self.size, min(4096, 256 * self.beat))
        await self.read([(MEMORY_BASE + at, min(spans.step, self.size - at) // self.beat) for at in spans])
        await ClockCycles(self.dut.clk, 20)
        self.axi.finish()
        self.lite.finish()


async def begin(dut: Any, pauses: float = 0.0) -> Bench:
    await start(dut, component(parameters()))
    bench = Bench(dut, pauses)
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
