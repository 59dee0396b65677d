"""Layers for the result unit: the sums of every tile, what is stored of them, and what must be sent."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from sliceforge.sim.apsq import apsq, dequantize, quantize
from sliceforge.verif.psum_layers import Layer
from sliceforge.verif.tiles import join

__all__ = ["ResultLayer"]

MASK = (1 << 32) - 1


class ResultLayer:
    """Random sums, exponents and biases of ``layer``; ``width`` sums a word.

    tiles : that leave the array. sums : of each, (tile_m, tile_n). biases : sets of a row of tiles, in the
    order in which they are used up.
    """

    def __init__(self, layer: Layer, width: int, rng: random.Random) -> None:
        self.layer, self.width, self.rng = layer, width, rng
        random_numbers = np.random.default_rng(rng.getrandbits(32))
        self.tiles = list(layer.tiles())
        self.exponents = [rng.choice([0, 20, rng.randrange(21)]) for _ in range(layer.steps)]
        limit = 1 << 28  # with what is added it fits 32 bits
        shape = (layer.schedule.rows, layer.schedule.columns, layer.steps, layer.tile_m, layer.tile_n)
        scale = 1 << random_numbers.integers(0, 28, (*shape[:3], 1, 1))
        self.t = random_numbers.integers(-limit, limit, shape) // scale
        self.sums = [self.t[tile.row, tile.column, tile.chunk] for tile in self.tiles]
        count = sum(tile.frees_rows for tile in self.tiles)
        self.biases = [[rng.getrandbits(32) for _ in range(layer.tile_m)] for _ in range(count)]
        self.stored = {
            (i, j): self._stored(self.t[i, j]) for i in range(shape[0]) for j in range(shape[1])
        }  # fmt: skip

    def _stored(self, t: Any) -> list[Any]:
        """What is stored after each K-chunk."""
        size = self.layer.group
        if size == 0:
            return list(np.cumsum(t, axis=0))
        stored: list[Any] = []
        for i, tile in enumerate(t):
            group = range(i - size, i) if i and i % size == 0 else ()
            before = sum(dequantize(stored[j], self.exponents[j]) for j in group)
            stored.append(quantize(tile + before, self.exponents[i]))
        return stored

    def exponent_words(self) -> list[dict[str, int]]:
        if self.layer.group == 0:
            return []
        words = [join(self.exponents[i : i + 4], 8) for i in range(0, len(self.exponents), 4)]
        return [{"word": word, "last": int(i == len(words) - 1)} for i, word in enumerate(words)]

    def _words(self, sums: Any) -> list[list[int]]:
        """The tile row by row, ``width`` columns a word."""
        rows = sums.astype(np.int64).reshape(-1, self.width) & (255 if self.layer.group else MASK)
        return [list(map(int, row)) for row in rows]

    def fills(self) -> list[dict[str, Any]]:
        """What comes back from memory, tile after tile, a word in one piece or two."""
        pieces: list[dict[str, Any]] = []
        everything, name = (1 << self.width) - 1, "narrow" if self.layer.group else "full_sums"
        for tile in self.tiles:
            first = tile.chunk - (tile.position or max(1, self.layer.group))  # of the chunks that are added
            for position in range(tile.adds):
                words = self._words(self.stored[tile.row, tile.column][first + position])
                for word, values in enumerate(words):
                    mask = self.rng.choice([everything, self.rng.getrandbits(self.width)])
                    for columns in filter(None, (mask, ~mask & everything)):
                        piece = {"word": word, "columns": columns, "position": position, name: values}
                        pieces.append({**piece, "last": 0})
            if tile.adds:
                pieces[-1]["last"] = 1
        return pieces

    def results(self, *, stores: bool) -> list[dict[str, Any]]:
        """Beats of results; with ``stores`` those of partial sums. Of Y, ``sums`` has only what counts."""
        beats: list[dict[str, Any]] = []
        biases = iter(self.biases)
        bias = next(biases)
        for tile in self.tiles:
            of_tile: list[dict[str, Any]] = []
            stored = self.stored[tile.row, tile.column]
            if tile.last_chunk:
                t = self.t[tile.row, tile.column]
                y = apsq(t, self.exponents, self.layer.group) if self.layer.group else stored[-1]
                for row in range(tile.rows):
                    values = [(int(x) + bias[row]) & MASK for x in y[row, : tile.columns]]
                    for c in range(0, tile.columns, self.width):
                        part = values[c : c + self.width]
                        ends = int(c + self.width >= tile.columns)
                        of_tile.append({"sums": part, "count": len(part), "is_psum": 0, "last_of_row": ends})
            elif stores:
                for values in self._words(stored[tile.chunk]):
                    words = values
                    if self.layer.group:
                        packed = [join(values[i : i + 4], 8) for i in range(0, self.width, 4)]
                        words = packed + [0] * (self.width - len(packed))
                    count = max(1, self.width // 4) if self.layer.group else self.width
                    of_tile.append({"sums": words, "count": count, "is_psum": 1, "last_of_row": 0})
                of_tile[-1]["last_of_row"] = 1
            for i, beat in enumerate(of_tile):
                ends = int(i == len(of_tile) - 1)
                flags = {"frees_rows": tile.frees_rows, "last": tile.last}
                beats.append({**beat, "last_of_tile": ends, **{n: int(ends and f) for n, f in flags.items()}})
            if tile.frees_rows:
                bias = next(biases, bias)
        return beats
