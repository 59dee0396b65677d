"""AXI4-Lite slave for the host bridge's bench: stalls, errors, silence on any channel."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge

__all__ = ["LiteSlave"]


class LiteSlave:
    """Words at the master ``m_axi`` of ``dut``; it starts anew at ``reset_bus``.

    Members to set: ``errors``, responses by address; ``silent``, a channel on which nothing moves any more;
    ``delay``, cycles before each answer. ``words`` by address; ``accesses`` holds (kind, address, data) of
    all that were answered, with errors too.
    """

    def __init__(self, dut: Any, stall: float) -> None:
        self._dut, self._stall = dut, stall
        self.words: dict[int, int] = {}
        self.accesses: list[tuple[str, int, int]] = []
        self.errors: dict[int, int] = {}
        self.silent: str | None = None
        self.delay = 0
        self._random = random.Random(f"slave {cocotb.RANDOM_SEED} {stall}")
        self._tasks: list[Any] = []
        self._restart()
        self._watch = cocotb.start_soon(self._follow_reset())

    def word(self, address: int) -> int:
        """What was written there, or something of its own."""
        return self.words.get(address, (address * 0x9E37_79B1 + 0x7D7E) & 0xFFFF_FFFF)

    def stop(self) -> None:
        self._watch.cancel()
        for task in self._tasks:
            task.cancel()

    def _restart(self) -> None:
        for task in self._tasks:
            task.cancel()
        for name in ("arready", "rvalid", "awready", "wready", "bvalid"):
            getattr(self._dut, f"m_axi_{name}").value = 0
        self._tasks = [cocotb.start_soon(self._reads()), cocotb.start_soon(self._writes())]

    async def _follow_reset(self) -> None:
        while True:
            await RisingEdge(self._dut.reset_bus)
            await FallingEdge(self._dut.clk)
            self._restart()

    def _holds_still(self, channel: str) -> bool:
        return channel == self.silent or self._random.random() < self._stall

    async def _take(self, channel: str, name: str) -> int:
        """The signal ``name`` of the channel's next transfer, from a falling edge to the one behind it."""
        dut = self._dut
        ready, valid = getattr(dut, f"m_axi_{channel}ready"), getattr(dut, f"m_axi_{channel}valid")
        while True:
            takes = not self._holds_still(channel)
            ready.value = int(takes)
            await ReadOnly()
            moves = takes and valid.value == 1
            value = int(getattr(dut, f"m_axi_{channel}{name}").value) if moves else 0
            await FallingEdge(dut.clk)
            if moves:
                ready.value = 0
                return value

    async def _give(self, channel: str, **fields: int) -> None:
        dut = self._dut
        ready, valid = getattr(dut, f"m_axi_{channel}ready"), getattr(dut, f"m_axi_{channel}valid")
        for _ in range(self.delay):
            await FallingEdge(dut.clk)
        while self._holds_still(channel):
            await FallingEdge(dut.clk)
        for name, value in fields.items():
            getattr(dut, f"m_axi_{channel}{name}").value = value
        valid.value = 1
        while True:
            await ReadOnly()
            moves = ready.value == 1
            await FallingEdge(dut.clk)
            if moves:
                valid.value = 0
                return

    async def _reads(self) -> None:
        await FallingEdge(self._dut.clk)
        while True:
            address = await self._take("ar", "addr")
            word = self.word(address)
            await self._give("r", data=word, resp=self.errors.get(address, 0))
            self.accesses.append(("read", address, word))

    async def _writes(self) -> None:
        """Address and data in any order."""
        await FallingEdge(self._dut.clk)
        names = {"aw": "addr", "w": "data"}
        while True:
            found = {
                channel: await self._take(channel, names[channel])
                for channel in self._random.sample(("aw", "w"), 2)
            }
            if found["aw"] not in self.errors:
                self.words[found["aw"]] = found["w"]
            await self._give("b", resp=self.errors.get(found["aw"], 0))
            self.accesses.append(("write", found["aw"], found["w"]))
