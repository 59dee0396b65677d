"""Bench of hw/output_rows.py: the address of every row of layers of one to four tiles each way."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.hw.output_rows import OutputRows
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, Sink, quiet, reset, start

CASES = [
    {"address_bits": 32, "tile_m": 8, "tile_n": 8},
    {"address_bits": 40, "tile_m": 2, "tile_n": 16},
    {"address_bits": 64, "tile_m": 12, "tile_n": 2},
    {"address_bits": 33, "tile_m": 64, "tile_n": 24},
]
MOST_STRIDE = (1 << 32) - 4


def component(p: dict[str, Any]) -> OutputRows:
    return OutputRows(**p)


class Bench:
    """Y of shape (m, n) at ``address``; strides and addresses are multiples of 4."""

    def __init__(
        self, dut: Any, m: int, n: int, address: int, stride: int, *, stall: float = 0.0
    ) -> None:  # fmt: skip
        p = parameters()
        self.dut, self.space = dut, 1 << p["address_bits"]
        self.inputs = {"m": m, "n": n, "address": address, "stride": stride}
        self.rows = Sink(dut, "rows", component(p).rows.payload.shape(), stall=stall)
        self.expected = [
            {
                "address": address + i * stride + 4 * first,
                "columns": min(p["tile_n"], n - first),
                "first_of_tile": int(i % p["tile_m"] == 0),
            }
            for top in range(0, m, p["tile_m"])
            for first in range(0, n, p["tile_n"])
            for i in range(top, min(top + p["tile_m"], m))
        ]

    async def begin(self) -> None:
        await FallingEdge(self.dut.clk)
        for name, value in self.inputs.items():
            getattr(self.dut, name).value = value
        self.dut.start.value = 1
        await FallingEdge(self.dut.clk)
        self.dut.start.value = 0

    async def finish(self, limit: int = 5_000) -> None:
        """All rows that lie in the space are right, and the first that does not has the bit above it.

        What follows that one does not count: the machine has failed.
        """
        await quiet(self.dut, self.rows, expected=[len(self.expected)], limit=1 + limit, after=5)
        past = [row["address"] >= self.space for row in self.expected]
        good = past.index(True) if True in past else len(past)
        received = self.rows.received
        assert received[:good] == self.expected[:good]
        if good < len(past):
            assert received[good]["address"] >= self.space
        fields = ("columns", "first_of_tile")
        for row, expected in zip(received, self.expected, strict=True):
            assert [row[name] for name in fields] == [expected[name] for name in fields]
        self.rows.stop()
        await reset(self.dut)


def shapes() -> list[tuple[int, int]]:
    """(m, n) of one to four tiles each way; the last of them is full or has few rows or columns."""
    p = parameters()
    tile_m, tile_n = p["tile_m"], p["tile_n"]
    return [
        (1, 1), (tile_m, tile_n), (tile_m - 1, tile_n - 1), (tile_m + 1, tile_n + 1), (1, 4 * tile_n),
        (2 * tile_m, 2 * tile_n - 1), (4 * tile_m, 1), (4 * tile_m - 1, 3 * tile_n), (3, 2 * tile_n + 1),
        (2 * tile_m + 1, 4 * tile_n - 1),
    ]  # fmt: skip


def strides(n: int, rng: random.Random) -> list[int]:
    """Rows without a gap, with a small and with any; rows that overlap are no matter here either."""
    return [4 * n, 4 * n + 4 * rng.randint(1, 40), 4 * rng.randrange(1 << 30)]


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(stall=STALLS)
async def gives_every_row(dut: Any, stall: float) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {stall}")
    space = 1 << parameters()["address_bits"]
    for m, n in shapes():
        for stride in strides(n, rng):
            size = (m - 1) * stride + 4 * n
            # A layer that may be too large for the space has a small address; some of its rows lie past it.
            address = 4 * rng.randrange(max(space - size, 1 << 20) // 4)
            bench = Bench(dut, m, n, address, stride, stall=stall)
            await bench.begin()
            await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def marks_rows_past_the_space(dut: Any) -> None:
    """Every distance of Y's end from the end of the space, so that any row may be the first past it."""
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    space = 1 << parameters()["address_bits"]
    for m, n in shapes():
        for stride in (*strides(n, rng)[:2], MOST_STRIDE):
            size = (m - 1) * stride + 4 * n
            for past in (0, 4, 4 * n, stride, rng.randrange(0, size, 4), size - 4):
                address = space - size + past
                if 0 <= address < space:
                    bench = Bench(dut, m, n, address, stride)
                    await bench.begin()
                    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def gives_a_row_a_cycle(dut: Any) -> None:
    """The first one in the cycle after the start."""
    await start(dut, component(parameters()))
    p = parameters()
    bench = Bench(dut, 2 * p["tile_m"] + 1, 3 * p["tile_n"] - 1, 64, 1024)
    await bench.begin()
    await ReadOnly()
    assert dut.rows__valid.value == 1
    await ClockCycles(dut.clk, len(bench.expected) - 1)
    await bench.finish(limit=1)


@cocotb.test(timeout_time=500, timeout_unit="us")
async def waits_for_the_start(dut: Any) -> None:
    await start(dut, component(parameters()), m=3, n=3, address=16, stride=12)
    bench = Bench(dut, 3, 3, 16, 12)
    await ClockCycles(dut.clk, 20)
    assert not bench.rows.received
    await bench.begin()
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def starts_again_after_a_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    p = parameters()
    m, n = 2 * p["tile_m"] + 1, 2 * p["tile_n"] + 1
    for stall in (0.0, 0.2, 0.5, 0.8, 0.9, 1.0):
        bench = Bench(dut, m, n, 4096, 8 * n, stall=stall)
        await bench.begin()
        await ClockCycles(dut.clk, rng.randrange(1, 3 * p["tile_m"]))
        bench.rows.stop()
        await reset(dut)
        bench = Bench(dut, m, n, 256, 4 * n, stall=0.2)
        await bench.begin()
        await bench.finish()
