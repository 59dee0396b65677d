"""Drivers for the ports of a block: streams with random stalls, structs by field, clock and reset."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cocotb
from amaranth import Shape
from amaranth.lib import data
from amaranth.lib.enum import EnumType
from amaranth.lib.wiring import In
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge

from sliceforge.hw.hierarchy import ports_of

__all__ = ["STALLS", "Sink", "Source", "quiet", "reset", "start", "to_fields", "to_int"]

STALLS = (0.0, 0.2, 0.8)
"""Shares of cycles in which a side of a stream holds still: never, now and then, mostly."""


def to_int(layout: Any, value: Any) -> int:
    """``value`` (an int, or nested dicts and lists) as the bits of ``layout``; unnamed fields are 0."""
    if isinstance(value, Mapping) and isinstance(layout, data.StructLayout):
        assert set(value) <= {name for name, _ in layout}, f"{set(value)} has unknown fields"
        return sum(
            to_int(field.shape, value[name]) << field.offset for name, field in layout if name in value
        )
    if isinstance(value, Sequence) and isinstance(layout, data.ArrayLayout):
        width = Shape.cast(layout.elem_shape).width
        return sum(to_int(layout.elem_shape, element) << i * width for i, element in enumerate(value))
    return int(value) & ((1 << Shape.cast(layout).width) - 1)


def to_fields(layout: Any, bits: int) -> Any:
    """The inverse of `to_int`; signed shapes give signed numbers."""
    if isinstance(layout, data.StructLayout):
        return {name: to_fields(field.shape, bits >> field.offset) for name, field in layout}
    if isinstance(layout, data.ArrayLayout):
        width = Shape.cast(layout.elem_shape).width
        return [to_fields(layout.elem_shape, bits >> i * width) for i in range(layout.length)]
    shape = Shape.cast(layout)
    bits &= (1 << shape.width) - 1
    value = bits - (1 << shape.width) if shape.signed and bits >> (shape.width - 1) else bits
    return layout(value) if isinstance(layout, EnumType) else value


async def start(dut: Any, block: Any, **inputs: int) -> None:
    """Clock, all inputs of ``block`` at 0 (or as given, by port name), and a reset.

    By the block's own ports: Icarus shows signals inside it, too, and lets one write to outputs.
    """
    Clock(dut.clk, 10, unit="ns").start()
    ports = [name for name, _, flow in ports_of(block) if flow == In]
    assert set(inputs) <= set(ports), f"{set(inputs) - set(ports)} are no inputs"
    for name in ports:
        getattr(dut, name).value = inputs.get(name, 0)
    await reset(dut)


async def reset(dut: Any, cycles: int = 2) -> None:
    """Holds ``rst`` for some cycles; returns just after a falling edge."""
    await FallingEdge(dut.clk)
    dut.rst.value = 1
    for _ in range(cycles):
        await FallingEdge(dut.clk)
    dut.rst.value = 0


class Source:
    """Sends payloads on stream ``name``; holds still in a random share ``stall`` of cycles.

    What is on offer stays on offer until it is taken.
    """

    def __init__(self, dut: Any, name: str, layout: Any, *, stall: float = 0.0) -> None:
        self._dut, self._layout, self.stall = dut, layout, stall
        self._payload = getattr(dut, f"{name}__payload")
        self._valid = getattr(dut, f"{name}__valid")
        self._ready = getattr(dut, f"{name}__ready")
        self.queue: list[int] = []
        self.sent = 0
        self.refused = 0  # cycles in which the other side was not ready
        self._valid.value = 0
        self._random = random.Random(f"{name} {cocotb.RANDOM_SEED}")
        self._task = cocotb.start_soon(self._run())

    def send(self, payloads: Iterable[Any]) -> None:
        """Queues payloads: ints, or dicts and lists by the stream's layout."""
        self.queue += [to_int(self._layout, payload) for payload in payloads]

    def stop(self) -> None:
        """Drops what is queued and withdraws the offer (only allowed around a reset or an error)."""
        self.queue.clear()
        self._task.cancel()
        self._valid.value = 0

    @property
    def idle(self) -> bool:
        return not self.queue

    async def _run(self) -> None:
        clk = self._dut.clk
        await FallingEdge(clk)
        while True:
            if self.queue and self._random.random() >= self.stall:
                self._payload.value = self.queue[0]
                self._valid.value = 1
                while True:
                    await ReadOnly()  # ready may be combinational: look when all has settled
                    taken = bool(self._ready.value)
                    await FallingEdge(clk)
                    if taken:
                        break
                    self.refused += 1
                self.queue.pop(0)
                self.sent += 1
                self._valid.value = 0
            else:
                await FallingEdge(clk)


class Sink:
    """Receives payloads from stream ``name`` into ``received``; not ready in a random share of cycles.

    Checks the stream's rule: an offer stays, unchanged, until it is taken.
    """

    def __init__(self, dut: Any, name: str, layout: Any, *, stall: float = 0.0) -> None:
        self._dut, self._layout, self._name, self.stall = dut, layout, name, stall
        self._payload = getattr(dut, f"{name}__payload")
        self._valid = getattr(dut, f"{name}__valid")
        self._ready = getattr(dut, f"{name}__ready")
        self.received: list[Any] = []
        self.refused = 0  # cycles in which an offer was not taken
        self._ready.value = 0
        self._random = random.Random(f"{name} {cocotb.RANDOM_SEED}")
        self._offer: int | None = None
        self._task = cocotb.start_soon(self._run())

    def stop(self) -> None:
        """Receives nothing more."""
        self._task.cancel()
        self._ready.value = 0

    async def _run(self) -> None:
        dut = self._dut
        await FallingEdge(dut.clk)
        while True:
            ready = self._random.random() >= self.stall
            self._ready.value = int(ready)
            await ReadOnly()
            valid = bool(self._valid.value) and not bool(dut.rst.value)
            if bool(dut.rst.value):
                self._offer = None
            if self._offer is not None:
                assert valid, f"{self._name}: an offer was withdrawn"
            if valid:
                bits = int(self._payload.value.resolve("zeros"))
                assert self._offer in (None, bits), f"{self._name}: an offer was changed"
                self._offer = None if ready else bits
                if ready:
                    self.received.append(to_fields(self._layout, bits))
                else:
                    self.refused += 1
            await FallingEdge(dut.clk)


async def quiet(
    dut: Any, *sinks: Sink, expected: Iterable[int], limit: int = 100_000, after: int = 50
) -> None:
    """Waits until each sink has its payloads, then for ``after`` cycles more, in which nothing may come."""
    wanted = list(expected)
    for _ in range(limit):
        if all(len(sink.received) >= count for sink, count in zip(sinks, wanted, strict=True)):
            break
        await RisingEdge(dut.clk)
    else:
        got = [len(sink.received) for sink in sinks]
        raise AssertionError(f"received {got} of {wanted} payloads in {limit} cycles")
    for _ in range(after):
        await RisingEdge(dut.clk)
    got = [len(sink.received) for sink in sinks]
    assert got == wanted, f"received {got} payloads, expected {wanted}"
