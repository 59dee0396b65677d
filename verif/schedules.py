"""Orders of tiles for benches of blocks that walk them: `sim.schedule` of a machine that has only tiles."""

from __future__ import annotations

import random
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from sliceforge.gen.dataflow import Dataflow
from sliceforge.sim.schedule import Schedule

__all__ = ["DATAFLOWS", "finished_tiles", "loops", "schedule", "some_shape"]

DATAFLOWS = list(Dataflow)


def schedule(
    m: int,
    n: int,
    *,
    tile_m: int,
    tile_n: int,
    dataflow: Dataflow = Dataflow.OUTPUT_STATIONARY,
    block: int = 1,
) -> Schedule:
    """The schedule of an (m, n) layer without K-chunks."""
    config: Any = SimpleNamespace(tile_m=tile_m, tile_n=tile_n)
    return Schedule(config=config, m=m, k=1, n=n, chunk=1, k_tile=1, dataflow=dataflow, block=block)


def loops(order: Schedule, rng: random.Random) -> dict[str, Any]:
    """The fields of `nest_layout`; anything along K, which counts for nothing here."""
    return {
        "m": order.m, "n": order.n, "dataflow": order.dataflow.value, "block": order.block,
        "k": rng.randint(1, 255), "chunk": rng.randint(1, 255), "k_tile": rng.randint(1, 255),
    }  # fmt: skip


def finished_tiles(order: Schedule) -> list[tuple[int, int, bool]]:
    """(row of tiles, column of tiles, whether its rows' biases and scales are not needed again) in order.

    They are sent again for each block of columns, and, input stationary, for each column.
    """
    tiles = [(i, j) for i, j, _ in order.tiles()]
    sent = [(i, j // order.block) if order.weight_stationary else i for i, j in tiles]
    ends = [order.input_stationary or now != then for now, then in pairwise(sent)]
    return [(i, j, end) for (i, j), end in zip(tiles, [*ends, True], strict=True)]


def some_shape(rng: random.Random, tile_m: int, tile_n: int, most: int = 3) -> tuple[int, int]:
    """(m, n) of up to ``most`` tiles each way; the last are full, nearly, or have one row or column."""
    sides = []
    for tile in (tile_m, tile_n):
        sides.append((rng.randint(1, most) - 1) * tile + rng.choice([1, tile - 1 or 1, tile, tile]))
    return sides[0], sides[1]
