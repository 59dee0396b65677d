"""Bench of hw/tile_nest.py: k-tiles of random layers of each dataflow, whole or in part; rows of tiles."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly

from sliceforge.gen.dataflow import Dataflow
from sliceforge.hw.payloads import nest_layout
from sliceforge.hw.tile_nest import RowNest, TileNest
from sliceforge.verif.loop_nest import Nest, random_nest
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import reset, start, to_fields, to_int

CASES = [
    {"tile_m": 8, "tile_n": 8, "tile_k": 16, "k_bits": 8},
    {"tile_m": 10, "tile_n": 2, "tile_k": 1, "k_bits": 9},
    {"tile_m": 8, "tile_n": 6, "k_bits": 8},  # a RowNest
]

LOOPS = {"rows": "row", "columns": "column", "chunks": "chunk", "positions": "k_tile", "blocks": "block"}
ENDS = {"rows_end": "row", "columns_end": "column", "chunk_ends": "chunk", "block_ends": "block"}
ONCE = {"once_rows": "row", "once_columns": "column", "once_blocks": "block"}

Values = dict[str, dict[str, int]]


def component(p: dict[str, Any]) -> TileNest | RowNest:
    return TileNest(**p) if "tile_k" in p else RowNest(**p)


def expected_steps(nest: Nest) -> list[Values]:
    """What the ports say at each k-tile. Lengths of tiles are looked at where no loop is cut short."""
    steps: list[Values] = []
    for step in nest.steps:
        values = {name: {"first": step.first(loop), "last": step.last(loop)} for name, loop in LOOPS.items()}
        values["chunks"]["length"] = sum(nest.chunks[step.at["chunk"]])
        if not nest.whole_chunks:
            values["positions"]["length"] = nest.length(step)
        if not nest.once:
            values["rows"]["length"] = nest.rows[step.at["row"]]
            values["columns"]["length"] = nest.columns[step.at["column"]]
            if nest.dataflow == Dataflow.WEIGHT_STATIONARY:
                values["blocks"]["length"] = sum(nest.columns[j] for j in step.ranges["column"])
            if nest.dataflow == Dataflow.INPUT_STATIONARY:
                values["blocks"]["length"] = sum(nest.rows[i] for i in step.ranges["row"])
        steps.append(values)
    ends = {name: nest.ends_before(loop) for name, loop in ENDS.items()}
    ends["tile_ends"] = nest.ends("block", "row", "column", "chunk")
    for i, values in enumerate(steps):
        values["ends"] = {"": i == len(steps) - 1}
        values.update({name: {"": flags[i]} for name, flags in ends.items()})
    return steps


def expected_rows(nest: Nest) -> list[Values]:
    """The same of a `RowNest`."""
    steps: list[Values] = []
    order = nest.row_order()
    for i, (rows, columns, step) in enumerate(order):
        values = {
            name: {"first": step.first(loop), "last": step.last(loop)}
            for name, loop in (("rows", "row"), ("columns", "column"))
        }
        values["rows"]["length"] = rows
        values["columns"]["length"] = columns
        if nest.dataflow != Dataflow.INPUT_STATIONARY:
            del values["columns"]  # has one iteration
        steps.append(values | {"ends": {"": i == len(order) - 1}})
    return steps


async def walk(dut: Any, nest: Nest, rng: random.Random, *, count: int | None = None) -> None:
    """The first ``count`` k-tiles, or all of them twice: after the last one comes the first again.

    The outputs stand when they are valid, and each k-tile is valid as early as the block says.
    """
    block = component(parameters())
    dut.loops.value = to_int(nest_layout(), nest.loops)
    for _ in range(rng.choice([0, 1, 9])):
        await FallingEdge(dut.clk)
        assert dut.valid.value == 0
    dut.run.value = 1
    late = TileNest.SETTLES + 1  # cycles until the next k-tile is valid
    steps = expected_steps(nest) if isinstance(block, TileNest) else expected_rows(nest)
    for i, values in enumerate((2 * steps)[:count]):
        for _ in range(late):
            assert dut.valid.value == 0
            await FallingEdge(dut.clk)
        waits = rng.choice([0, 0, 0, 1, 3, 9])
        late = max(1, TileNest.SETTLES - waits)
        for cycle in range(waits + 1):
            dut.next.value = int(cycle == waits)
            await ReadOnly()
            assert dut.valid.value == 1
            for name, wanted in values.items():
                bits = int(getattr(dut, name).value)
                fields = to_fields(getattr(block, name).shape(), bits) if "" not in wanted else {"": bits}
                seen = {field: fields[field] for field in wanted}
                assert seen == wanted, f"{name} at {i} of {len(steps)} of {nest}"
            await FallingEdge(dut.clk)
        dut.next.value = 0
    dut.run.value = 0
    await FallingEdge(dut.clk)
    assert dut.valid.value == 0


def random_layer(rng: random.Random, dataflow: Dataflow, **options: Any) -> Nest:
    p = parameters()
    tile = (p["tile_m"], p["tile_n"], p.get("tile_k", 1))
    return random_nest(rng, dataflow, tile, most=(4, 4, 3, 3), **options)


@cocotb.test()
@cocotb.parametrize(dataflow=list(Dataflow))
async def walks_layers(dut: Any, dataflow: Dataflow) -> None:
    await start(dut, component(parameters()), run=0)
    rng = random.Random(f"{cocotb.RANDOM_SEED} {dataflow}")
    for _ in range(15):
        await walk(dut, random_layer(rng, dataflow), rng)
        await reset(dut)


@cocotb.test()
@cocotb.parametrize(dataflow=list(Dataflow))
async def walks_parts(dut: Any, dataflow: Dataflow) -> None:
    """Each choice of loops that have their first tile only, with and without whole chunks."""
    block = component(parameters())
    await start(dut, block, run=0)
    if isinstance(block, RowNest):
        return
    rng = random.Random(f"{cocotb.RANDOM_SEED} {dataflow}")
    for choice in range(16):
        nest = random_layer(rng, dataflow)
        inputs = [name for i, name in enumerate(ONCE) if choice >> i & 1]
        for name in ONCE:
            getattr(dut, name).value = int(name in inputs)
        dut.whole_chunks.value = choice >> 3
        once = tuple(ONCE[name] for name in inputs)
        await walk(dut, replace(nest, once=once, whole_chunks=bool(choice >> 3)), rng)
        await reset(dut)


@cocotb.test()
async def reaches_the_largest_sizes(dut: Any) -> None:
    """K of k_bits, in one chunk; a block that is larger than its loop."""
    await start(dut, component(parameters()), run=0)
    p, rng = parameters(), random.Random(cocotb.RANDOM_SEED)
    k = (1 << p["k_bits"]) - 1
    for dataflow in Dataflow:
        nest = Nest(
            m=p["tile_m"] + 1, n=p["tile_n"], k=k, tile_m=p["tile_m"], tile_n=p["tile_n"], chunk=k,
            k_tile=p.get("tile_k", 1), dataflow=dataflow, block=(1 << 24) - 1,
        )  # fmt: skip
        await walk(dut, nest, rng)
        await reset(dut)


@cocotb.test()
async def starts_anew_at_reset(dut: Any) -> None:
    await start(dut, component(parameters()), run=0)
    rng = random.Random(cocotb.RANDOM_SEED)
    for _ in range(12):
        await walk(dut, random_layer(rng, rng.choice(list(Dataflow))), rng, count=rng.randint(1, 30))
        await reset(dut)
    await walk(dut, random_layer(rng, Dataflow.WEIGHT_STATIONARY), rng)
