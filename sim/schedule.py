"""Output-stationary schedule: which tile images the core expects on its load streams, in which order.

Mirrors hw/tile_controller.py: for each row of tiles, for each column of tiles, for each k-tile. What is
resident is loaded once; what does not fit its memory is loaded again for each pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sliceforge.gen.config import AcceleratorConfig

__all__ = ["Schedule"]


@dataclass(frozen=True)
class Schedule:
    """The order of tiles of one layer (M, K, N) on one machine."""

    config: AcceleratorConfig
    m: int
    k: int
    n: int

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return -(-self.m // self.config.tile_m)

    @property
    def columns(self) -> int:
        """Columns of tiles."""
        return -(-self.n // self.config.tile_n)

    @property
    def k_tiles(self) -> int:
        return -(-self.k // self.config.tile_k)

    @property
    def weights_resident(self) -> bool:
        """A row of tiles of W stays in WMEM while all columns of tiles pass."""
        return self.k_tiles <= self.config.weight_slots

    @property
    def activations_resident(self) -> bool:
        """All of X stays in AMEM."""
        return self.k_tiles * self.columns <= self.config.activation_slots

    def weight_passes(self) -> Iterator[list[tuple[int, int]]]:
        """(row of tiles, k-tile) of each weight image to load; a list is one pass over a region."""
        passes = 1 if self.weights_resident else self.columns
        return ([(i, kt) for kt in range(self.k_tiles)] for i in range(self.rows) for _ in range(passes))

    def activation_passes(self) -> Iterator[list[tuple[int, int]]]:
        """(column of tiles, k-tile) of each activation image to load; a list is one pass over the region."""
        passes = 1 if self.activations_resident else self.rows
        region = [(j, kt) for j in range(self.columns) for kt in range(self.k_tiles)]
        return (region for _ in range(passes))

    def output_tiles(self) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of Y of each output tile, in the order in which they leave."""
        c = self.config
        for i in range(self.rows):
            for j in range(self.columns):
                yield (
                    slice(i * c.tile_m, min(self.m, (i + 1) * c.tile_m)),
                    slice(j * c.tile_n, min(self.n, (j + 1) * c.tile_n)),
                )
