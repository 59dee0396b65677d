"""Tests of gen/host_link.py, and of the arguments of gen/verilog.py's SoC."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.host_link import HELLO_WORDS, MAGIC, clocks_per_bit, hello
from sliceforge.gen.verilog import soc, soc_module

TINY = AcceleratorConfig.preset("tiny")
GOOD: dict[str, Any] = {"clock_hz": 25_000_000, "baud": 1_000_000, "memory_kib": 64}


def test_hello() -> None:
    words = hello(clock_hz=25_000_000, baud=115_200, memory_bytes=1 << 16)
    assert dict(zip(HELLO_WORDS, words, strict=True)) == {
        "MAGIC": MAGIC, "LINK_VERSION": 1, "CLOCK_HZ": 25_000_000, "BAUD": 115_200,
        "MEMORY_BASE": 1 << 31, "MEMORY_BYTES": 1 << 16,
    }  # fmt: skip
    assert MAGIC.to_bytes(4, "big") == b"SFLK"


@pytest.mark.parametrize(
    ("clock_hz", "baud", "clocks"),
    [
        (25_000_000, 1_000_000, 25),
        (25_000_000, 921_600, 27),  # 0.5 % fast
        (12_000_000, 3_000_000, 4),
        (100_000_000, 9600, 10_417),
        (40, 10, 4),
    ],
)
def test_clocks_per_bit(clock_hz: int, baud: int, clocks: int) -> None:
    assert clocks_per_bit(clock_hz, baud) == clocks


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"clock_hz": 0}, ValueError, "clock_hz must be 1..4294967295, not 0"),
        ({"clock_hz": 1 << 32}, ValueError, "clock_hz must be 1..4294967295, not 4294967296"),
        ({"clock_hz": 25e6}, TypeError, "clock_hz must be an integer, not 25000000.0"),
        ({"baud": 0}, ValueError, "baud must be 1..4294967295, not 0"),
        ({"baud": True}, TypeError, "baud must be an integer, not True"),
        ({"baud": "fast"}, TypeError, "baud must be an integer, not 'fast'"),
        (
            {"baud": 6_250_001},
            ValueError,
            "baud must be at most a quarter of clock_hz, 6250000 at 25000000 Hz, not 6250001",
        ),
        (
            {"baud": 2_000_000},
            ValueError,
            "baud must be within 1 % of clock_hz over a whole number, such as 2083333 at 25000000 Hz, "
            "not 2000000",
        ),
        ({"memory_kib": 0}, ValueError, "memory_kib must be 1..4096, not 0"),
        ({"memory_kib": 4097}, ValueError, "memory_kib must be 1..4096, not 4097"),
        ({"memory_kib": 64.0}, TypeError, "memory_kib must be an integer, not 64.0"),
        ({"memory_kib": False}, TypeError, "memory_kib must be an integer, not False"),
    ],
)
def test_soc_names_what_is_wrong(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        soc(TINY, **{**GOOD, **change})


def test_soc_module() -> None:
    """A name of its own: both modules are in one text."""
    assert soc_module(TINY) == "sliceforge_tiny_soc" != TINY.module
