"""The host bridge in its surroundings, for its bench: requests, a slave, and the link's rules for both."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge

from sliceforge.gen.host_link import MOST_WORDS, Operation, Status
from sliceforge.hw.frame_receiver import request_layout
from sliceforge.hw.frame_sender import frame_word_layout
from sliceforge.hw.host_bridge import HostBridge
from sliceforge.verif.axi_checker import AxiChecker, Watched, watch
from sliceforge.verif.link import response, word_bytes
from sliceforge.verif.lite_slave import LiteSlave
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import Sink, Source

__all__ = ["Bench", "component"]

HELLO, READ, WRITE, RESET = Operation
OK, SLAVE_ERROR = Status.OK, Status.SLAVE_ERROR


def component(p: dict[str, Any]) -> Watched:
    return Watched(HostBridge(hello=tuple(p["hello"]), timeout=p["timeout"]), {"m_axi": True})


class Bench:
    def __init__(self, dut: Any, *, stall: float = 0.0, answers: float = 0.0) -> None:
        """``stall``: of the bus; ``answers``: of the stream of answers."""
        self.dut, self.p = dut, parameters()
        self.random = random.Random(f"{cocotb.RANDOM_SEED} {stall} {answers}")
        self.slave = LiteSlave(dut, stall)
        self.requests = Source(dut, "requests", request_layout())
        self.words = Sink(dut, "words", frame_word_layout(), stall=answers)
        self.checker = AxiChecker("m_axi", address_bits=32, data_bits=32, lite=True)
        self._watch = watch(dut, {"m_axi": self.checker}, resets=("rst", "reset_bus"))
        self.executed: tuple[int, int] | None = None  # tag and status
        self.resets = 0
        self._counter = cocotb.start_soon(self._count_resets())

    async def _count_resets(self) -> None:
        """Cycles of ``reset_bus``."""
        while True:
            await FallingEdge(self.dut.clk)
            self.resets += int(self.dut.reset_bus.value)

    def stop(self) -> None:
        for task in (self._watch, self._counter, self.slave, self.requests, self.words):
            getattr(task, "stop", getattr(task, "cancel", None))()

    async def ask(
        self, tag: int, operation: int, address: int = 0, words: Sequence[int] = (), **fields: int
    ) -> bytes:
        """The answer to a request; ``fields``: of it, in place of those that follow from ``words``."""
        dut = self.dut
        for index, word in enumerate(words):
            dut.word_valid.value, dut.word_index.value, dut.word.value = 1, index, word
            await FallingEdge(dut.clk)
        dut.word_valid.value = 0
        dut.word_index.value, dut.word.value = self.random.randrange(MOST_WORDS), self.random.getrandbits(32)
        dut.irq.value = self.random.randrange(2)
        before = len(self.words.received)
        header = {"count": len(words), "bytes": 4 * len(words)}
        header |= {"tag": tag, "operation": operation, "address": address, **fields}
        self.requests.send([header])
        for _ in range(MOST_WORDS * 200 + 2 * self.p["timeout"]):
            await FallingEdge(dut.clk)
            received = self.words.received[before:]
            if received and received[-1]["last"]:
                break
        await FallingEdge(dut.clk)
        assert self.requests.idle, "the request was not taken with its answer"
        assert all(not word["last"] for word in received[:-1])
        return word_bytes(word["word"] for word in received)

    async def expect(
        self,
        status: int,
        tag: int,
        operation: int,
        address: int = 0,
        words: Sequence[int] = (),
        **fields: int,
    ) -> None:
        """A request that is answered with ``status`` and, if that is OK, with what there is to read."""
        count = fields.get("count", len(words))
        expected: list[int] = []
        if status == OK and operation == READ:
            expected = [self.slave.word(address + 4 * i) for i in range(count)]
        elif status == OK and operation == HELLO:
            expected = self.p["hello"]
        found = await self.ask(tag, operation, address, words, **fields)
        assert found == response(tag, operation, status, int(self.dut.irq.value), expected)

    async def execute(
        self, tag: int, operation: int, address: int = 0, words: Sequence[int] = (), **fields: int
    ) -> None:
        """A good request with a new tag; all of it must happen, once."""
        before, resets = len(self.slave.accesses), self.resets
        count = fields.get("count", len(words))
        bad = next((i for i in range(count) if address + 4 * i in self.slave.errors), None)
        made = range(count if bad is None else bad + 1)
        accesses = {
            READ: [("read", address + 4 * i, self.slave.word(address + 4 * i)) for i in made],
            WRITE: [("write", address + 4 * i, word) for i, word in zip(made, words, strict=False)],
        }
        status = OK if bad is None else SLAVE_ERROR
        await self.expect(status, tag, operation, address, words, **fields)
        assert self.slave.accesses[before:] == accesses.get(Operation(operation), [])
        assert (self.resets > resets) == (operation == RESET)
        self.executed = tag, status

    async def execute_random(self, most: int = 12) -> None:
        """With another tag than the one before."""
        rng = self.random
        tag = rng.choice([tag for tag in range(256) if self.executed is None or tag != self.executed[0]])
        operation = rng.choices(list(Operation), [1, 4, 4, 0.5])[0]
        address, count = 4 * rng.randrange(1 << 30), rng.randrange(1, most + 1)
        address = min(address, (1 << 32) - 4 * count)
        if operation == READ:
            written = rng.choice([address, *self.slave.words])
            await self.execute(tag, operation, min(written, (1 << 32) - 4 * count), count=count)
        elif operation == WRITE:
            await self.execute(tag, operation, address, [rng.getrandbits(32) for _ in range(count)])
        else:
            await self.execute(tag, operation, address)

    async def refuse(self, status: int, *args: Any, **fields: int) -> None:
        """A request that is answered with ``status`` and does nothing."""
        before, resets = list(self.slave.accesses), self.resets
        await self.expect(status, *args, **fields)
        assert self.slave.accesses == before and self.resets == resets

    async def finish(self) -> None:
        count = len(self.words.received)
        await ClockCycles(self.dut.clk, 50)
        assert len(self.words.received) == count and self.requests.idle
        self.checker.finish()
