"""A layer in parts of rows and columns that fit a board's memory one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sliceforge.sim.driver import place
from sliceforge.sim.layer_image import LayerImage

__all__ = ["Pack", "Part", "split_layer"]

Pack = Callable[[slice, slice], LayerImage]
"""Packs the part of a layer with these rows of W and these columns of X."""


@dataclass(frozen=True, eq=False)
class Part:
    """``image`` gives ``Y[rows, columns]``, and moves ``traffic`` bytes to the memory and back."""

    rows: slice
    columns: slice
    image: LayerImage
    traffic: int


def split_layer(m: int, n: int, pack: Pack, *, base: int, memory_bytes: int) -> list[Part]:
    """The fewest halvings of a layer of M x N results, whole tiles each, after which each part fits
    ``memory_bytes`` bytes from ``base`` on. ValueError if one tile does not.
    """
    parts, pending = [], [(range(m), range(n))]
    while pending:
        rows, columns = pending.pop(0)
        part = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
        image = pack(*part)
        placement = place([image], base=base, memory_bytes=base)
        size = placement.end - base
        if size <= memory_bytes:
            parts.append(Part(*part, image, len(placement.data) + image.output_bytes))
            continue
        tile_m, tile_n = image.config.tile_m, image.config.tile_n
        halves = {"rows": _halves(rows, tile_m), "columns": _halves(columns, tile_n)}
        larger = "rows" if image.weights.nbytes >= image.activations.nbytes else "columns"
        side = larger if halves[larger] else next((name for name in halves if halves[name]), None)
        if side is None:
            raise ValueError(
                f"weights must have fewer columns for a memory of {memory_bytes:,} bytes: with "
                f"K = {image.schedule.k} a tile of results takes {size:,}"
            )
        if side == "rows":
            pending[:0] = [(half, columns) for half in halves[side]]
        else:
            pending[:0] = [(rows, half) for half in halves[side]]
    return parts


def _halves(side: range, tile: int) -> list[range]:
    """``side`` in two ranges of whole tiles; none if it is one tile."""
    if len(side) <= tile:
        return []
    middle = side.start + -(-len(side) // (2 * tile)) * tile
    return [range(side.start, middle), range(middle, side.stop)]
