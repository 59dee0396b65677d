"""What answers a block that reads memory: arbiter, bus and memory in one, for benches of single blocks."""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

import cocotb
from amaranth import Shape
from cocotb.triggers import FallingEdge

from sliceforge.verif.streams import Sink, to_int

__all__ = ["ReadMemory", "some_contents", "spans"]

_PAGE = 4096


def some_contents(bits: int) -> Callable[[int], int]:
    """Contents of a memory in which everything differs: a beat of ``bits`` for each number of a beat."""

    def contents(beat: int) -> int:
        return int.from_bytes(hashlib.shake_128(beat.to_bytes(9, "little")).digest(bits // 8), "little")

    return contents


def spans(first: int, count: int, block: int) -> list[tuple[int, int]]:
    """``count`` beats from number ``first`` on, cut where aligned blocks end: (first, count) each."""
    ends = [*range((first // block + 1) * block, first + count, block), first + count]
    return [(start, end - start) for start, end in zip([first, *ends], ends, strict=False)]


class ReadMemory:
    """Takes the bursts that ``block`` asks for and pushes their beats, in order; noise in between.

    Parameters
    ----------
    contents : gives the beat by its number, which is its address over the bytes of a beat.
    latency : cycles from a request that is taken to its first beat, 1 or more.
    stall : share of cycles in which no request is taken, and of those in which no beat comes.
    errors : numbers of the beats that are answered with an error.

    ``bursts`` holds what was asked for, as (first, count) of beats; ``answered`` counts beats.
    """

    def __init__(
        self,
        dut: Any,
        block: Any,
        contents: Callable[[int], int],
        *,
        latency: int = 3,
        stall: float = 0.0,
        errors: Collection[int] = (),
    ) -> None:
        assert latency >= 1
        self._dut, self._layout = dut, block.answer.shape()
        self._contents, self._latency, self.stall, self._errors = contents, latency, stall, errors
        self._bytes = Shape.cast(self._layout["data"].shape).width // 8
        self.requests = Sink(dut, "requests", block.requests.payload.shape(), stall=stall)
        self.bursts: list[tuple[int, int]] = []
        self.answered = 0
        self._random = random.Random(f"memory {cocotb.RANDOM_SEED}")
        self._task = cocotb.start_soon(self._run())

    def stop(self) -> None:
        """Owes nothing more: what an arbiter does for a reader that is reset."""
        self._task.cancel()
        self.requests.stop()
        self._dut.answer.value = 0

    def beats(self) -> list[int]:
        """Numbers of the beats that were asked for."""
        return [first + i for first, count in self.bursts for i in range(count)]

    @property
    def idle(self) -> bool:
        return self.answered == sum(count for _, count in self.bursts)

    def _noise(self) -> int:
        """No beat. What it would hold must not matter."""
        bits = self._random.getrandbits(8 * self._bytes)
        return to_int(self._layout, {"data": bits, "error": 1, "valid": 0})

    async def _run(self) -> None:
        due: deque[tuple[int, int]] = deque()  # cycle, beat
        cycle, busy = 0, True
        await FallingEdge(self._dut.clk)
        while True:
            for request in self.requests.received[len(self.bursts) :]:
                first, within = divmod(request["address"], self._bytes)
                count = request["last_beat"] + 1
                assert within == 0, f"burst at {request['address']:#x} starts inside a beat"
                assert request["address"] % _PAGE + count * self._bytes <= _PAGE, "burst crosses 4 KiB"
                self.bursts.append((first, count))
                due += [(cycle + self._latency - 1, first + i) for i in range(count)]
            if due and due[0][0] <= cycle and self._random.random() >= self.stall:
                beat = due.popleft()[1]
                answer = {"data": self._contents(beat), "error": int(beat in self._errors), "valid": 1}
                self._dut.answer.value = to_int(self._layout, answer)
                self.answered += 1
                busy = True
            elif busy:
                self._dut.answer.value = self._noise()
                busy = False
            await FallingEdge(self._dut.clk)
            cycle += 1
