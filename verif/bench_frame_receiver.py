"""Bench of hw/frame_receiver.py: frames between all that can go wrong on a line, a byte a cycle or slower."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any
from zlib import crc32

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.gen.host_link import MOST_WORDS
from sliceforge.hw.frame_receiver import FrameReceiver, request_layout
from sliceforge.verif.link import frame, request, stuffed
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, quiet, reset, start

CASES = [{"timeout": 40}, {"timeout": 1000}]

Events = list[int | None]
"""What comes from the UART: bytes, and None for one without a stop bit."""


def component(p: dict[str, Any]) -> FrameReceiver:
    return FrameReceiver(**p)


class Bench:
    """``gaps``: share of cycles without a byte; ``stall``: of those in which a request is not taken."""

    def __init__(self, dut: Any, gaps: float = 0.0, stall: float = 0.0) -> None:
        self.dut, self.gaps = dut, gaps
        self.timeout = parameters()["timeout"]
        self.random = random.Random(f"{cocotb.RANDOM_SEED} {gaps} {stall}")
        self.requests = Sink(dut, "requests", request_layout(), stall=stall)
        self.words: dict[int, int] = {}  # as the bridge's buffer holds them
        self.expected = 0
        self._task = cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        """Keeps the words, and checks them and the length at each request."""
        dut = self.dut
        while True:
            await ReadOnly()
            if dut.word_valid.value == 1:
                assert dut.requests__valid.value == 0, "a word came while a request was on offer"
                self.words[int(dut.word_index.value)] = int(dut.word.value)
            await FallingEdge(dut.clk)

    async def send(self, events: Iterable[int | None]) -> None:
        dut = self.dut
        await FallingEdge(dut.clk)
        for event in events:
            silence = 0
            while self.random.random() < self.gaps and silence < self.timeout - 2:
                silence += 1
                await FallingEdge(dut.clk)
            dut.valid.value = int(event is not None)
            dut.failed.value = int(event is None)
            dut.octet.value = self.random.randrange(256) if event is None else event
            await FallingEdge(dut.clk)
            dut.valid.value = dut.failed.value = 0
            dut.octet.value = self.random.randrange(256)

    def body(self, words: int | None = None, extra: int = 0) -> bytes:
        """A random request; often with bytes that are stuffed."""
        rng = self.random
        words = rng.choice([0, 1, 2, rng.randrange(20)]) if words is None else words
        choice = rng.choice([[0x7D, 0x7E, 0x5D, 0x5E], range(256)])
        return bytes(rng.choice(choice) for _ in range(8 + 4 * words + extra))

    async def accept(self, body: bytes, *, events: Iterable[int | None] | None = None) -> None:
        """Sends the frame of ``body``, or ``events`` that end with it, and checks the request."""
        await self.send(frame(body) if events is None else events)
        self.expected += 1
        await quiet(self.dut, self.requests, expected=[self.expected], limit=200, after=2)
        found, data = self.requests.received[-1], body[8:]
        assert found == {
            "tag": body[0], "operation": body[1], "count": int.from_bytes(body[2:4], "little"),
            "address": int.from_bytes(body[4:8], "little"), "bytes": len(data),
        }  # fmt: skip
        for i in range(len(data) // 4):
            assert self.words[i] == int.from_bytes(data[4 * i : 4 * i + 4], "little"), f"word {i}"

    def spoiled(self) -> Events:
        """Something that must be dropped and leave no trace, other than a pause."""
        rng, body = self.random, self.body()
        whole: Events = list(frame(body))
        at = rng.randrange(1, len(whole) - 1)
        kind = rng.randrange(8)
        if kind == 0:  # a flipped bit, in the flags too
            at = rng.randrange(len(whole))
            whole[at] = (whole[at] or 0) ^ 1 << rng.randrange(8)
        elif kind == 1:  # a byte without a stop bit, there or in addition
            whole[at : at + rng.randrange(2)] = [None]
        elif kind == 2:  # cut short
            whole = whole[:at]
        elif kind == 3:  # aborted, also where nothing is missing
            whole[rng.choice([at, len(whole) - 1]) :] = [0x7D, 0x7E]
        elif kind == 4:  # a CRC that is right, but too few bytes
            short = body[: rng.randrange(8)]
            whole = list(frame(short))
        elif kind == 5:  # a lost or doubled byte
            whole[at : at + 1] = [whole[at]] * rng.choice([0, 2])
        elif kind == 6:  # noise
            whole = [rng.choice([0x7D, 0x7E, rng.randrange(256)]) for _ in range(rng.randrange(40))]
        else:  # a wrong CRC
            crc = crc32(body) ^ 1 << rng.randrange(32)
            whole = [0x7E, *stuffed(body + crc.to_bytes(4, "little")), 0x7E]
        return whole

    async def finish(self) -> None:
        """A last request, and nothing else."""
        await self.accept(self.body())
        await quiet(self.dut, self.requests, expected=[self.expected], after=self.timeout + 50)

    def stop(self) -> None:
        self.requests.stop()
        self._task.cancel()


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(gaps=STALLS, stall=STALLS)
async def receives_requests(dut: Any, gaps: float, stall: float) -> None:
    """Of any length, in whole words or not."""
    await start(dut, component(parameters()))
    bench = Bench(dut, gaps, stall)
    for words in (0, 1, MOST_WORDS - 1, MOST_WORDS, 0):
        await bench.accept(bench.body(words))
    for _ in range(60):
        await bench.accept(bench.body(extra=bench.random.choice([0, 0, 1, 2, 3])))
    await bench.accept(request(0x7E, 0x7D, 0x7E7D_5E5D, [0x7D7D_7D7D, 0x7E7E_7E7E, 0x5D7D_5E7E]))
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(gaps=STALLS)
async def drops_what_is_spoiled(dut: Any, gaps: float) -> None:
    """And receives the next request, whatever came before it."""
    await start(dut, component(parameters()))
    bench = Bench(dut, gaps, 0.2)
    for _ in range(200):
        for _ in range(bench.random.randrange(3)):
            await bench.send(bench.spoiled())
        await bench.accept(bench.body())
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
@cocotb.parametrize(extra=[1, 2, 3, 4, 5, 1000])
async def drops_what_is_too_long(dut: Any, extra: int) -> None:
    """By a byte or many, whether or not the CRC of all is right; also if the right length is cut off it."""
    await start(dut, component(parameters()))
    bench = Bench(dut)
    body = bench.body(MOST_WORDS)
    await bench.send(frame(body + bytes(extra)))
    await bench.accept(body)
    await bench.send(frame(body)[:-1] + b"\x7d\x5d" * extra + b"\x7e")
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def gives_a_frame_up_after_a_pause(dut: Any) -> None:
    """Not before, and not between frames: a flag stands as long as it likes."""
    await start(dut, component(parameters()))
    bench = Bench(dut)
    body = bench.body()
    whole = frame(body)
    for at in (2, len(whole) // 2, len(whole) - 1):
        await bench.send(whole[:at])
        await ClockCycles(dut.clk, bench.timeout - 2)
        await bench.accept(body, events=whole[at:])
        await bench.send(whole[:at])
        await ClockCycles(dut.clk, bench.timeout + 2)
        await bench.send(whole[at:])
        await bench.accept(body, events=whole[1:])  # the flag before was seen
    await ClockCycles(dut.clk, 3 * bench.timeout)
    await bench.accept(body, events=whole[1:])
    # An escape is a byte, too.
    await bench.send(b"\x7e\x7d")
    await ClockCycles(dut.clk, bench.timeout + 2)
    await bench.send(bytes([whole[1] ^ 0x20, *whole[2:]]))
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def shares_flags(dut: Any) -> None:
    """One flag closes a frame and opens the next; several are no frames."""
    await start(dut, component(parameters()))
    bench = Bench(dut, 0.2)
    await bench.send(b"\x7e")
    for _ in range(20):
        body = bench.body()
        await bench.accept(body, events=frame(body)[1:])
        if bench.random.random() < 0.5:
            await bench.send(b"\x7e" * bench.random.randrange(5))
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def drops_all_while_a_request_is_on_offer(dut: Any) -> None:
    """The request stands; a frame of which the end comes later is lost, too."""
    await start(dut, component(parameters()))
    bench = Bench(dut, stall=1.0)
    for cut in (1, 5, 20, None):
        body, other = bench.body(), bench.body(4)
        await bench.send(frame(body))
        await bench.send(bench.spoiled())
        await bench.send(frame(other)[:cut])
        assert dut.requests__valid.value == 1
        bench.requests.stall = 0.0
        await bench.accept(body, events=[])
        bench.requests.stall = 1.0
        await bench.send(frame(other)[cut:] if cut else b"")
    bench.requests.stall = 0.0
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def has_the_latency_that_it_documents(dut: Any) -> None:
    """1 cycle from flag to request, and from a word's last byte to the word."""
    await start(dut, component(parameters()))
    bench = Bench(dut)
    whole = frame(request(0x11, 2, 0x2233_4455, [0x6677_8899]))
    assert len(whole) == 18
    await bench.send(whole[:12])
    assert dut.word_valid.value == 0
    await bench.send(whole[12:13])
    assert dut.word_valid.value == 1 and dut.word.value == 0x6677_8899
    await bench.send(whole[13:17])
    assert dut.requests__valid.value == 0
    await bench.send(whole[17:])
    assert dut.requests__valid.value == 1
    bench.expected += 1
    await bench.finish()


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def starts_afresh_at_reset(dut: Any) -> None:
    """In a frame, behind an escape, with a request on offer."""
    await start(dut, component(parameters()))
    body = bytes(range(8))
    for before in (frame(body)[:7], b"\x7e\x7d", frame(body)):
        bench = Bench(dut, stall=1.0)
        await bench.send(before)
        bench.stop()
        await reset(dut)
        assert dut.requests__valid.value == 0
        bench = Bench(dut)
        await bench.send(frame(body)[1:])  # its flag is the first one seen
        await bench.finish()
        bench.stop()
