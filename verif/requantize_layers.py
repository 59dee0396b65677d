"""Layers whose results are requantized: what goes in, and the bytes that must come out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from sliceforge.sim.requantize import requantize
from sliceforge.sim.schedule import Schedule
from sliceforge.verif.schedules import finished_tiles
from sliceforge.verif.tiles import join

__all__ = ["HIGH", "LOW", "MULTIPLIERS", "SUMS", "RequantizeLayer"]

LOW, HIGH = -(1 << 31), (1 << 31) - 1
SUMS = (LOW, LOW + 1, -1, 0, 1, HIGH - 1, HIGH)
MULTIPLIERS = (0, 1, 2, 1 << 30, HIGH - 1, HIGH)
SHIFTS = (1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 61, 62)


class RequantizeLayer:
    """Results (m, n), the scales of the rows, and the settings: random unless given, corners among them."""

    def __init__(self, rng: random.Random, m: int, n: int, **settings: int) -> None:
        self.m, self.n, self.rng = m, n, rng
        self.zero_out = settings.get("zero_out", rng.choice([0, 255, rng.randrange(256)]))
        self.relu, self.use_table = settings.get("relu", 0), settings.get("use_table", 0)
        self.rounding = settings.get("rounding", 0)
        self.table = [rng.randrange(256) for _ in range(256)]
        scales = [self.random_scale() for _ in range(m)]
        self.multipliers, self.shifts = [list(some) for some in zip(*scales, strict=True)]
        self.sums = [[self.random_sum(*scale) for _ in range(n)] for scale in scales]

    def random_scale(self) -> tuple[int, int]:
        rng = self.rng
        if rng.random() < 0.3:
            return rng.choice(MULTIPLIERS), rng.choice(SHIFTS)
        return rng.getrandbits(rng.randint(1, 31)), rng.randint(1, 62)

    def random_sum(self, multiplier: int, shift: int) -> int:
        """Any, a corner, or one whose scaled value is about a byte: a tie if there is one, or beside it."""
        rng, kind = self.rng, self.rng.random()
        if kind < 0.2 or not multiplier:
            return rng.choice(SUMS) if kind < 0.1 else rng.randint(LOW, HIGH)
        halves = rng.randint(-600, 600)  # of the scaled value
        return max(LOW, min(HIGH, (halves << shift - 1) // multiplier + rng.randint(-1, 1)))

    def expected(self) -> np.ndarray:
        """(m, n) bytes."""
        scale, bits = (self.multipliers, self.shifts), (4, 5, 6)[self.rounding]
        values = requantize(self.sums, *scale, self.zero_out, bool(self.relu), next_lo_bits=bits)
        return np.array(self.table)[values] if self.use_table else values

    def table_words(self) -> Iterator[dict[str, int]]:
        if self.use_table:
            yield from ({"word": join(self.table[i : i + 4], 8)} for i in range(0, 256, 4))

    def scale_words(self, order: Schedule) -> Iterator[dict[str, int]]:
        for rows in order.parameter_rows():
            for scale in zip(self.multipliers[rows], self.shifts[rows], strict=True):
                yield from ({"word": word} for word in scale)

    def result_beats(self, order: Schedule, width: int) -> Iterator[tuple[int, slice, dict[str, Any]]]:
        """(row, columns, beat) in order; what is beyond ``count`` is noise."""
        tile_m, tile_n = order.config.tile_m, order.config.tile_n
        tiles = finished_tiles(order)
        for number, (i, j, frees) in enumerate(tiles):
            top, left = i * tile_m, j * tile_n
            bottom, right = min(top + tile_m, self.m), min(left + tile_n, self.n)
            for row in range(top, bottom):
                for column in range(left, right, width):
                    end = min(column + width, right)
                    padding = [self.rng.getrandbits(32)] * (width - (end - column))
                    row_ends = end == right
                    tile_ends = row_ends and row == bottom - 1
                    yield row, slice(column, end), {
                        "sums": self.sums[row][column:end] + padding, "count": end - column,
                        "last_of_row": row_ends, "last_of_tile": tile_ends,
                        "frees_rows": tile_ends and frees, "last": tile_ends and number == len(tiles) - 1,
                    }  # fmt: skip
