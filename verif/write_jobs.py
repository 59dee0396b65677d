"""Jobs and beats for the burst writer, and what must come of them in memory."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.hw.burst_writer import BurstWriter
from sliceforge.verif.read_memory import spans
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import Source
from sliceforge.verif.write_memory import WriteMemory

__all__ = ["WriteJobs", "window_beats"]


def window_beats() -> int:
    """Beats of the aligned window that no burst leaves."""
    return min(256, 4096 * 8 // int(parameters()["bus_bits"]))


class WriteJobs:
    """No two jobs write the same beat, so that the memory tells them apart."""

    def __init__(self, dut: Any, memory: WriteMemory, *, stall: float = 0.0, beats: float = 0.0) -> None:
        p = parameters()
        block = BurstWriter(**p)
        self.dut, self.memory = dut, memory
        self.most, self.bytes = p["most_beats"], p["bus_bits"] // 8
        self.space = (1 << p["address_bits"]) // self.bytes
        self.rng = random.Random(f"{cocotb.RANDOM_SEED} {stall} {beats} {memory.stalls}")
        self.jobs = Source(dut, "jobs", block.jobs.payload.shape(), stall=stall)
        self.beats = Source(dut, "beats", block.beats.payload.shape(), stall=beats)
        self.bursts: list[tuple[int, int]] = []
        self.places: list[int] = []  # of each beat
        self.payloads: list[tuple[int, int]] = []  # data and strobes, one for each byte

    def add(self, first: int, count: int, *, beats: int | None = None) -> None:
        """A job of ``count`` beats from beat number ``first`` on; ``beats`` of them have data, or all."""
        address = first * self.bytes + self.rng.randrange(self.bytes)
        is_psum = self.rng.getrandbits(1)
        self.jobs.send([{"address": address, "beats": count, "is_psum": is_psum}])
        self.memory.job_sizes.append(count)
        bursts = spans(first, count, window_beats())
        self.bursts += bursts
        self.memory.psum_ends += [False] * (len(bursts) - 1) + [bool(is_psum)]
        for i in range(count if beats is None else beats):
            data, words = self.rng.getrandbits(8 * self.bytes), self.rng.getrandbits(self.bytes // 4)
            self.beats.send([{"data": data, "strobes": words}])
            self.places.append(first + i)
            self.payloads.append((data, sum(15 << 4 * i for i in range(self.bytes // 4) if words >> i & 1)))

    def add_random(self, beats: int) -> None:
        """Jobs of so many beats together, at any place: also at both ends of the space, and of windows."""
        rng, taken = self.rng, set(self.places)
        while beats > 0:
            count = min(beats, rng.choice([1, self.most, rng.randint(1, self.most)]))
            first = rng.choice([0, self.space - count, rng.randrange(self.space - count)])
            if rng.random() < 0.7:
                first += -rng.randrange(count + 1) - first % window_beats()
            first = max(0, min(first, self.space - count))
            if taken.isdisjoint(range(first, first + count)):
                self.add(first, count)
                taken.update(range(first, first + count))
                beats -= count

    def written(self, beats: int) -> dict[int, tuple[int, int]]:
        """What the first ``beats`` beats write."""
        both = zip(self.places[:beats], self.payloads[:beats], strict=True)
        return {place: payload for place, payload in both if payload[1]}

    async def idle(self, limit: int = 20_000) -> None:
        """Waits until the bus has given all answers, and some cycles in which nothing may come."""
        await ReadOnly()
        for _ in range(limit):
            if self.dut.idle.value == 1:
                break
            await FallingEdge(self.dut.clk)
            await ReadOnly()
        else:
            raise AssertionError(f"not idle in {limit} cycles")
        await FallingEdge(self.dut.clk)
        await ClockCycles(self.dut.clk, 20)
        await FallingEdge(self.dut.clk)
        assert self.memory.checker.idle

    async def finish(self, limit: int = 20_000) -> None:
        """All jobs were written, and nothing else."""
        while limit and len(self.memory.data) < len(self.payloads):
            await FallingEdge(self.dut.clk)
            limit -= 1
        await self.idle()
        assert self.memory.bursts == self.bursts
        assert self.memory.data == self.payloads
        assert self.memory.contents() == self.written(len(self.payloads))
        assert self.jobs.idle and self.beats.idle
        assert self.dut.failed.value == self.memory.failed
        self.stop()

    def stop(self) -> None:
        self.jobs.stop()
        self.beats.stop()
        self.memory.stop()
