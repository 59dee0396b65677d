"""Tiles and their images, written plainly from the format: goldens of the benches of the tile memories.

Deliberately not `sliceforge.sim.images`, which packs whole tensors at once: two descriptions of one format.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cocotb.triggers import FallingEdge, ReadOnly

from sliceforge.gen.config import TileLayout

__all__ = ["Tile", "as_seen", "image", "join", "latency", "random_length", "random_tile"]


async def latency(dut: Any, first: str, then: str) -> int:
    """Cycles from the first offer on stream ``first`` to the first on stream ``then``."""
    cycles: dict[str, int] = {}
    for cycle in range(50):
        await ReadOnly()
        for name in (first, then):
            if getattr(dut, f"{name}__valid").value == 1:
                cycles.setdefault(name, cycle)
        await FallingEdge(dut.clk)
    return cycles[then] - cycles[first]


def join(parts: Iterable[int], width: int) -> int:
    """``parts`` of ``width`` bits each as one number, the first in the lowest bits."""
    return sum(part << width * i for i, part in enumerate(parts))


def split(parts: list[int], many: int) -> list[list[int]]:
    return [parts[i : i + many] for i in range(0, len(parts), many)]


@dataclass(frozen=True)
class Tile:
    """What one bank holds of a k-tile: LO vectors ``lo[k][slice]`` and HO vectors ``hi[k]``, as bits.

    An HO vector that is equal to ``frequent`` is compressed.
    """

    layout: TileLayout
    lo: list[list[int]]
    hi: list[int]
    frequent: int = 0

    def __len__(self) -> int:
        return len(self.hi)

    def entries(self) -> list[tuple[int, int, int]]:
        """(skip, position, vector); a run that skip cannot count is broken by fillers."""
        most = (1 << self.layout.run_bits) - 1
        found: list[tuple[int, int, int]] = []
        previous = -1
        for k, vector in enumerate(self.hi):
            if vector != self.frequent:
                while k - previous - 1 > most:
                    previous += most + 1
                    found.append((most, previous, self.frequent))
                found.append((k - previous - 1, k, vector))
                previous = k
        return found

    def lo_granules(self) -> list[int]:
        """Four vectors each: position after position, a position's slices side by side."""
        vectors = [vector for slices in self.lo for vector in slices]
        return [join(four, 4 * self.layout.vector) for four in split(vectors, 4)]

    def ho_granules(self) -> list[int]:
        """As many whole entries each as fit, from the lowest bit up."""
        bits = self.layout.run_bits + 4 * self.layout.vector
        coded = [skip | vector << self.layout.run_bits for skip, _, vector in self.entries()]
        return [join(some, bits) for some in split(coded, 16 * self.layout.vector // bits)]

    def slot(self) -> dict[int, int]:
        """The granules of a slot by their offset: count, LO, HO; what the tile does not use is absent."""
        granules = {0: len(self.entries())}
        granules |= {1 + i: granule for i, granule in enumerate(self.lo_granules())}
        return granules | {self.layout.ho_base + i: granule for i, granule in enumerate(self.ho_granules())}

    def records(self, last: int) -> list[tuple[tuple[int, ...], int, int, int]]:
        """(LO vectors, HO vector or 0, kept, last) of each position; ``last`` marks the final one."""
        kept = {position: vector for _, position, vector in self.entries()}
        return [
            (tuple(slices), kept.get(k, 0), int(k in kept), int(last and k == len(self) - 1))
            for k, slices in enumerate(self.lo)
        ]


def as_seen(record: dict[str, Any], dense: int) -> tuple[tuple[int, ...], int, int, int]:
    """A record from a stream, as `Tile.records` has it; LO vectors that the layer lacks are undefined."""
    return tuple(record["lo"][:dense]), record["hi"], record["kept"], record["last"]


def random_length(rng: random.Random, tile_k: int) -> int:
    return rng.choice([1, tile_k - 1, tile_k, tile_k, rng.randint(1, tile_k)])


def random_tile(rng: random.Random, layout: TileLayout, *, length: int, dense: int, sparsity: float) -> Tile:
    """Each HO vector is compressed with probability ``sparsity``: 0 keeps all, 1 none."""
    bits = 4 * layout.vector
    frequent = join([rng.choice([0, rng.randrange(16)])] * layout.vector, 4)
    others = [frequent ^ rng.randrange(1, 1 << bits) for _ in range(length)]
    return Tile(
        layout,
        [[rng.getrandbits(bits) for _ in range(dense)] for _ in range(length)],
        [frequent if rng.random() < sparsity else other for other in others],
        frequent,
    )


def image(tiles: list[Tile], ways: int, *, last: bool = True) -> list[dict[str, Any]]:
    """The beats that load one tile into each bank: bank b is in way b % ways. ``last``: it ends a region.

    A way has its banks' counts, a byte each; then the LO granules of each bank, the same number for all;
    then the HO granules of each bank. What a way lacks in a section's first two parts is zero.
    """
    layout = tiles[0].layout
    depth = -(-len(tiles) // ways)
    header_granules = -(-depth // (2 * layout.vector))
    columns = []
    for way in range(ways):
        mine = tiles[way::ways]
        counts = [len(tile.entries()) for tile in mine]
        column = [join(some, 8) for some in split(counts, 2 * layout.vector)]
        column += [0] * (header_granules - len(column))
        column += [granule for tile in mine for granule in tile.lo_granules()]
        column += [0] * (len(tiles[0].lo_granules()) * (depth - len(mine)))
        column += [granule for tile in mine for granule in tile.ho_granules()]
        columns.append(column)
    beats = max(map(len, columns))
    padded = [column + [0] * (beats - len(column)) for column in columns]
    return [
        {"granules": list(beat), "last": int(last and i == beats - 1)}
        for i, beat in enumerate(zip(*padded, strict=True))
    ]
