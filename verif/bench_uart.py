"""Bench of hw/uart.py: bytes both ways at once on lines that are a little fast or slow, and broken bytes."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly, Timer

from sliceforge.hw.uart import UartReceiver, UartTransmitter
from sliceforge.verif.link import PERIOD, Line
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Source, reset, start

CASES = [{"clocks": 4}, {"clocks": 5}, {"clocks": 25}]


class Pair(wiring.Component):
    """Receiver and transmitter side by side."""

    def __init__(self, clocks: int) -> None:
        self._clocks = clocks
        super().__init__(
            {
                "rx": In(1),
                "octet": Out(8),
                "valid": Out(1),
                "failed": Out(1),
                "octets": In(stream.Signature(8)),
                "tx": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.receiver = receiver = UartReceiver(clocks=self._clocks)
        m.submodules.transmitter = transmitter = UartTransmitter(clocks=self._clocks)
        m.d.comb += [receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx)]
        m.d.comb += [getattr(self, name).eq(getattr(receiver, name)) for name in ("octet", "valid", "failed")]
        wiring.connect(m, wiring.flipped(self.octets), transmitter.octets)
        return m


def component(p: dict[str, Any]) -> Pair:
    return Pair(p["clocks"])


class Bench:
    """``received`` gathers what the receiver says: a byte, or None for a failed one."""

    def __init__(self, dut: Any, *, mismatch: float = 0.0, stall: float = 0.0) -> None:
        self.dut, self.clocks = dut, parameters()["clocks"]
        self.random = random.Random(f"{cocotb.RANDOM_SEED} {mismatch} {stall}")
        self.line = Line(dut.rx, dut.tx, self.clocks, mismatch=mismatch)
        self.source = Source(dut, "octets", 8, stall=stall)
        self.received: list[int | None] = []
        self._task = cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        dut = self.dut
        while True:
            await FallingEdge(dut.clk)
            assert not (dut.valid.value and dut.failed.value)
            if dut.valid.value == 1:
                self.received.append(int(dut.octet.value))
            elif dut.failed.value == 1:
                self.received.append(None)

    def stop(self) -> None:
        self._task.cancel()
        self.source.stop()
        self.line.stop()

    def octets(self, count: int) -> bytes:
        """Random ones, and the corners."""
        corners = [0x00, 0xFF, 0x55, 0xAA, 0x01, 0x80]
        return bytes(corners + [self.random.randrange(256) for _ in range(count - len(corners))])

    async def finish(self, received: list[int | None], sent: bytes = b"") -> None:
        """Everything has come, nothing else, and both sides are quiet."""
        while len(self.line.received) < len(sent):
            await self.line.bits(1)
        await self.line.bits(25)
        assert self.received == received
        assert self.line.received == sent and self.source.idle
        assert self.dut.tx.value == 1 and self.dut.octets__ready.value == 1


@cocotb.test(timeout_time=20, timeout_unit="ms")
@cocotb.parametrize(mismatch=[-0.02, 0.0, 0.02], gaps=[0.0, 0.3])
async def receives(dut: Any, mismatch: float, gaps: float) -> None:
    """Back to back and with pauses, from a sender whose bits are 2 % too short or too long."""
    await start(dut, component(parameters()), rx=1)
    bench = Bench(dut, mismatch=mismatch)
    octets = bench.octets(200)
    await bench.line.send(octets, gaps=gaps)
    await bench.finish(list(octets))


@cocotb.test(timeout_time=20, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def sends_while_it_receives(dut: Any, stall: float) -> None:
    await start(dut, component(parameters()), rx=1)
    bench = Bench(dut, stall=stall)
    there, back = bench.octets(100), bench.octets(100)
    bench.source.send(back)
    await bench.line.send(there)
    await bench.finish(list(there), back)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def sends_without_a_gap(dut: Any) -> None:
    """A byte in 10 bits, from a cycle after it is taken on."""
    await start(dut, component(parameters()), rx=1)
    bench = Bench(dut)
    octets = bench.octets(20)
    bench.source.send(octets)
    while dut.octets__valid.value == 0:
        await FallingEdge(dut.clk)
        await ReadOnly()
    bits = [bit for byte in octets for bit in (0, *(byte >> b & 1 for b in range(8)), 1)]
    for bit in bits:
        for _ in range(bench.clocks):
            await FallingEdge(dut.clk)
            assert dut.tx.value == bit
    await bench.finish([], octets)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def fails_without_a_stop_bit(dut: Any) -> None:
    """One failure for a byte, however long the line stays low; the next byte is received."""
    await start(dut, component(parameters()), rx=1)
    bench = Bench(dut)
    octets = bench.octets(40)
    broken = {0, 3, 4, 11, 39}
    await bench.line.send(octets, gaps=0.2, broken=broken)
    dut.rx.value = 0
    await bench.line.bits(35)
    dut.rx.value = 1
    await bench.line.bits(2)
    await bench.line.send(b"\x5a")
    expected = [None if i in broken else byte for i, byte in enumerate(octets)]
    await bench.finish([*expected, None, 0x5A])


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def ignores_short_pulses(dut: Any) -> None:
    """A low line that is high again by the middle of a bit is no byte."""
    await start(dut, component(parameters()), rx=1)
    bench = Bench(dut)
    for _ in range(20):
        dut.rx.value = 0
        await Timer(bench.random.randrange(1, max(2, (bench.clocks - 1) // 2 * PERIOD)), "ps")
        dut.rx.value = 1
        await bench.line.bits(bench.random.uniform(1, 3))
    await bench.line.send(b"\x12\x34")
    await bench.finish([0x12, 0x34])


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def starts_afresh_at_reset(dut: Any) -> None:
    """In the middle of bytes both ways: the line is high at once, and what was received of one is gone."""
    await start(dut, component(parameters()), rx=1)
    for cut in (3, 17, 36):
        bench = Bench(dut)
        bench.source.send(bytes(10))
        task = cocotb.start_soon(bench.line.send(bytes(10)))
        await ClockCycles(dut.clk, cut * bench.clocks // 2)
        task.cancel()
        bench.stop()
        dut.rx.value = 1
        await reset(dut, 8)
        assert dut.tx.value == 1
        bench = Bench(dut)
        octets = bench.octets(10)
        bench.source.send(octets)
        await bench.line.send(octets)
        await bench.finish(list(octets), octets)
        bench.stop()
