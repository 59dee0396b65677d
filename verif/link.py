"""The host's end of the link in benches, by the protocol's definition: frames, and bytes on a serial line."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any
from zlib import crc32

import cocotb
from cocotb.triggers import FallingEdge, Timer

__all__ = ["PERIOD", "Line", "bodies", "frame", "request", "response", "stuffed", "word_bytes"]

PERIOD = 10_000
"""Of the clock that `streams.start` makes, in ps."""


def word_bytes(words: Iterable[int]) -> bytes:
    return b"".join(word.to_bytes(4, "little") for word in words)


def request(
    tag: int, operation: int, address: int = 0, words: Sequence[int] = (), count: int | None = None
) -> bytes:
    """A request's body; ``count`` is that of ``words`` if not given."""
    count = len(words) if count is None else count
    header = bytes([tag, operation]) + count.to_bytes(2, "little") + address.to_bytes(4, "little")
    return header + word_bytes(words)


def response(tag: int, operation: int, status: int, irq: int, words: Sequence[int] = ()) -> bytes:
    """A response's body."""
    return bytes([tag, operation | 0x80, status, irq]) + word_bytes(words)


def stuffed(data: bytes) -> bytes:
    """With 0x7D before what must not stand in a frame."""
    return b"".join(bytes([0x7D, byte ^ 0x20]) if byte in (0x7D, 0x7E) else bytes([byte]) for byte in data)


def frame(body: bytes) -> bytes:
    """The bytes on the line."""
    return b"\x7e" + stuffed(body + crc32(body).to_bytes(4, "little")) + b"\x7e"


def bodies(data: bytes) -> list[bytes]:
    """The bodies of the frames in ``data``, which must hold nothing else; their CRCs must be right."""
    found = []
    for piece in data.split(b"\x7e"):
        if not piece:
            continue
        pairs = piece.split(b"\x7d")
        whole = pairs[0] + b"".join(bytes([pair[0] ^ 0x20]) + pair[1:] for pair in pairs[1:])
        assert len(whole) >= 4, f"{piece!r} is no frame"
        body, crc = whole[:-4], whole[-4:]
        assert crc32(body).to_bytes(4, "little") == crc, f"wrong CRC in {piece!r}"
        found.append(body)
    return found


class Line:
    """Drives ``rx`` of a UART and watches its ``tx``, whose bytes gather in ``received``.

    Parameters
    ----------
    rx, tx : the DUT's signals.
    clocks : cycles of a bit.
    mismatch : how much longer the bits are that are sent, as a share; the DUT's must be exact.
    """

    def __init__(self, rx: Any, tx: Any, clocks: int, *, mismatch: float = 0.0) -> None:
        self._rx, self._tx = rx, tx
        self._bit = round(clocks * PERIOD * (1 + mismatch))
        self._exact = clocks * PERIOD
        self.random = random.Random(f"line {cocotb.RANDOM_SEED}")
        self.received = bytearray()
        self._rx.value = 1
        self._task = cocotb.start_soon(self._receive())

    async def send(self, data: bytes, *, gaps: float = 0.0, broken: Iterable[int] = ()) -> None:
        """Sends bytes, the ones at positions ``broken`` without stop bit; pauses before a share ``gaps``."""
        broken = set(broken)
        for i, byte in enumerate(data):
            if self.random.random() < gaps:
                await Timer(self.random.randrange(1, 20 * self._bit), "ps")
            for bit in (0, *(byte >> b & 1 for b in range(8)), int(i not in broken)):
                self._rx.value = bit
                await Timer(self._bit, "ps")
            self._rx.value = 1
            if i in broken:
                await Timer(2 * self._bit, "ps")  # so that the line is seen to be high again

    def stop(self) -> None:
        """Receives nothing more."""
        self._task.cancel()

    async def bits(self, count: float) -> None:
        """Waits for as many bit times."""
        await Timer(round(count * self._exact), "ps")

    async def _receive(self) -> None:
        while True:
            await FallingEdge(self._tx)
            await Timer(self._exact // 2, "ps")
            assert self._tx.value == 0, "a start bit is too short"
            byte = 0
            for bit in range(8):
                await Timer(self._exact, "ps")
                byte |= int(self._tx.value) << bit
            await Timer(self._exact, "ps")
            assert self._tx.value == 1, "a byte has no stop bit"
            self.received.append(byte)
