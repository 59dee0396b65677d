"""A board behind a serial port, as a `driver.Port`: requests and answers of the host link.

The line may lose, double or alter bytes: what is not answered is sent again, and the bridge on the board does
nothing twice that must not be done twice.
"""

from __future__ import annotations

import errno
import os
import secrets
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

import serial

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.host_link import (
    CRC_BYTES,
    DEFAULT_BAUD,
    FLAG_INTERRUPT,
    HELLO_WORDS,
    LINK_VERSION,
    MAGIC,
    MOST_WORDS,
    RESPONSE,
    Operation,
    Status,
)
from sliceforge.gen.registers import register_map
from sliceforge.sim.driver import BusError
from sliceforge.sim.link_frames import FrameParser, encode_frame

__all__ = ["UartPort"]

ATTEMPTS = 10
"""How often a request is sent before the board is given up."""
ANSWER_TIMEOUT = 0.5
"""Seconds that an answer may take besides its time on the line; USB adapters hold bytes back for 16 ms."""
STILL_TIMEOUT = 10.0
"""Seconds without the interrupt and without anything that the accelerator's counters show."""

_REQUEST = struct.Struct("<BBHI")  # tag, operation, count of words, address
_RESPONSE = struct.Struct("<BBBB")  # tag, operation, status, flags
_WORD = 4
_SHORT_PIECE = 8  # words; what is not longer is sent again as it is
_WORK_COUNTERS = ("OUTER_PRODUCTS", "BYTES_READ", "BYTES_WRITTEN")  # others count time that passes
_POLL = 0.02  # seconds from one look at the interrupt to the next
_READ_TIMEOUT = 0.02  # seconds that a read from the operating system waits for a byte
_WRITE_TIMEOUT = 1.0  # seconds that it may take a request in, besides its time on the line
_BITS_PER_BYTE = 10  # with start and stop bit

_OPEN_HINTS = {
    errno.EACCES: " (on Debian, members of the group dialout may use serial ports)",
    errno.EAGAIN: ": another program has it open",
}
_STATUS_TEXTS = {
    Status.SLAVE_ERROR: "was answered with an error",
    Status.BUS_TIMEOUT: "got no answer from the bus, as will all until the board is reset",
    Status.BAD_REQUEST: "was refused by the bridge: the board's sliceforge is another release",
}


class _Answer(NamedTuple):
    status: int
    words: bytes


