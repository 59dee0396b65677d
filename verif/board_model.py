"""A model of a board for a pseudo-terminal: answers the host link's requests at once, without a bus."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.host_link import (
    DEFAULT_BAUD,
    FLAG_INTERRUPT,
    HEADER_BYTES,
    MEMORY_BASE,
    MOST_WORDS,
    RESPONSE,
    Operation,
    Status,
    hello,
)
from sliceforge.gen.registers import REGISTER_SPACE
from sliceforge.sim.driver import BusError
from sliceforge.sim.link_frames import FrameParser, encode_frame
from sliceforge.sim.pseudo_terminal import PseudoTerminal
from sliceforge.verif.test_driver import MEMORY, FakeAccelerator

__all__ = ["BoardModel", "board"]


class BoardModel:
    """A `pseudo_terminal.Machine` with ``accelerator`` behind it, whose memory lies at MEMORY_BASE.

    ``executed`` : requests, in order, without those that were only answered again. ``words`` : of HELLO.
    ``statuses`` : what to answer requests with, for tests, instead of executing them.
    """

    def __init__(self, accelerator: FakeAccelerator, *, memory_bytes: int = MEMORY) -> None:
        assert accelerator.origin == MEMORY_BASE
        self.accelerator = accelerator
        self.words = list(hello(clock_hz=100_000_000, baud=DEFAULT_BAUD, memory_bytes=memory_bytes))
        self.executed: list[tuple[int, int, int]] = []  # operation, address, words
        self.statuses: list[int] = []
        self.lost = 0  # answers to be lost from now on
        self._parser = FrameParser(HEADER_BYTES + 4 * MOST_WORDS)
        self._last: tuple[int, int] | None = None  # tag and status

    def exchange(self, data: bytes) -> bytes:
        if not data:
            time.sleep(0.001)
        answers = [self._answer(body) for body in self._parser.feed(data) if len(body) >= HEADER_BYTES]
        lost, self.lost = answers[: self.lost], max(0, self.lost - len(answers))
        return b"".join(map(encode_frame, answers[len(lost) :]))

    def _answer(self, body: bytes) -> bytes:
        tag, operation, count, address = struct.unpack_from("<BBHI", body)
        words, status = b"", Status.OK
        if operation in (Operation.WRITE, Operation.RESET) and self._last and self._last[0] == tag:
            status = Status(self._last[1])
        elif self.statuses:
            status = Status(self.statuses.pop(0))
        else:
            self.executed.append((operation, address, count))
            try:
                words = self._execute(Operation(operation), address, count, body[HEADER_BYTES:])
            except BusError:
                status = Status.SLAVE_ERROR
        self._last = tag, status
        flags = FLAG_INTERRUPT * self._interrupt()
        return bytes([tag, operation | RESPONSE, status, flags]) + (words if status is Status.OK else b"")

    def _interrupt(self) -> bool:
        values = self.accelerator.values
        return bool(values["INTERRUPT_PENDING"] & values["INTERRUPT_ENABLE"])

    def _execute(self, operation: Operation, address: int, count: int, data: bytes) -> bytes:
        machine = self.accelerator
        if operation is Operation.HELLO:
            return struct.pack("<6I", *self.words)
        if operation is Operation.RESET:
            return b""
        assert 1 <= count <= MOST_WORDS and address % 4 == 0
        if operation is Operation.READ:
            assert not data
            if address >= REGISTER_SPACE:
                return bytes(machine.read_memory(address, 4 * count))
            values = [machine.read_register(address + 4 * i) for i in range(count)]
            return struct.pack(f"<{count}I", *values)
        assert len(data) == 4 * count
        if address >= REGISTER_SPACE:
            machine.write_memory(address, data)
            return b""
        for i, (value,) in enumerate(struct.iter_unpack("<I", data)):
            machine.write_register(address + 4 * i, value)
        with contextlib.suppress(TimeoutError):
            machine.wait_interrupt(None)  # it works at once
        return b""


@contextmanager
def board(bridge: BoardModel | None = None, **line: Any) -> Iterator[tuple[str, BoardModel]]:
    """The device of a modelled board, and its bridge."""
    bridge = bridge or BoardModel(FakeAccelerator(AcceleratorConfig.preset("tiny"), origin=MEMORY_BASE))
    with PseudoTerminal(bridge, **line) as terminal:
        yield terminal.device, bridge
