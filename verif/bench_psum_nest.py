"""Bench of hw/psum_nest.py: every tile of layers of all dataflows and group sizes, and its addresses."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge

from sliceforge.hw.psum_nest import PsumNest
from sliceforge.verif.psum_layers import DATAFLOWS, Layer, some_layer
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import reset, start, to_fields, to_int

# Stored tiles that fill beats of the bus, and that leave part of one.
CASES = [
    {
        "bus_bits": 64, "address_bits": 32, "tile_m": 4, "tile_n": 8, "k_bits": 6, "full_words": 32,
        "narrow_words": 8,
    },
    {
        "bus_bits": 512, "address_bits": 40, "tile_m": 2, "tile_n": 6, "k_bits": 11, "full_words": 12,
        "narrow_words": 6,
    },
]  # fmt: skip


def component(p: dict[str, Any]) -> PsumNest:
    return PsumNest(**p)


def some_address(rng: random.Random) -> int:
    """Of whole beats of the bus: both ends of the space, and between."""
    p = parameters()
    space, beat = 1 << p["address_bits"], p["bus_bits"] // 8
    return rng.choice([0, rng.randrange(0, space, beat), space - beat * rng.randint(1, 20)])


@cache
def layout(name: str) -> Any:
    return getattr(component(parameters()), name).shape()


def loop(dut: Any, name: str) -> dict[str, int]:
    return dict(to_fields(layout(name), int(getattr(dut, name).value)))


async def walk(dut: Any, layer: Layer, rng: random.Random, *, stop: int | None = None) -> None:
    """Twice, as the nest begins anew behind the last tile; or until tile ``stop``."""
    p, address = parameters(), some_address(rng)
    stride = layer.stride(p["narrow_words"] if layer.group else p["full_words"], p["bus_bits"])
    dut.loops.value = to_int(layout("loops"), layer.loops())
    dut.psum_group.value, dut.psum_address.value = layer.group, address
    dut.run.value = 1
    for tile in (2 * list(layer.tiles()))[:stop]:
        group_address = layer.group_address(tile, address, stride)
        chunk = min(layer.chunk, layer.k - tile.chunk * layer.chunk)
        while True:
            if not dut.valid.value:
                await FallingEdge(dut.clk)
                continue
            goes = rng.random() < 0.7
            dut.next.value = int(goes)
            assert loop(dut, "rows")["length"] == tile.rows
            assert loop(dut, "columns")["length"] == tile.columns
            assert loop(dut, "chunks") == {
                "length": chunk, "first": int(tile.first_chunk), "last": int(tile.last_chunk)
            }  # fmt: skip
            ends = (dut.chunk_ends.value, dut.block_ends.value, dut.ends.value)
            assert ends == (tile.chunk_ends, tile.block_ends, tile.last)
            assert dut.keeps.value == (not tile.last_chunk)
            assert int(dut.adds.value) == tile.adds
            assert int(dut.group_address.value) == group_address
            if not tile.last_chunk:
                assert int(dut.stored_address.value) == group_address + tile.position * stride
            await FallingEdge(dut.clk)
            dut.next.value = 0
            if goes:
                break
    dut.run.value = 0


@cocotb.test()
@cocotb.parametrize(dataflow=DATAFLOWS, group=[0, 1, 2, 3, 4])
async def walks_layers(dut: Any, dataflow: str, group: int) -> None:
    await start(dut, component(parameters()), run=0)
    rng = random.Random(f"{cocotb.RANDOM_SEED} {dataflow} {group}")
    for steps in {1, max(1, group), rng.choice([max(1, group - 1), group + 1, 7])}:
        await walk(dut, some_layer(rng, parameters(), dataflow, group, steps=steps), rng)
        await reset(dut)


@cocotb.test()
async def starts_again_after_a_reset(dut: Any) -> None:
    await start(dut, component(parameters()), run=0)
    rng = random.Random(cocotb.RANDOM_SEED)
    for dataflow in DATAFLOWS:
        for _ in range(3):
            layer = some_layer(rng, parameters(), dataflow, 3, steps=5)
            await walk(dut, layer, rng, stop=rng.randint(1, 8))
            await reset(dut)
            await walk(dut, layer, rng, stop=10)
            await reset(dut)