class UartPort:
    """The board at serial port ``device``, whose accelerator is of ``config``; reset when opened.

    A `driver.Port`; use it as a context manager. baud: bits a second. moved: called with the number of bytes
    when a piece of memory has been read or written. ``memory_base``, ``memory_bytes``: the board's memory.
    Raises ValueError if the port cannot be opened, RuntimeError for a board with another host link or whose
    connection breaks off, TimeoutError if nobody answers.
    """

    def __init__(
        self,
        device: str,
        config: AcceleratorConfig,
        *,
        baud: int = DEFAULT_BAUD,
        moved: Callable[[int], None] | None = None,
    ) -> None:
        self.device, self.baud = device, baud
        self._moved = moved or (lambda _: None)
        self._tag = secrets.randbelow(256)
        self._parser = FrameParser(_RESPONSE.size + _WORD * MOST_WORDS)
        self._interrupt = False
        self._piece = MOST_WORDS
        self._counters = [reg.offset for reg in register_map(config) if reg.name in _WORK_COUNTERS]
        self._line_baud = baud
        self._serial = _open(device, baud)
        try:
            self._hello()
            self._request(Operation.RESET)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> UartPort:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._serial.close()

    # The port.

    def read_register(self, offset: int) -> int:
        return int.from_bytes(self._request(Operation.READ, offset, count=1), "little")

    def write_register(self, offset: int, value: int) -> None:
        self._request(Operation.WRITE, offset, value.to_bytes(_WORD, "little"), count=1)

    def read_memory(self, address: int, size: int) -> bytes:
        """ValueError for what is outside of the board's memory."""
        self._check_span(address, size)
        start, end = address - address % _WORD, address + size
        data = self._transfer(Operation.READ, start, -(-(end - start) // _WORD))
        return data[address - start : end - start]

    def write_memory(self, address: int, data: bytes) -> None:
        """ValueError for what is outside of the board's memory."""
        self._check_span(address, len(data))
        end = address + len(data)
        start, stop = address - address % _WORD, end + -end % _WORD
        words = self.read_memory(start, address - start) + data + self.read_memory(end, stop - end)
        self._transfer(Operation.WRITE, start, len(words) // _WORD, words)

    def _transfer(self, operation: Operation, address: int, count: int, data: bytes = b"") -> bytes:
        """Reads or writes ``count`` words of memory in pieces: the longest that there are, or shorter ones on
        a line that spoils those. A piece may be written twice, as memory does not mind.
        """
        words, done = b"", 0
        while done < count:
            size = min(self._piece, count - done)
            part = data[_WORD * done : _WORD * (done + size)]
            attempts = 1 if size > _SHORT_PIECE else ATTEMPTS
            try:
                words += self._request(operation, address + _WORD * done, part, count=size, attempts=attempts)
            except TimeoutError:
                if size <= _SHORT_PIECE:
                    raise
                self._piece = size // 2
                continue
            self._piece = min(2 * self._piece, MOST_WORDS)
            done += size
            self._moved(_WORD * size)
        return words

    def wait_interrupt(self, progress: Callable[[], None] | None) -> None:
        """TimeoutError when the accelerator's counters have shown no work for `STILL_TIMEOUT` seconds."""
        before, since = b"", time.monotonic()
        while True:
            counters = self._work_counters()
            if progress is not None:
                progress()
            if self._interrupt:
                return
            if counters != before:
                before, since = counters, time.monotonic()
            elif time.monotonic() - since > STILL_TIMEOUT:
                raise TimeoutError(f"nothing has moved on its bus or in its array for {STILL_TIMEOUT:g} s")
            time.sleep(_POLL)

    def _work_counters(self) -> bytes:
        """The low words of the counters that tell work from waiting, in one access."""
        first = min(self._counters)
        words = self._request(Operation.READ, first, count=(max(self._counters) - first) // _WORD + 1)
        return b"".join(words[offset - first : offset - first + _WORD] for offset in self._counters)

    # Requests.

    def _hello(self) -> None:
        words = struct.unpack(f"<{len(HELLO_WORDS)}I", self._request(Operation.HELLO))
        hello = dict(zip(HELLO_WORDS, words, strict=True))
        for name, expected in (("MAGIC", MAGIC), ("LINK_VERSION", LINK_VERSION)):
            if hello[name] != expected:
                raise RuntimeError(
                    f"the board at {self.device} must say {name} {expected:#x} for this release of "
                    f"sliceforge, not {hello[name]:#x}"
                )
        self.memory_base, self.memory_bytes = hello["MEMORY_BASE"], hello["MEMORY_BYTES"]
        self._line_baud = min(self.baud, hello["BAUD"])

    def _request(
        self,
        operation: Operation,
        address: int = 0,
        data: bytes = b"",
        *,
        count: int = 0,
        attempts: int = ATTEMPTS,
    ) -> bytes:
        """The words of the answer. count: words to be read or written, of which ``data`` is the latter."""
        self._tag = (self._tag + 1) % 256
        frame = encode_frame(_REQUEST.pack(self._tag, operation, count, address) + data)
        size = _WORD * {Operation.READ: count, Operation.HELLO: len(HELLO_WORDS)}.get(operation, 0)
        what = f"the {operation.name}" + (f" of {count} words at {address:#x}" if count else "")
        longest = 2 * (_RESPONSE.size + size + CRC_BYTES) + 2  # all of it stuffed, and the flags
        line = _BITS_PER_BYTE * (len(frame) + longest) / self._line_baud
        try:
            for _ in range(attempts):
                self._serial.write(frame)
                answer = self._answer(operation, size, time.monotonic() + ANSWER_TIMEOUT + line)
                if answer is None:
                    continue
                if answer.status != Status.OK:
                    raise BusError(f"{what} {_STATUS_TEXTS[Status(answer.status)]}")
                return answer.words
        except OSError as error:  # pyserial's own errors too
            raise RuntimeError(f"the connection to {self.device} broke off: {error}") from None
        raise TimeoutError(
            f"nobody at {self.device} answered {what}, sent {attempts} times: check the cable, the baud rate "
            f"(here {self.baud:,}), and that the board is on and has its bitstream"
        )

    def _answer(self, operation: Operation, size: int, deadline: float) -> _Answer | None:
        """The answer to the request that was sent last; None if none came until ``deadline``."""
        while time.monotonic() < deadline:
            for body in self._parser.feed(self._serial.read(max(1, self._serial.in_waiting))):
                if len(body) < _RESPONSE.size:
                    continue
                tag, answered, status, flags = _RESPONSE.unpack_from(body)
                words = body[_RESPONSE.size :]
                if (tag, answered) != (self._tag, operation | RESPONSE) or status not in iter(Status):
                    continue  # belongs to an earlier request
                if len(words) == (size if status == Status.OK else 0):
                    self._interrupt = bool(flags & FLAG_INTERRUPT)
                    return _Answer(status, words)
        return None

    def _check_span(self, address: int, size: int) -> None:
        if not self.memory_base <= address <= address + size <= self.memory_base + self.memory_bytes:
            raise ValueError(f"address and size must stay within the memory, not be {address:#x} and {size}")


def _open(device: str, baud: int) -> serial.Serial:
    try:
        longest = 2 * _BITS_PER_BYTE * (_REQUEST.size + _WORD * MOST_WORDS) / baud  # stuffing may double it
        return serial.Serial(
            device, baud, timeout=_READ_TIMEOUT, write_timeout=_WRITE_TIMEOUT + longest, exclusive=True
        )
    except ValueError as error:
        raise ValueError(f"engine's baud must be one that {device!r} has, not {baud}: {error}") from None
    except OSError as error:
        number = error.errno
        reason = os.strerror(number) + _OPEN_HINTS.get(number, "") if number else "it is no serial port"
        raise ValueError(f"engine's device {device!r} cannot be opened: {reason}") from None
