"""Bench of hw/output_rows.py: the address of every row and stored tile, in all dataflows."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly

from sliceforge.hw.output_rows import OutputRows
from sliceforge.hw.tile_nest import TileNest
from sliceforge.verif.psum_layers import DATAFLOWS, Layer, output_rows, some_layer
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import Sink, quiet, reset, start, to_int

CASES = [
    {
        "bus_bits": 64, "address_bits": 32, "tile_m": 8, "tile_n": 8, "k_bits": 6, "full_words": 64,
        "narrow_words": 16,
    },
    {
        "bus_bits": 512, "address_bits": 40, "tile_m": 2, "tile_n": 6, "k_bits": 11, "full_words": 12,
        "narrow_words": 6,
    },
    {
        "bus_bits": 32, "address_bits": 64, "tile_m": 3, "tile_n": 2, "k_bits": 6, "full_words": 6,
        "narrow_words": 3,
    },
]  # fmt: skip
MOST_STRIDE = (1 << 32) - 4


def component(p: dict[str, Any]) -> OutputRows:
    return OutputRows(**p)


class Bench:
    """Y at ``address``, its rows ``stride`` bytes apart; partial sums at ``psums``, or None: resident."""

    def __init__(
        self,
        dut: Any,
        layer: Layer,
        address: int,
        stride: int,
        *,
        psums: int | None = 0,
        results: bool = True,
        stall: float = 0.0,
    ) -> None:
        p = parameters()
        block = component(p)
        self.dut, self.space = dut, 1 << p["address_bits"]
        self.inputs = {
            "loops": to_int(block.loops.shape(), layer.loops()),
            "psum_group": layer.group,
            "psum_address": psums or 0,
            "psums_resident": int(psums is None),
            "results_stored": int(results),
            "address": address,
            "stride": stride,
        }
        self.rows = Sink(dut, "rows", block.rows.payload.shape(), stall=stall)
        self.expected = [
            {name: row[name] for name in ("address", "words", "first_of_tile", "is_psum")}
            for row in output_rows(layer, p, address if results else None, stride, psums)
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
        await quiet(self.dut, self.rows, expected=[len(self.expected)], limit=1 + limit, after=20)
        past = [row["address"] >= self.space for row in self.expected]
        good = past.index(True) if True in past else len(past)
        received = self.rows.received
        assert received[:good] == self.expected[:good]
        if good < len(past):
            assert received[good]["address"] >= self.space
        fields = ("words", "first_of_tile", "is_psum")
        for row, expected in zip(received, self.expected, strict=True):
            assert [row[name] for name in fields] == [expected[name] for name in fields]
        self.rows.stop()
        await reset(self.dut)


def strides(n: int, rng: random.Random) -> list[int]:
    """Rows without a gap, with a small and with any; rows that overlap are no matter here either."""
    return [4 * n, 4 * n + 4 * rng.randint(1, 40), 4 * rng.randrange(1 << 30)]


def some_place(rng: random.Random) -> int:
    """A beat of the bus that partial sums may begin with."""
    p = parameters()
    return rng.randrange(0, (1 << p["address_bits"]) - (1 << 20), p["bus_bits"] // 8)


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(dataflow=DATAFLOWS, group=[0, 1, 2, 3, 4])
async def gives_every_row(dut: Any, dataflow: str, group: int) -> None:
    """Partial sums stored or resident, results stored or not."""
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {dataflow} {group}")
    space = 1 << parameters()["address_bits"]
    for stall, psums, results in (
        (0.0, True, True),
        (0.2, False, True),
        (0.8, True, False),
        (0.5, True, True),
    ):
        layer = some_layer(rng, parameters(), dataflow, group)
        stride = rng.choice(strides(layer.n, rng))
        # A layer that may be too large for the space has a small address; some of its rows lie past it.
        size = (layer.m - 1) * stride + 4 * layer.n
        address = 4 * rng.randrange(max(space - size, 1 << 20) // 4)
        place = some_place(rng) if psums else None
        bench = Bench(dut, layer, address, stride, psums=place, results=results, stall=stall)
        await bench.begin()
        await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(dataflow=DATAFLOWS)
async def marks_rows_past_the_space(dut: Any, dataflow: str) -> None:
    """Y's end at some distances from the end of the space, so that any row may be the first past it."""
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {dataflow}")
    space = 1 << parameters()["address_bits"]
    for stride_of in range(3):
        layer = some_layer(rng, parameters(), dataflow, 2)
        n = layer.n
        stride = (*strides(n, rng)[:2], MOST_STRIDE)[stride_of]
        size = (layer.m - 1) * stride + 4 * n
        for past in (0, 4, 4 * n, stride, rng.randrange(0, size, 4), size - 4):
            address = space - size + past
            if 0 <= address < space:
                bench = Bench(dut, layer, address, stride, psums=None)
                await bench.begin()
                await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(group=[0, 1, 4])
async def marks_partial_sums_past_the_space(dut: Any, group: int) -> None:
    await start(dut, component(parameters()))
    rng, p = random.Random(f"{cocotb.RANDOM_SEED} {group}"), parameters()
    for dataflow in DATAFLOWS:
        layer = some_layer(rng, p, dataflow, group, steps=6)
        beat = p["bus_bits"] // 8
        bench = Bench(dut, layer, 0, 4, psums=(1 << p["address_bits"]) - beat * rng.randint(1, 20))
        await bench.begin()
        await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(stored=[False, True])
async def gives_a_row_a_cycle(dut: Any, stored: bool) -> None:
    """Of a tile; one without rows takes as long as one with a single row or span."""
    await start(dut, component(parameters()))
    p = parameters()
    layer = some_layer(random.Random(cocotb.RANDOM_SEED), p, "WEIGHT_STATIONARY", 2, steps=3)
    bench = Bench(dut, layer, 64, 1024, psums=0 if stored else None)
    settles = TileNest.SETTLES + 1
    begins, wanted = 1 + settles, []
    for tile in layer.tiles():
        rows = tile.rows if tile.last_chunk else 1
        if tile.last_chunk or stored:
            wanted += range(begins, begins + rows)
        begins += max(rows + 1, settles)
    await bench.begin()
    moments: list[int] = []
    for cycle in range(1, wanted[-1] + 1):  # after the start
        await ReadOnly()
        if dut.rows__valid.value == 1:
            moments.append(cycle)
        await FallingEdge(dut.clk)
    assert moments == wanted
    await bench.finish(limit=1)


@cocotb.test(timeout_time=500, timeout_unit="us")
async def waits_for_the_start(dut: Any) -> None:
    await start(dut, component(parameters()), address=16, stride=12, results_stored=1)
    layer = some_layer(random.Random(cocotb.RANDOM_SEED), parameters(), "OUTPUT_STATIONARY", 0)
    bench = Bench(dut, layer, 16, 12)
    dut.loops.value = bench.inputs["loops"]
    await ClockCycles(dut.clk, 20)
    assert not bench.rows.received
    await bench.begin()
    await bench.finish()


@cocotb.test(timeout_time=500, timeout_unit="us")
async def starts_again_after_a_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    for stall in (0.0, 0.2, 0.5, 0.8, 0.9, 1.0):
        layer = some_layer(rng, parameters(), rng.choice(DATAFLOWS), 3, steps=4)
        bench = Bench(dut, layer, 4096, 8 * layer.n, stall=stall)
        await bench.begin()
        await ClockCycles(dut.clk, rng.randrange(1, 30))
        bench.rows.stop()
        await reset(dut)
        bench = Bench(dut, layer, 256, 4 * layer.n, stall=0.2)
        await bench.begin()
        await bench.finish()
