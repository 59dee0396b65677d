"""Bench of hw/tile_controller.py: every tile of many layers against a plainly written loop nest."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly

from sliceforge.hw.payloads import output_tile_layout, tile_layout
from sliceforge.hw.tile_controller import TileController
from sliceforge.verif.simulation import parameters
from sliceforge.verif.streams import STALLS, reset, start, to_fields

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
        "activation_memory": {"slots": 102, "slot_granules": 20, "address_bits": 11},
    },
]  # fmt: skip

RESIDENCY = [(0, 0), (0, 1), (1, 0), (1, 1)]


def component(p: dict[str, Any]) -> TileController:
    return TileController(**p)


class Layer:
    """The tiles of a layer in order, and after how many of them a resident operand overflows its memory."""

    def __init__(self, m: int, n: int, k: int, weights_resident: int, activations_resident: int) -> None:
        self.inputs = {
            "m": m, "n": n, "k": k,
            "weights_resident": weights_resident, "activations_resident": activations_resident,
        }  # fmt: skip
        p = parameters()
        w, x = p["weight_memory"], p["activation_memory"]
        rows, columns, depth = (self.cut(d, p[f"tile_{name}"]) for d, name in ((m, "m"), (n, "n"), (k, "k")))
        self.weights: list[dict[str, int]] = []
        self.activations: list[dict[str, int]] = []
        self.outputs: list[dict[str, int] | None] = []
        weight_images = activation_images = 0
        for i, row_count in enumerate(rows):
            for j, column_count in enumerate(columns):
                for t, length in enumerate(depth):
                    image = i * len(depth) + t if weights_resident else weight_images
                    first, final = (
                        j == 0 or not weights_resident,
                        j == len(columns) - 1 or not weights_resident,
                    )
                    last = int(t == len(depth) - 1)
                    self.weights.append({
                        "base": image % w["slots"] * w["slot_granules"], "length": length, "last": last,
                        "fresh": int(first), "release": int(final),
                    })  # fmt: skip
                    weight_images += first

                    image = j * len(depth) + t if activations_resident else activation_images
                    first, final = (
                        i == 0 or not activations_resident,
                        i == len(rows) - 1 or not activations_resident,
                    )
                    self.activations.append({
                        "base": image % x["slots"] * x["slot_granules"], "length": length, "last": last,
                        "fresh": int(first), "release": int(final),
                    })  # fmt: skip
                    activation_images += first

                    last_column = j == len(columns) - 1
                    self.outputs.append({
                        "rows": row_count, "columns": column_count, "last_column": int(last_column),
                        "last": int(last_column and i == len(rows) - 1),
                    } if last else None)  # fmt: skip
        # The window that is to stay: a row of tiles of W, or all of X.
        self.weight_limit = w["slots"] if weights_resident and len(depth) > w["slots"] else None
        activation_window = len(depth) * len(columns)
        fits = activation_window <= x["slots"]
        self.activation_limit = x["slots"] if activations_resident and not fits else None

    @staticmethod
    def cut(total: int, step: int) -> list[int]:
        return [min(step, total - start) for start in range(0, total, step)]

    @property
    def count(self) -> int:
        """k-tiles that are issued."""
        limits = [x for x in (self.weight_limit, self.activation_limit) if x is not None]
        return min([len(self.weights), *limits])

    @property
    def overflow(self) -> tuple[bool, bool]:
        return self.weight_limit == self.count, self.activation_limit == self.count


async def run(dut: Any, layer: Layer, stall: float, rng: random.Random, stop_at: int | None = None) -> None:
    """Plays ``layer``, or the first ``stop_at`` k-tiles: each as soon as all that take part are ready."""
    p = parameters()
    weight, activation = (
        tile_layout(p["tile_k"], p[f"{name}_memory"]["address_bits"]) for name in ("weight", "activation")
    )
    output = output_tile_layout(p["tile_m"], p["tile_n"])
    for name, value in layer.inputs.items():
        getattr(dut, name).value = value
    count = layer.count if stop_at is None else min(stop_at, layer.count)
    issued = waited = 0
    while issued < count or (waited < 30 and stop_at is None):
        runs = bool(issued) or rng.random() < 0.5  # the layer starts some time
        ready = [rng.random() >= stall for _ in range(3)]
        dut.run.value = int(runs)
        dut.weight_tiles__ready.value, dut.activation_tiles__ready.value = int(ready[0]), int(ready[1])
        dut.output_tiles__ready.value = int(ready[2])
        await ReadOnly()
        wanted = layer.outputs[issued] if issued < layer.count else None
        issues = runs and issued < layer.count and all(ready[: 3 if wanted else 2])
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
        assert flags == (layer.overflow if done else (False, False)), f"k-tile {issued}"
        issued += issues
        waited += done
        await FallingEdge(dut.clk)
    dut.run.value = 0


def size(rng: random.Random, tile: int, tiles: int) -> int:
    """So many tiles; the last one is full or nearly, or has one position."""
    return (tiles - 1) * tile + rng.choice([1, tile - 1, tile, rng.randint(1, tile)])


def random_layer(rng: random.Random, weights_resident: int, activations_resident: int) -> Layer:
    """Up to 5 x 5 x 8 tiles; windows that are to stay fit, often exactly."""
    p = parameters()
    rows, columns, depth = rng.randint(1, 5), rng.randint(1, 5), rng.randint(1, 8)
    if weights_resident:
        depth = min(depth, p["weight_memory"]["slots"])
    if activations_resident:
        depth = min(depth, p["activation_memory"]["slots"])
        columns = min(columns, p["activation_memory"]["slots"] // depth)
    shape = (size(rng, p[f"tile_{d}"], t) for d, t in (("m", rows), ("n", columns), ("k", depth)))
    return Layer(*shape, weights_resident, activations_resident)


@cocotb.test()
@cocotb.parametrize(stall=STALLS, residency=RESIDENCY)
async def walks_the_loop_nest(dut: Any, stall: float, residency: tuple[int, int]) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(f"{cocotb.RANDOM_SEED} {stall} {residency}")
    for _ in range(12):
        layer = random_layer(rng, *residency)
        assert not any(layer.overflow) and layer.count == len(layer.weights)
        await run(dut, layer, stall, rng)
        await reset(dut)


@cocotb.test()
@cocotb.parametrize(residency=RESIDENCY[1:], excess=[0, 1, 5])
async def stops_when_a_window_does_not_fit(dut: Any, residency: tuple[int, int], excess: int) -> None:
    """Nothing is issued beyond the slots, and the flag of the right operand stays; an exact fit is legal."""
    await start(dut, component(parameters()))
    p = parameters()
    rng = random.Random(f"{cocotb.RANDOM_SEED} {residency} {excess}")
    slots = [p[f"{name}_memory"]["slots"] for name in ("weight", "activation")]
    for rows in (1, 2):
        for columns in (1, 2):
            fitting = min(s for s, resident in zip(slots, residency, strict=True) if resident)
            if residency[1]:
                depth = -(-(slots[1] + excess) // columns) if excess else max(1, fitting // columns)
            else:
                depth = fitting + excess
            k = size(rng, p["tile_k"], depth)
            layer = Layer(rows * p["tile_m"], columns * p["tile_n"], k, *residency)
            assert any(layer.overflow) == bool(excess)
            await run(dut, layer, 0.2, rng)
            await reset(dut)


@cocotb.test()
async def forgets_a_layer_at_reset(dut: Any) -> None:
    await start(dut, component(parameters()))
    rng = random.Random(cocotb.RANDOM_SEED)
    for _ in range(20):
        layer = random_layer(rng, rng.getrandbits(1), rng.getrandbits(1))
        await run(dut, layer, 0.2, rng, stop_at=rng.randint(1, layer.count))
        await reset(dut)
    await run(dut, random_layer(rng, 1, 1), 0.2, rng)
