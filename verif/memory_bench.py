"""What benches of memories share: bursts and a host's accesses against a model of what the memory holds.

Through cocotbext-axi's channels, with random pauses; protocol checkers watch both interfaces.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles
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
from sliceforge.verif.axi import CocotbPort, Pauses
from sliceforge.verif.axi_checker import AxiChecker, watch

__all__ = ["DECERR", "OKAY", "Bench"]

OKAY, DECERR = AxiResp.OKAY, AxiResp.DECERR


class Bench:
    """``data`` is what the memory must hold in ``areas``, once `fill` has written all of them.

    Parameters
    ----------
    dut : a `Watched` with s_axi and s_lite. size : bytes of the memory. bus_bits, address_bits : of s_axi.
    pauses : share of cycles in which a channel holds still.
    areas : (first, stop) of the bytes that are looked at; by default all. resets : as of `watch`.
    """

    def __init__(
        self,
        dut: Any,
        *,
        size: int,
        bus_bits: int,
        address_bits: int,
        pauses: float = 0.0,
        areas: Sequence[tuple[int, int]] | None = None,
        resets: Sequence[str] = ("rst",),
    ) -> None:
        self.dut = dut
        self.random = random.Random(f"{cocotb.RANDOM_SEED} {pauses}")
        self.size, self.beat, self.address_bits = size, bus_bits // 8, address_bits
        self.areas = [(0, size)] if areas is None else list(areas)
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
        self.axi = AxiChecker("s_axi", address_bits=self.address_bits, data_bits=bus_bits)
        self.lite = AxiChecker("s_lite", address_bits=32, data_bits=32, lite=True)
        watch(dut, {"s_axi": self.axi, "s_lite": self.lite}, resets=resets)

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

    async def look(self, address: int, beats: int) -> bytes:
        """What a burst finds there, whatever it is."""
        await self.ar.send(AxiARTransaction(**self.fields("r", address, beats)))
        return b"".join(
            [int((await self.r.recv()).rdata).to_bytes(self.beat, "little") for _ in range(beats)]
        )

    def hold(self, held: bool) -> None:
        """Drops all that is under way on both interfaces while their slave is reset by another signal."""
        master = self.host.master
        for channel in (self.ar, self.r, self.aw, self.w, self.b, master.read_if, master.write_if):
            channel.assert_reset(held)
        for channel in (self.ar, self.r, self.aw, self.w, self.b, *self.host.channels.values()):
            channel.clear()

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
        """Writes all areas."""
        await self.write(self.whole_areas(), (1 << self.beat) - 1)

    def whole_areas(self) -> list[tuple[int, int]]:
        """Bursts that cover them."""
        window = min(4096, 256 * self.beat)
        cuts = [
            sorted({first, stop, *range(first - first % window + window, stop, window)})
            for first, stop in self.areas
        ]
        return [(MEMORY_BASE + at, (end - at) // self.beat) for cut in cuts for at, end in pairwise(cut)]

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
        """All areas are right, and both interfaces are quiet."""
        self.pauses.set_shares(0.0)
        await self.read(self.whole_areas())
        await ClockCycles(self.dut.clk, 20)
        self.axi.finish()
        self.lite.finish()
