"""What takes a block's bursts of writes: the bus, which checks what the block tells about itself."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly

from sliceforge.verif.axi_checker import CHANNELS, AxiChecker
from sliceforge.verif.simulation import parameters

__all__ = ["ADDRESS_FIRST", "DATA_FIRST", "DECERR", "FREE", "SLVERR", "WriteMemory"]

OKAY, SLVERR, DECERR = 0, 2, 3
# What a memory may insist on: an address before its data, or all data of a burst before its address.
FREE, ADDRESS_FIRST, DATA_FIRST = "free", "address_first", "data_first"


class WriteMemory:
    """The slave of the bus; it looks at all ports in every cycle.

    stalls : shares of cycles in which it takes no address, takes no data, gives no answer. ``late``: cycles
        from a burst's last transfer to its answer. ``errors`` : answers by number of the burst.

    ``psum_ends`` is for the bench to fill. ``bursts`` : (first, count) of beats, as addresses were taken.
    ``data`` : (data, strobes) of beats taken.
    """

    def __init__(
        self,
        dut: Any,
        stalls: Sequence[float] = (0.0, 0.0, 0.0),
        *,
        order: str = FREE,
        late: int = 1,
        errors: Mapping[int, int] | None = None,
    ) -> None:
        p = parameters()
        self._dut, self.stalls, self._order, self._late = dut, list(stalls), order, late
        self._bytes, self._in_flight = p["bus_bits"] // 8, p["in_flight"]
        self._errors = errors or {}
        self._random = random.Random(f"memory {cocotb.RANDOM_SEED} {stalls}")
        self.checker = AxiChecker(
            "m_axi", address_bits=p["address_bits"], data_bits=p["bus_bits"], most_writes=p["in_flight"]
        )
        self._layout = {
            "aw": (("addr", p["address_bits"]), ("len", 8), ("size", 3), ("burst", 2), ("lock", 1),
                   ("cache", 4), ("prot", 3)),
            "w": (("data", p["bus_bits"]), ("strb", self._bytes), ("last", 1)),
            "b": (("resp", 2),),
        }  # fmt: skip
        self._payloads = {channel: partial(self._payload, channel) for channel in self._layout}
        self.bursts: list[tuple[int, int]] = []
        self.data: list[tuple[int, int]] = []
        self.ended = self.answered = 0  # bursts
        self.offered = 0  # beats of the bursts whose address is, or was, on offer
        self.cycle = 0
        self.last_data = 0  # cycle in which the last data were taken
        self.failed = False  # an error was answered; a drop ends that
        self.jobs = self.beats = 0  # taken from the streams
        self.promised = 0  # beats of the jobs that were taken and not dropped, and of earlier ones that began
        self.job_sizes: list[int] = []
        self.psum_ends: list[bool] = []  # by burst: it ends a job of partial sums
        self._psum_written = False  # in this cycle
        self._task = cocotb.start_soon(self._run())

    def stop(self) -> None:
        self._task.cancel()
        for name in ("awready", "wready", "bvalid"):
            getattr(self._dut, f"m_axi_{name}").value = 0
        self.checker.finish()

    def _allowed(self) -> tuple[bool, bool]:
        """Whether an address and whether data may be taken."""
        if self._order == ADDRESS_FIRST:
            return True, len(self.data) < sum(count for _, count in self.bursts)
        return self._order != DATA_FIRST or len(self.bursts) < self.ended, True

    def _payload(self, channel: str) -> int | str:
        bits, offset = 0, 0
        for name, width in self._layout[channel]:
            value = getattr(self._dut, f"m_axi_{channel}{name}").value
            if not value.is_resolvable:
                return str(value)
            bits |= int(value) << offset
            offset += width
        return bits

    async def _run(self) -> None:
        dut, rng = self._dut, self._random
        due: deque[int] = deque()  # cycles of the answers
        answering = False
        await FallingEdge(dut.clk)
        while True:
            while self.answered + len(due) < min(self.ended, len(self.bursts)):
                due.append(self.cycle + self._late - 1)
            allowed = self._allowed()
            awready = allowed[0] and rng.random() >= self.stalls[0]
            wready = allowed[1] and rng.random() >= self.stalls[1]
            answering = answering or (bool(due) and due[0] <= self.cycle and rng.random() >= self.stalls[2])
            dut.m_axi_awready.value, dut.m_axi_wready.value = int(awready), int(wready)
            dut.m_axi_bvalid.value = int(answering)
            resp = self._errors.get(self.answered, OKAY)
            dut.m_axi_bresp.value = resp if answering else SLVERR
            await ReadOnly()
            awvalid, wvalid = bool(dut.m_axi_awvalid.value), bool(dut.m_axi_wvalid.value)
            bready = bool(dut.m_axi_bready.value)
            bits = {"b": answering + 2 * bready, "aw": awvalid + 2 * awready, "w": wvalid + 2 * wready}
            control = sum(bits.get(channel, 0) << 2 * i for i, channel in enumerate(CHANNELS))
            self.checker.step(False, control, self._payloads)
            takes, ends, answers = awvalid and awready, wvalid and wready, answering and bready
            self._watch(awvalid, takes, ends, answers)
            if takes:
                count = int(dut.m_axi_awlen.value) + 1
                self.bursts.append((int(dut.m_axi_awaddr.value) // self._bytes, count))
            if ends:
                self.data.append((int(dut.m_axi_wdata.value), int(dut.m_axi_wstrb.value)))
                self.ended += int(dut.m_axi_wlast.value)
                self.last_data = self.cycle
            if answers:
                due.popleft()
                answering = False
                self.answered += 1
            drop = bool(dut.drop.value)
            self.failed = (self.failed or (answers and resp != OKAY)) and not drop
            self._count_streams(drop)
            await FallingEdge(dut.clk)
            self.cycle += 1

    def _watch(self, awvalid: bool, takes: bool, ends: bool, answers: bool) -> None:
        """What the block tells about itself is what the bus saw."""
        dut = self._dut
        began = sum(count for _, count in self.bursts)
        self.offered = began + (int(dut.m_axi_awlen.value) + 1 if awvalid else 0)
        owed = awvalid or len(self.bursts) > self.answered
        assert dut.owed.value == owed
        assert dut.idle.value == (not owed and self.offered == self.promised)
        assert dut.moves.value == (takes or ends or answers)
        assert dut.beat.value == ends
        if ends:
            assert int(dut.words.value) * 4 == int(dut.m_axi_wstrb.value).bit_count()
        if self.failed:
            assert dut.failed.value == 1
        assert dut.psum_written.value == self._psum_written
        self._psum_written = answers and self.psum_ends[self.answered]

    def _count_streams(self, drop: bool) -> None:
        dut = self._dut
        if dut.beats__valid.value == 1 and dut.beats__ready.value == 1:
            assert not drop
            self.beats += 1
        if dut.jobs__valid.value == 1 and dut.jobs__ready.value == 1:
            self.promised += self.job_sizes[self.jobs]
            self.jobs += 1
        if drop:
            self.promised = self.offered

    def contents(self) -> dict[int, tuple[int, int]]:
        """Data and strobes of the beats that were written, by number; strobes of 0 write nothing."""
        beats = [first + i for first, count in self.bursts for i in range(count)]
        assert len(beats) == len(self.data)
        return {beat: data for beat, data in zip(beats, self.data, strict=True) if data[1]}
