"""Bench of hw/frame_sender.py: the bytes of random frames, a byte a cycle, waiting on both sides, reset."""

from __future__ import annotations

import random
from bisect import bisect_left
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.gen.host_link import MOST_WORDS
from sliceforge.hw.frame_sender import FrameSender, frame_word_layout
from sliceforge.verif.link import frame, stuffed, word_bytes
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, Source, quiet, reset, start

CASES: list[dict[str, Any]] = [{}]


def component(p: dict[str, Any]) -> FrameSender:
    return FrameSender(**p)


class Bench:
    def __init__(self, dut: Any, *, stall_in: float = 0.0, stall_out: float = 0.0) -> None:
        self.dut = dut
        self.random = random.Random(f"{cocotb.RANDOM_SEED} {stall_in} {stall_out}")
        self.words = Source(dut, "words", frame_word_layout(), stall=stall_in)
        self.octets = Sink(dut, "octets", 8, stall=stall_out)
        self.expected = b""
        self.checksums: list[int] = []  # where they begin
        self.ends: list[int] = []  # where each word does: with its last byte, a last word with the flag

    def add(self, words: list[int]) -> None:
        self.words.send({"word": word, "last": i == len(words) - 1} for i, word in enumerate(words))
        begin = len(self.expected)
        self.expected += frame(word_bytes(words))
        behind = [begin + 1 + len(stuffed(word_bytes(words[: i + 1]))) for i in range(len(words))]
        self.checksums.append(behind[-1])
        self.ends += [*(end - 1 for end in behind[:-1]), len(self.expected) - 1]

    def add_random(self, count: int) -> None:
        """Half of it bytes that are stuffed."""
        octets = self.random.choice([[0x7D, 0x7E, 0x5D, 0x5E, 0x20], range(256)])
        self.add([int.from_bytes(self.random.choices(octets, k=4), "little") for _ in range(count)])

    async def finish(self) -> None:
        await quiet(self.dut, self.octets, expected=[len(self.expected)])
        assert bytes(self.octets.received) == self.expected
        assert self.words.idle

    def stop(self) -> None:
        self.words.stop()
        self.octets.stop()


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(stall_in=STALLS, stall_out=STALLS)
async def sends_frames(dut: Any, stall_in: float, stall_out: float) -> None:
    """Of any length, one behind the other."""
    await start(dut, component(parameters()))
    bench = Bench(dut, stall_in=stall_in, stall_out=stall_out)
    for _ in range(60):  # enough for each byte of a CRC to be stuffed
        bench.add_random(bench.random.randrange(1, 8))
    bench.add_random(1 + MOST_WORDS)
    bench.add_random(1)
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def sends_a_byte_a_cycle(dut: Any) -> None:
    """The first a cycle after the first word, a cycle without one before a checksum; two words are taken
    ahead."""
    await start(dut, component(parameters()))
    bench = Bench(dut)
    bench.add_random(20)
    bench.add_random(1)
    while dut.words__valid.value == 0:
        await FallingEdge(dut.clk)
        await ReadOnly()
    moments = [1 + i + sum(begin <= i for begin in bench.checksums) for i in range(len(bench.expected))]
    taken = [0, 1]
    for end in bench.ends[:-2]:
        taken.append(1 + max(taken[-1], moments[end]))
    for cycle in range(1, 2 + moments[-1]):
        await FallingEdge(dut.clk)
        await ReadOnly()
        assert len(bench.octets.received) == bisect_left(moments, cycle)
        assert bench.words.sent == bisect_left(taken, cycle)
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def starts_afresh_at_reset(dut: Any) -> None:
    """Anywhere in a frame, behind an escape too."""
    await start(dut, component(parameters()))
    bench = Bench(dut)
    for cut in (1, 2, 3, 7, 11, 12, 13, 18, 19, 20):
        bench.add([0x7D7E_7D7E, 0x7E7D_7E7D])
        await ClockCycles(dut.clk, cut)
        bench.stop()
        await reset(dut)
        assert dut.octets__valid.value == 0
        bench = Bench(dut)
        bench.add_random(2)
        await bench.finish()
        bench.stop()
        bench = Bench(dut)
