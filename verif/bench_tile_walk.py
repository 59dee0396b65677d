"""Bench of hw/tile_walk.py: where each tile of random layers of each dataflow lies; reset."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly

from sliceforge.gen.dataflow import Dataflow
from sliceforge.hw.tile_walk import TileWalk
from sliceforge.verif.loop_nest import Nest, random_nest
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import reset, start

CASES = [
    {"row_bits": 33, "column_bits": 24},
    {"row_bits": 3, "column_bits": 65},
]


def component(p: dict[str, Any]) -> TileWalk:
    return TileWalk(**p)


def some_layer(rng: random.Random, dataflow: Dataflow) -> Nest:
    """Up to 5 tiles each way, in blocks of one up to more than there are."""
    nest = random_nest(rng, dataflow, (4, 4, 1), most=(5, 5, 1, 1), chunked=False)
    return replace(nest, k=1, chunk=1, k_tile=1)


def places(rng: random.Random, bits: int) -> list[int]:
    """Where rows or columns 0, 1, 2 .. are: anywhere, but none where the one before is."""
    found = [rng.getrandbits(bits)]
    while len(found) < 8:
        found.append((found[-1] + rng.randrange(1, 1 << bits)) % (1 << bits))
    return found


async def walk(dut: Any, nest: Nest, rng: random.Random, count: int | None = None) -> None:
    """The first ``count`` tiles of a layer, or all; with pauses, in which nothing moves."""
    rows, columns = places(rng, parameters()["row_bits"]), places(rng, parameters()["column_bits"])
    columns[0] = 0
    dut.dataflow.value, dut.first_row.value = nest.dataflow.value, rows[0]
    dut.start.value = 1
    await FallingEdge(dut.clk)
    dut.start.value = 0
    steps, ends = nest.steps, nest.ends_before("block")
    for number, (step, block_ends) in list(enumerate(zip(steps, ends, strict=True)))[:count]:
        row, column = step.at["row"], step.at["column"]
        dut.rows_last.value, dut.columns_last.value = step.last("row"), step.last("column")
        dut.block_ends.value = block_ends
        dut.next_row.value, dut.next_column.value = rows[row + 1], columns[column + 1]
        waits = rng.choice([0, 0, 0, 1, 3])
        for cycle in range(waits + 1):
            dut.next.value = int(cycle == waits)
            await ReadOnly()
            here = int(dut.row.value), int(dut.column.value)
            assert here == (rows[row], columns[column]), f"tile {number} of {len(steps)} of {nest}"
            if number + 1 < len(steps):
                following = rows[steps[number + 1].at["row"]]
                assert dut.following_row.value == following, f"after {number} of {len(steps)} of {nest}"
            await FallingEdge(dut.clk)
    dut.next.value = 0


@cocotb.test()
@cocotb.parametrize(dataflow=list(Dataflow))
async def finds_all_tiles(dut: Any, dataflow: Dataflow) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {dataflow}")
    for _ in range(40):
        await walk(dut, some_layer(rng, dataflow), rng)
        await reset(dut)


@cocotb.test()
async def starts_anew_at_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    for _ in range(20):
        await walk(dut, some_layer(rng, rng.choice(list(Dataflow))), rng, rng.randint(1, 20))
        await reset(dut)
    for dataflow in Dataflow:
        await walk(dut, some_layer(rng, dataflow), rng)
        await reset(dut)
