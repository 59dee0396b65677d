# amaranth: UnusedElaboratable=no
# (a test makes the block only to list its ports)
"""The accelerator in its surroundings, for its bench: production driver, memory, protocol checkers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import cocotb
import numpy as np
from cocotb.task import bridge
from cocotb.triggers import ClockCycles

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.errors import ErrorCode
from sliceforge.gen.registers import DESCRIPTOR_BYTES, Register, register_map
from sliceforge.gen.verilog import accelerator
from sliceforge.sim.driver import AcceleratorError, Driver
from sliceforge.verif.accelerator_coverage import sample_channels, sample_error
from sliceforge.verif.axi import AxiMemory, CocotbPort, Pauses
from sliceforge.verif.axi_checker import AxiChecker, Watched, watch
from sliceforge.verif.placement import MEMORY_BYTES, Placed, Span, beats_moved
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import reset, start

__all__ = ["System", "component", "config"]

PREFIXES = {"m_axi": False, "s_axi": True}


def config(p: Mapping[str, Any]) -> AcceleratorConfig:
    """The machine of a bench's parameter set."""
    return AcceleratorConfig(**{key: value for key, value in p.items() if key != "coverage"})


def component(p: Mapping[str, Any]) -> Watched:
    """The accelerator, with its buses shown to the checkers."""
    return Watched(accelerator(config(p)), PREFIXES)


