"""The order of a layer's k-tiles, and what stays on chip: golden of the benches of all that walks it.

Written from the order of loops in docs/architecture.md as lists of plain indices; that a loop begins, ends or
comes again is found by looking at the list. Not `sliceforge.sim.schedule`: two descriptions of one order.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise, product
from typing import Any

from sliceforge.gen.dataflow import Dataflow
from sliceforge.hw.payloads import DIM_BITS, nest_layout
from sliceforge.verif.streams import to_int

__all__ = ["MOST_SPAN", "Nest", "Operand", "Step", "random_nest", "random_operand", "shared_operand"]

MOST_SPAN = (1 << DIM_BITS) - 1
"""No span."""

ORDER = {
    Dataflow.OUTPUT_STATIONARY: ("block", "row", "column", "chunk"),
    Dataflow.WEIGHT_STATIONARY: ("block", "row", "chunk", "column"),
    Dataflow.INPUT_STATIONARY: ("block", "column", "chunk", "row"),
}
"""Loops over tiles from the outermost on."""


def cut(total: int, step: int) -> list[int]:
    """Lengths of the tiles of ``total`` positions."""
    return [min(step, total - start) for start in range(0, total, step)]


@dataclass(frozen=True)
class Step:
    """A k-tile: its index in each loop, and the first and the last index that this loop takes around it."""

    at: dict[str, int]
    ranges: dict[str, range | list[int]] = field(compare=False)

    def first(self, loop: str) -> bool:
        return self.at[loop] == self.ranges[loop][0]

    def last(self, loop: str) -> bool:
        return self.at[loop] == self.ranges[loop][-1]


@dataclass(frozen=True, kw_only=True)
class Nest:
    """A layer on a machine with tiles of tile_m rows and tile_n columns. ``block``: tiles in a block."""

    m: int
    n: int
    k: int
    tile_m: int
    tile_n: int
    chunk: int
    k_tile: int
    dataflow: Dataflow = Dataflow.OUTPUT_STATIONARY
    block: int = 1
    once: tuple[str, ...] = ()  # "row", "column", "block": that loop takes its first tile only
    whole_chunks: bool = False  # one k-tile in a chunk

    @property
    def loops(self) -> dict[str, Any]:
        """The fields of `nest_layout`."""
        names = ("m", "n", "k", "block", "chunk", "k_tile")
        return {"dataflow": self.dataflow.value, **{name: getattr(self, name) for name in names}}

    @property
    def order(self) -> tuple[str, ...]:
        return ORDER[self.dataflow]

    @property
    def rows(self) -> list[int]:
        """Rows in each row of tiles."""
        return cut(self.m, self.tile_m)

    @property
    def columns(self) -> list[int]:
        return cut(self.n, self.tile_n)

    @property
    def chunks(self) -> list[list[int]]:
        """Positions of each k-tile of each chunk."""
        return [cut(length, self.k_tile) for length in cut(self.k, self.chunk)]

    @cached_property
    def steps(self) -> list[Step]:
        """All k-tiles in order."""
        ranges = {"row": range(len(self.rows)), "column": range(len(self.columns))}
        in_blocks = {Dataflow.WEIGHT_STATIONARY: "column", Dataflow.INPUT_STATIONARY: "row"}.get(
            self.dataflow
        )
        blocks = [range(0)]
        if in_blocks:
            tiles = ranges[in_blocks]
            blocks = [tiles[start : start + self.block] for start in range(0, len(tiles), self.block)]
            if "block" in self.once:
                blocks = [tiles[:1]]
        steps = []
        for b, block in enumerate(blocks):
            around = {"block": range(len(blocks)), "chunk": range(len(self.chunks)), **ranges}
            if in_blocks:
                around[in_blocks] = block
            for name in ("row", "column"):
                if name in self.once:
                    around[name] = around[name][:1]
            for indices in product(*(around[name] for name in self.order[1:])):
                at = {"block": b, **dict(zip(self.order[1:], indices, strict=True))}
                k_tiles = range(1 if self.whole_chunks else len(self.chunks[at["chunk"]]))
                steps += [Step(at | {"k_tile": t}, around | {"k_tile": k_tiles}) for t in k_tiles]
        return steps

    def ends(self, *loops: str) -> list[bool]:
        """For each k-tile: it is the last one with its index in ``loops``, up to the one in the list."""
        keys = [tuple(step.at[loop] for loop in loops) for step in self.steps]
        return [*(here != then for here, then in pairwise(keys)), True]

    def ends_before(self, loop: str) -> list[bool]:
        """For each k-tile: the next iteration of ``loop``, or of a loop around it, comes after it."""
        return self.ends(*self.order[: self.order.index(loop) + 1])

    def length(self, step: Step) -> int:
        """Positions of the k-tile."""
        return self.chunks[step.at["chunk"]][step.at["k_tile"]]

    def row_order(self) -> list[tuple[int, int, Step]]:
        """(rows, columns, last k-tile) of the rows of tiles, as often as their results come in a row."""
        loops = ("row", "column", "block") if self.dataflow == Dataflow.INPUT_STATIONARY else ("row", "block")
        done: dict[tuple[int, ...], Step] = {}
        for step in self.steps:
            if step.last("chunk") and step.last("k_tile"):
                done[tuple(step.at[loop] for loop in loops)] = step
        return [(self.rows[step.at["row"]], self.columns[step.at["column"]], step) for step in done.values()]


@dataclass(frozen=True)
class Operand:
    """Weights (``reuse`` "column", the loop over which they may stay) or activations ("row") of a layer.

    resident : they stay over that loop. share : and over the blocks. span : positions of a region, at most.
    """

    nest: Nest
    reuse: str
    resident: bool = False
    share: bool = False
    span: int = MOST_SPAN

    @property
    def inputs(self) -> dict[str, int]:
        """Values of the ports of a tile memory."""
        return {
            "loops": to_int(nest_layout(), self.nest.loops), "resident": int(self.resident),
            "blocks_share": int(self.share), "span": self.span,
        }  # fmt: skip

    @cached_property
    def images(self) -> list[int]:
        """For each k-tile the number of the image that it reads, in the order in which they are loaded."""
        numbers: dict[Any, int] = {}
        found = []
        for number, step in enumerate(self.nest.steps):
            tile = step.at["row" if self.reuse == "column" else "column"]
            own = (tile, step.at["chunk"], step.at["k_tile"])
            key = (*own, None if self.share else step.at["block"]) if self.resident else number
            found.append(numbers.setdefault(key, len(numbers)))
        return found

    @cached_property
    def fresh(self) -> list[bool]:
        """For each k-tile: the first that reads its image."""
        return [image not in self.images[:i] for i, image in enumerate(self.images)]

    @cached_property
    def released(self) -> list[bool]:
        """For each k-tile: the last that reads its image."""
        return [image not in self.images[i + 1 :] for i, image in enumerate(self.images)]

    @cached_property
    def stays(self) -> list[int]:
        """For each k-tile: images up to its own that are to stay in the memory together."""
        around = () if self.share else self.nest.order[: self.nest.order.index(self.reuse)]
        groups: dict[tuple[int, ...], set[int]] = {}
        counts = []
        for step, image in zip(self.nest.steps, self.images, strict=True):
            group = groups.setdefault(tuple(step.at[loop] for loop in around), set())
            group.add(image)
            counts.append(len(group) if self.resident else 1)
        return counts

    @property
    def loads(self) -> list[tuple[int, bool]]:
        """(positions, it ends a region) of the images that are loaded, in order.

        A region ends where the next iteration of ``reuse`` begins; with a span also after so many
        positions, and with K.
        """
        nest = self.nest
        loaded = [step for step, fresh in zip(nest.steps, self.fresh, strict=True) if fresh]
        around = nest.order[: nest.order.index(self.reuse) + 1]
        found, positions = [], 0
        for step, following in zip(loaded, [*loaded[1:], None], strict=True):
            positions += nest.length(step)
            ends = (
                following is None
                or positions >= self.span
                or (self.span != MOST_SPAN and step.last("chunk") and step.last("k_tile"))
                or any(step.at[loop] != following.at[loop] for loop in around)
            )
            found.append((nest.length(step), ends))
            positions = 0 if ends else positions
        return found


def size(rng: random.Random, tile: int, tiles: int) -> int:
    """So many tiles; the last one is full or nearly, or has one position."""
    return (tiles - 1) * tile + rng.choice([1, max(1, tile - 1), tile, rng.randint(1, tile)])


def random_nest(
    rng: random.Random,
    dataflow: Dataflow,
    tile: tuple[int, int, int],
    *,
    most: tuple[int, int, int, int] = (4, 4, 3, 3),
    chunked: bool = True,
) -> Nest:
    """Up to ``most`` rows, columns, chunks, and k-tiles of a chunk, which are full or not.

    tile : tile_m, tile_n, tile_k.
    """
    rows, columns, chunks, k_tiles = (rng.randint(1, count) for count in most)
    tile_m, tile_n, tile_k = tile
    k_tile = rng.choice([tile_k, tile_k, rng.randint(1, tile_k)])
    chunk = size(rng, k_tile, k_tiles)
    return Nest(
        m=size(rng, tile_m, rows), n=size(rng, tile_n, columns),
        k=size(rng, chunk, chunks) if chunked else chunk,
        tile_m=tile_m, tile_n=tile_n, chunk=chunk, k_tile=k_tile, dataflow=dataflow,
        block=rng.randint(1, 1 + (rows if dataflow == Dataflow.INPUT_STATIONARY else columns)),
    )  # fmt: skip


def random_operand(rng: random.Random, nest: Nest, reuse: str) -> Operand:
    """Resident or not, shared by the blocks or not where that is legal, with a span or without."""
    stationary = Dataflow.WEIGHT_STATIONARY if reuse == "column" else Dataflow.INPUT_STATIONARY
    resident = rng.random() < 0.6
    share = resident and nest.dataflow == stationary and rng.random() < 0.5
    spans = [MOST_SPAN, 1, nest.k_tile * rng.randint(1, 3), rng.randint(1, 4 * nest.k_tile)]
    return Operand(nest, reuse, resident, share, rng.choice(spans))


def shared_operand(rng: random.Random, tile: tuple[int, int, int], reuse: str, slots: int) -> Operand:
    """A stationary operand that stays over two or three blocks of up to three tiles, in so many slots."""
    dataflow = Dataflow.WEIGHT_STATIONARY if reuse == "column" else Dataflow.INPUT_STATIONARY
    most = (2, 6, 2, 2) if reuse == "column" else (6, 2, 2, 2)
    while True:
        nest = replace(random_nest(rng, dataflow, tile, most=most), block=rng.randint(1, 3))
        operand = Operand(nest, reuse, resident=True, share=True)
        if nest.steps[-1].at["block"] in (1, 2) and max(operand.stays) <= slots:
            return operand
