"""Host link: the constants of the frames that a host and the SoC exchange over a UART, for both sides.

A frame is a body and its CRC-32 between flags, with HDLC's octet stuffing (RFC 1662). A request's body is tag
(1 byte), operation (1), count (2) and address (4); a response's is tag, operation | `RESPONSE`, status and
flags (1 byte each); words of 32 bits follow. Everything is little endian.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = [
    "BUS_TIMEOUT", "CRC_BYTES", "DEFAULT_BAUD", "ESCAPE", "ESCAPE_XOR", "FLAG", "FLAG_INTERRUPT",
    "FRAME_TIMEOUT", "HEADER_BYTES", "HELLO_WORDS", "LINK_VERSION", "MAGIC", "MEMORY_BASE", "MOST_MEMORY_KIB",
    "MOST_WORDS", "Operation", "RESPONSE", "Status", "clocks_per_bit", "hello",
]  # fmt: skip


class Operation(IntEnum):
    """What a request asks for."""

    HELLO = 0  # who is there: `hello`
    READ = 1  # `count` words from `address` on
    WRITE = 2  # the same
    RESET = 3  # of the accelerator and both buses; memory keeps its content


class Status(IntEnum):
    """What became of a request. Words follow only OK."""

    OK = 0
    SLAVE_ERROR = 1  # an access was answered with SLVERR or DECERR; those behind it were not made
    BUS_TIMEOUT = 2  # no answer in `BUS_TIMEOUT` cycles; nothing but RESET helps
    BAD_REQUEST = 3  # unknown operation, count out of range or not the frame's, address no multiple of 4


FLAG = 0x7E
"""Opens and closes a frame."""
ESCAPE = 0x7D
"""Stands before a byte that would be a flag or an escape; right before a flag it aborts the frame."""
ESCAPE_XOR = 0x20
"""What such a byte is combined with."""
HEADER_BYTES = 8
"""Bytes of a request before its words."""
CRC_BYTES = 4
"""Bytes behind the body: its CRC-32 (ISO HDLC, as `zlib.crc32`)."""
MOST_WORDS = 256
"""Words of 32 bits in a READ or WRITE; at least one."""
RESPONSE = 0x80
"""Set in a response's operation."""
FLAG_INTERRUPT = 1
"""In a response's flags: the level of the accelerator's interrupt."""

MAGIC = 0x5346_4C4B
"""First word of a HELLO's response: "SFLK" in ASCII, the first letter in the highest byte."""
LINK_VERSION = 1
"""Second word: of this protocol."""
HELLO_WORDS = ("MAGIC", "LINK_VERSION", "CLOCK_HZ", "BAUD", "MEMORY_BASE", "MEMORY_BYTES")
"""Names of all of them."""

MEMORY_BASE = 0x8000_0000
"""Address of the SoC's memory, for the host and for the accelerator; registers are at 0."""
MOST_MEMORY_KIB = 4096
"""Largest memory."""
DEFAULT_BAUD = 1_000_000
FRAME_TIMEOUT = 0.25
"""Seconds of silence that end a frame without its flag."""
BUS_TIMEOUT = 65_536
"""Cycles in which a register or memory must have answered."""

_LEAST_CLOCKS = 4
_MOST_ERROR = 0.01


def hello(*, clock_hz: int, baud: int, memory_bytes: int) -> tuple[int, ...]:
    """The words of a HELLO's response."""
    return MAGIC, LINK_VERSION, clock_hz, baud, MEMORY_BASE, memory_bytes


def clocks_per_bit(clock_hz: int, baud: int) -> int:
    """Clock cycles of a bit on the line, rounded.

    Raises TypeError, or ValueError if a bit has fewer than 4 cycles or rounding errs by more than 1 %.
    """
    for name, value in (("clock_hz", clock_hz), ("baud", baud)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an integer, not {value!r}")
        if not 1 <= value < 1 << 32:
            raise ValueError(f"{name} must be 1..{(1 << 32) - 1}, not {value}")
    if baud * _LEAST_CLOCKS > clock_hz:
        raise ValueError(
            f"baud must be at most a quarter of clock_hz, {clock_hz // _LEAST_CLOCKS} at {clock_hz} Hz, "
            f"not {baud}"
        )
    clocks = round(clock_hz / baud)
    if abs(clock_hz / clocks - baud) > _MOST_ERROR * baud:
        raise ValueError(
            f"baud must be within 1 % of clock_hz over a whole number, such as {clock_hz // clocks} at "
            f"{clock_hz} Hz, not {baud}"
        )
    return clocks
