"""A pseudo-terminal in front of a simulated board, with errors on the line if wanted."""

from __future__ import annotations

import os
import random
import select
import time
import tty
from contextlib import suppress
from threading import Event, Thread
from typing import Protocol

__all__ = ["LineErrors", "Machine", "PseudoTerminal"]

_PIECE = 32  # bytes handed over at a time
_AWAKE = 0.5  # seconds after the last byte during which time passes on the board as fast as it can
_REST = 0.2  # seconds between two pieces of the board's time after that


class Machine(Protocol):
    """A board at the other end of the line."""

    def exchange(self, data: bytes) -> bytes:
        """Hands ``data`` over, lets some time pass, and returns the bytes that came meanwhile."""


class LineErrors:
    """Spoils a share ``rate`` of the bytes: such a byte has a bit flipped, is lost, is doubled, or has a
    random one before it. The same ``seed`` gives the same errors.
    """

    def __init__(self, rate: float, seed: int) -> None:
        self._rate, self._random = rate, random.Random(seed)

    def apply(self, data: bytes) -> bytes:
        """``data`` as it arrives."""
        return b"".join(self._spoilt(octet) for octet in data)

    def _spoilt(self, octet: int) -> bytes:
        if self._random.random() >= self._rate:
            return bytes([octet])
        flipped = octet ^ 1 << self._random.randrange(8)
        garbage = self._random.randrange(256)
        kinds = (bytes([flipped]), b"", bytes([octet, octet]), bytes([garbage, octet]))
        return self._random.choice(kinds)


class PseudoTerminal:
    """Connects ``machine`` to the serial port ``device``, a path, for as long as the context lasts.

    As on a board's line without flow control, bytes that nobody reads in time are lost. error_rate, seed: of
    `LineErrors` in each direction.
    """

    def __init__(self, machine: Machine, *, error_rate: float = 0.0, seed: int = 0) -> None:
        self._machine = machine
        self._in, self._out = (LineErrors(error_rate, 2 * seed + way) for way in range(2))
        # The other end stays open here too: what is set there, and what is not read yet, outlives a client.
        self._end, self._other_end = os.openpty()
        tty.setraw(self._other_end)
        os.set_blocking(self._end, False)
        self.device = os.ttyname(self._other_end)
        self._stop, self._ended = Event(), Event()
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._work, daemon=True)

    def __enter__(self) -> PseudoTerminal:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        os.close(self._end)
        os.close(self._other_end)

    def wait(self) -> None:
        """Returns never; raises what stopped the machine."""
        self._ended.wait()  # not join(): a Ctrl-C there would take the thread for ended
        assert self._failure is not None
        raise self._failure

    def _work(self) -> None:
        try:
            moved = time.monotonic()
            while not self._stop.is_set():
                awake = time.monotonic() - moved < _AWAKE
                ready, _, _ = select.select([self._end], [], [], 0 if awake else _REST)
                sent = os.read(self._end, _PIECE) if ready else b""
                answer = self._machine.exchange(self._in.apply(sent))
                if sent or answer:
                    moved = time.monotonic()
                self._write(self._out.apply(answer))
        except BaseException as error:
            self._failure = error
            self._ended.set()

    def _write(self, data: bytes) -> None:
        with suppress(BlockingIOError):  # nobody reads
            os.write(self._end, data)
