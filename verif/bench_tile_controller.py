"""Bench of hw/tile_controller.py: every tile of layers of each dataflow, what stays, overflow."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly

from sliceforge.gen.dataflow import Dataflow
from sliceforge.hw.payloads import nest_layout, output_tile_layout, tile_layout
from sliceforge.hw.tile_controller import TileController
from sliceforge.hw.tile_nest import TileNest
from sliceforge.verif.loop_nest import Nest, Operand, random_nest, shared_operand
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, reset, start, to_fields, to_int

CASES = [
    {
        "tile_m": 8, "tile_n": 8, "tile_k": 16, "k_bits": 8,
        "weight_memory": {"slots": 3, "slot_granules": 11, "address_bits": 6},
        "activation_memory": {"slots": 5, "slot_granules": 11, "address_bits": 6},
    },
    {
        "tile_m": 10, "tile_n": 2, "tile_k": 4, "k_bits": 13,
        "weight_memory": {"slots": 2, "slot_granules": 6, "address_bits": 4},
        "activation_memory": {"slots": 8, "slot_granules": 4, "address_bits": 5},
    },
    {
        "tile_m": 64, "tile_n": 48, "tile_k": 64, "k_bits": 13,
        "weight_memory": {"slots": 7, "slot_granules": 39, "address_bits": 9},
        "activation_memory": {"slots": 18, "slot_granules": 20, "address_bits": 9},
    },
]  # fmt: skip


def component(p: dict[str, Any]) -> TileController:
    return TileController(**p)


class Layer:
    """The tiles of a layer in order, and after how many of them a resident operand overflows its memory."""

    def __init__(self, nest: Nest, weights_resident: int, activations_resident: int, share: int) -> None:
        self.nest = nest
        self.inputs = {
            "loops": to_int(nest_layout(), nest.loops), "weights_resident": weights_resident,
            "activations_resident": activations_resident, "blocks_share": share,
        }  # fmt: skip
        p = parameters()
        shared = nest.dataflow if share else None
        weights = Operand(nest, "column", bool(weights_resident), shared == Dataflow.WEIGHT_STATIONARY)
        activations = Operand(nest, "row", bool(activations_resident), shared == Dataflow.INPUT_STATIONARY)
        self.legal = all(operand.resident or not operand.share for operand in (weights, activations))
        self.weights, self.weight_limit, weight_room = self.tiles(weights, p["weight_memory"])
        self.activations, self.activation_limit, activation_room = self.tiles(
            activations, p["activation_memory"]
        )
        self.room = min(weight_room, activation_room)  # slots that are left; below 0: it does not fit

        frees_rows = {id(step) for _, _, step in nest.row_order()}
        chunk_ends, ends = nest.ends_before("chunk"), nest.ends()
        self.outputs = [
            {
                "rows": nest.rows[step.at["row"]], "columns": nest.columns[step.at["column"]],
                "first_chunk": int(step.first("chunk")), "last_chunk": int(step.last("chunk")),
                "chunk_ends": int(chunk_ends[i]), "frees_rows": int(id(step) in frees_rows),
                "last": int(ends[i]),
            } if step.last("k_tile") else None
            for i, step in enumerate(nest.steps)
        ]  # fmt: skip

    def tiles(self, operand: Operand, memory: dict[str, int]) -> tuple[list[dict[str, int]], int | None, int]:
        """Tiles in order; how many come before one for which there is no slot; slots that are left."""
        slots, granules = memory["slots"], memory["slot_granules"]
        tiles = [
            {
                "base": operand.images[i] % slots * granules, "length": self.nest.length(step),
                "last": int(step.last("k_tile")),
                "fresh": int(operand.fresh[i]), "release": int(operand.released[i]),
            }
            for i, step in enumerate(self.nest.steps)
        ]  # fmt: skip
        limit = next((i for i, count in enumerate(operand.stays) if count > slots), None)
        return tiles, limit, slots - max(operand.stays)

    @property
    def count(self) -> int:
        """k-tiles that are issued."""
        limits = [x for x in (self.weight_limit, self.activation_limit) if x is not None]
        return min([len(self.weights), *limits])

    @property
    def overflow(self) -> tuple[bool, bool]:
        return self.weight_limit == self.count, self.activation_limit == self.count


async def run(dut: Any, layer: Layer, stall: float, rng: random.Random, stop_at: int | None = None) -> None:
    """Plays ``layer``, or the first ``stop_at`` k-tiles: each as soon as it stands and all that take part are
    ready."""
    p = parameters()
    weight, activation = (
        tile_layout(p["tile_k"], p[f"{name}_memory"]["address_bits"]) for name in ("weight", "activation")
    )
    output = output_tile_layout(p["tile_m"], p["tile_n"])
    for name, value in layer.inputs.items():
        getattr(dut, name).value = value
    count = layer.count if stop_at is None else min(stop_at, layer.count)
    issued = waited = cycle = 0
    settles = TileNest.SETTLES + 1
    runs, stands = False, 0  # the cycle from which on the next k-tile stands
    while issued < count or (waited < 30 and stop_at is None):
        if not runs and rng.random() < 0.5:  # the layer starts some time
            runs, stands = True, cycle + settles
        here = runs and cycle >= stands
        ready = [rng.random() >= stall for _ in range(3)]
        dut.run.value = int(runs)
        dut.weight_tiles__ready.value, dut.activation_tiles__ready.value = int(ready[0]), int(ready[1])
        dut.output_tiles__ready.value = int(ready[2])
        await ReadOnly()
        wanted = layer.outputs[issued] if issued < layer.count else None
        issues = here and issued < layer.count and all(ready[: 3 if wanted else 2])
        assert dut.weight_tiles__valid.value == int(issues), f"k-tile {issued}"
        assert dut.activation_tiles__valid.value == int(issues), f"k-tile {issued}"
        assert dut.output_tiles__valid.value == int(issues and wanted is not None), f"k-tile {issued}"
        if issues:
            seen = to_fields(weight, int(dut.weight_tiles__payload.value))
            assert seen | {"fresh": int(dut.weight_fresh.value)} == layer.weights[issued], f"k-tile {issued}"
            seen = to_fields(activation, int(dut.activation_tiles__payload.value))
            assert seen | {"fresh": int(dut.activation_fresh.value)} == layer.activations[issued], f"{issued}"
            if wanted is not None:
                assert to_fields(output, int(dut.output_tiles__payload.value)) == wanted
        done = issued == layer.count
        flags = (dut.weight_overflow.value == 1, dut.activation_overflow.value == 1)
        assert flags == (layer.overflow if done and here else (False, False)), f"k-tile {issued}"
        if issues:
            stands = max(cycle + 2, stands + settles)
        cycle += 1
        issued += issues
        waited += done
        await FallingEdge(dut.clk)
    dut.run.value = 0


def random_layers(rng: random.Random, dataflow: Dataflow) -> Iterator[Layer]:
    """Of up to 4 x 4 tiles, 3 chunks, 3 k-tiles; each choice of what is resident, and shared by blocks."""
    p = parameters()
    while True:
        nest = random_nest(rng, dataflow, (p["tile_m"], p["tile_n"], p["tile_k"]))
        layer = Layer(nest, rng.getrandbits(1), rng.getrandbits(1), rng.getrandbits(1))
        if layer.legal:
            yield layer


@cocotb.test()
@cocotb.parametrize(dataflow=list(Dataflow))
async def walks_the_loop_nest(dut: Any, dataflow: Dataflow) -> None:
    """Layers that fit, every other one exactly or nearly."""
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {dataflow}")
    fitting = (layer for layer in random_layers(rng, dataflow) if layer.room >= 0)
    for i in range(24):
        layer = min(islice(fitting, 1 + 9 * (i % 2)), key=lambda layer: layer.room)
        assert not any(layer.overflow) and layer.count == len(layer.weights)
        await run(dut, layer, STALLS[i % 3], rng)
        await reset(dut)


@cocotb.test()
@cocotb.parametrize(reuse=["column", "row"])
async def keeps_what_blocks_share(dut: Any, reuse: str) -> None:
    await start(dut, component(parameters()))
    p, rng = parameters(), random.Random(f"{cocotb.RANDOM_SEED} {reuse}")
    slots = p[f"{'weight' if reuse == 'column' else 'activation'}_memory"]["slots"]
    for _ in range(8):
        operand = shared_operand(rng, (p["tile_m"], p["tile_n"], p["tile_k"]), reuse, slots)
        await run(dut, Layer(operand.nest, reuse == "column", reuse == "row", 1), 0.2, rng)
        await reset(dut)


@cocotb.test()
@cocotb.parametrize(dataflow=list(Dataflow))
async def stops_when_what_stays_does_not_fit(dut: Any, dataflow: Dataflow) -> None:
    """Nothing is issued beyond the slots, and the flag of the right operand stays."""
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {dataflow}")
    for i in range(12):
        layers = islice((layer for layer in random_layers(rng, dataflow) if layer.room < 0), 1 + 9 * (i % 2))
        layer = max(layers, key=lambda layer: layer.room)
        assert any(layer.overflow)
        await run(dut, layer, 0.2, rng)
        await reset(dut)


@cocotb.test()
async def forgets_a_layer_at_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    for _ in range(20):
        layer = next(random_layers(rng, rng.choice(list(Dataflow))))
        await run(dut, layer, 0.2, rng, stop_at=rng.randint(1, layer.count))
        await reset(dut)
    layer = next(layer for layer in random_layers(rng, Dataflow.WEIGHT_STATIONARY) if layer.room >= 0)
    await run(dut, layer, 0.2, rng)