class System:
    """``await System.start(dut)``: the accelerator after reset, with all around it.

    ``driver`` is the production driver; `call` runs its methods. ``memory`` is filled with random bytes.
    ``master`` and ``slave`` are the checkers of the two interfaces; `finish` must be called at the end.
    """

    dut: Any
    config: AcceleratorConfig
    memory: AxiMemory
    port: CocotbPort
    driver: Driver
    pauses: Pauses
    master: AxiChecker
    slave: AxiChecker
    registers: dict[str, Register]

    @classmethod
    async def start(
        cls, dut: Any, *, pauses: Mapping[str, float] | float = 0.25, latency: int = 12
    ) -> System:
        """``pauses``: share of cycles in which a channel holds still, for all or by name: as in AXI for the
        memory, "s_ar" and so on for the register port."""
        system = cls()
        await start(dut, component(parameters()))
        system.dut, system.config = dut, config(parameters())
        system.memory = AxiMemory(dut, "m_axi", MEMORY_BYTES)
        system.memory.latency = latency
        system.memory.data[:] = random.Random(f"memory {cocotb.RANDOM_SEED}").randbytes(MEMORY_BYTES)
        system.port = CocotbPort(dut, "s_axi", system.memory)
        channels = {f"s_{name}": channel for name, channel in system.port.channels.items()}
        system.pauses = Pauses(dut.clk, {**system.memory.channels, **channels}, pauses)
        c = system.config
        descriptor = DESCRIPTOR_BYTES * 8 // c.bus_bits
        system.master = AxiChecker(
            "m_axi", address_bits=c.address_bits, data_bits=c.bus_bits, most_reads=16, most_writes=16,
            most_read_beats=2 * c.load_buffer + 8 + max(4, descriptor),  # the readers' buffers
        )  # fmt: skip
        system.slave = AxiChecker("s_axi", address_bits=10, data_bits=32, lite=True)
        watch(dut, {"m_axi": system.master, "s_axi": system.slave})
        system.registers = {register.name: register for register in register_map(c)}
        system.driver = await system.call(Driver, system.port, c)
        return system

    async def call(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Runs a function of the driver, which is synchronous."""
        return await bridge(function)(*args, **named)

    async def read(self, name: str, field_name: str = "VALUE") -> int:
        register = self.registers[name]
        found = register.field(field_name)
        return (await self.port.read(register.offset) & found.mask) >> found.lsb

    async def write(self, name: str, value: int) -> None:
        """The whole word."""
        await self.port.write(self.registers[name].offset, value.to_bytes(4, "little"))

    def load(self, placed: Sequence[Placed]) -> None:
        """Writes what the layers read into memory."""
        for layer in placed:
            for address, data in layer.pieces().values():
                self.memory.put(address, data)

    async def run(self, placed: Sequence[Placed]) -> dict[str, int]:
        """Loads and runs a chain; checks all of memory, and all counters. Returns these."""
        self.load(placed)
        before = bytes(self.memory.data)
        master = self.master
        moved, waited, written = dict(master.taken), master.waited["ar"], master.bytes_written
        bursts = len(master.reads), len(master.writes)
        counters = await self.call(self.driver.execute, placed[0].address, layers=len(placed))
        self.compare(before, placed)
        beats = [sum(each, Counter()) for each in zip(*map(beats_moved, placed), strict=True)]
        bus = self.config.bus_bits // 8
        for seen, expected in zip(
            (master.reads[bursts[0] :], master.writes[bursts[1] :]), beats, strict=True
        ):
            found = Counter(at // bus + beat for at, count in seen for beat in range(count))
            assert found == expected, (
                f"beats of memory: {found - expected} too often, {expected - found} missing"
            )
        self._check_counters(placed, counters)
        assert counters["BYTES_READ"] == beats[0].total() * bus == (master.taken["r"] - moved["r"]) * bus
        assert counters["BYTES_WRITTEN"] == master.bytes_written - written
        assert counters["STORE_BUSY"] == beats[1].total() == master.taken["w"] - moved["w"]
        assert counters["READ_STALLED"] == master.waited["ar"] - waited
        return dict(counters)

    def _check_counters(self, placed: Sequence[Placed], counters: Mapping[str, int]) -> None:
        expected = {
            "OUTER_PRODUCTS": sum(layer.layer.products() for layer in placed),
            "BYTES_WRITTEN": sum(
                size for layer in placed for spans in layer.writes().values() for _, size in spans
            ),
            **{
                f"{operand.upper()}_BUSY": sum(
                    sum(layer.layer.region_beats(operand)) * layer.layer.loads(operand) for layer in placed
                )
                for operand in ("weights", "activations")
            },
        }
        assert {name: counters[name] for name in expected} == expected
        bound = -(-expected["OUTER_PRODUCTS"] // self.config.operators)
        assert bound <= counters["ARRAY_BUSY"] <= counters["ARRAY_CYCLES"] < counters["CYCLES"]
        assert counters["ARRAY_BUSY"] + counters["ARRAY_STALLED"] <= counters["CYCLES"]
        for unit in ("WEIGHTS", "ACTIVATIONS"):
            assert counters[f"{unit}_BUSY"] + counters[f"{unit}_STALLED"] <= counters["CYCLES"]
        # A beat of results can take several of the bus: both in one cycle.
        assert max(counters["STORE_BUSY"], counters["STORE_STALLED"]) < counters["CYCLES"]
        beats = DESCRIPTOR_BYTES * 8 // self.config.bus_bits
        assert beats * len(placed) <= counters["DESCRIPTOR_BUSY"] < counters["CYCLES"]

    def compare(
        self,
        before: bytes | bytearray,
        done: Sequence[Placed],
        partly: Sequence[Placed] = (),
        anything: Sequence[Placed] = (),
    ) -> None:
        """All of memory: ``done`` layers have their results, of ``partly`` done ones any word may be old,
        ``anything`` may be where others have their results; partial sums may be anything in their places;
        nothing else has changed since ``before``."""
        expected = bytearray(before)

        def accept(spans: Iterable[Span]) -> None:
            for address, size in spans:
                at = address % MEMORY_BYTES
                expected[at : at + size] = self.memory.data[at : at + size]

        accept(layer.psum_area() for layer in (*done, *partly, *anything))
        accept(span for layer in anything for span in layer.output_area())
        for layer in done:
            for address, data in layer.output():
                at = address % MEMORY_BYTES
                expected[at : at + len(data)] = data
        for layer in partly:
            for address, data in layer.output():
                for i in range(0, len(data), 4):
                    at = (address + i) % MEMORY_BYTES
                    if self.memory.data[at : at + 4] == data[i : i + 4]:
                        expected[at : at + 4] = data[i : i + 4]
        if expected != self.memory.data:
            found, wanted = np.frombuffer(self.memory.data, np.uint8), np.frombuffer(expected, np.uint8)
            wrong = np.nonzero(found != wanted)[0]
            raise AssertionError(
                f"{len(wrong)} bytes of memory are wrong, the first at {wrong[0]:#x}: "
                f"{found[wrong[0]]:#x}, not {wanted[wrong[0]]:#x}"
            )

    async def fail(
        self, placed: Sequence[Placed], code: ErrorCode, layer: int = 0, *, trusted: bool = True
    ) -> None:
        """Runs a chain whose layer number ``layer`` must fail with ``code``, and checks what it left behind.

        trusted: what the failed layer has written must be right; else it must be in its place.
        """
        self.load(placed)
        before = bytearray(self.memory.data)
        await self.expect(placed, code, layer)
        failed = placed[layer : layer + 1]
        self.compare(before, placed[:layer], failed if trusted else (), () if trusted else failed)

    async def once(self) -> None:
        """Nothing more happens: no interrupt comes again, and the bus is quiet."""
        await ClockCycles(self.dut.clk, 20)
        assert self.dut.irq.value == 0
        assert self.master.idle, "the bus is not quiet though BUSY is 0"
        taken = dict(self.master.taken)
        pending = await self.port.read(self.registers["INTERRUPT_PENDING"].offset)
        assert pending == 0, f"INTERRUPT_PENDING is {pending:#x} again"
        assert await self.read("STATUS", "BUSY") == 0
        assert taken == self.master.taken

    async def begin(self, placed: Sequence[Placed]) -> None:
        """Loads and starts a chain, and does not wait for it."""
        self.load(placed)
        await self.write("QUEUE_ADDRESS", placed[0].address & 0xFFFF_FFFF)
        if "QUEUE_ADDRESS_HIGH" in self.registers:
            await self.write("QUEUE_ADDRESS_HIGH", placed[0].address >> 32)
        await self.write("CONTROL", self.registers["CONTROL"].field("START").mask)

    async def wait_idle(self, limit: int = 20_000) -> None:
        """Until BUSY falls."""
        last = self.master.cycle + limit
        while await self.read("STATUS", "BUSY"):
            assert self.master.cycle < last, f"still busy after {limit} cycles"

    async def reset(self, cycles: int) -> None:
        """Holds ``rst``; memory and register port are in reset, too."""
        await reset(self.dut, cycles)

    def inside(self, signal: str) -> Any:
        """A signal of the sequencer, of those in `bench_accelerator.VISIBLE`."""
        return self.dut[f"block.sequencer.{signal}"]

    async def expect(
        self, placed: Sequence[Placed], code: ErrorCode, layer: int, *, queue: int | None = None
    ) -> None:
        """Runs what memory holds: layer number ``layer`` must fail with ``code``, once."""
        address = placed[0].address if queue is None else queue
        try:
            await self.call(self.driver.execute, address, layers=len(placed))
        except AcceleratorError as error:
            assert (error.code, error.layer) == (code, layer), f"{error}; expected {code.name} in {layer}"
        else:
            raise AssertionError(f"no error, but {code.name} was due")
        await self.once()
        sample_error(code)

    async def finish(self) -> None:
        """At the end of a test: everything is quiet."""
        await self.once()
        self.master.finish()
        self.slave.finish()
        sample_channels(self)
