"""A layer of output tiles, and the jobs and bytes that come of it: golden of the image writer's bench."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.sim.images import activation_images

__all__ = ["OutputLayer"]


class OutputLayer:
    """Random output tiles of ``shapes`` (rows, columns), each with its region and its length's word.

    Of the HO vectors a share ``sparsity`` is compressed. ``top``: the last region "ends" or "begins" where
    the space of addresses ends.

    tiles, values : payloads of the streams, in order; what does not count is noise.
    spans : address and bus beats of each job. ``needs`` : beats of values before each job.
    memory : all bytes that are written, by address.
    """

    def __init__(
        self,
        seed: str,
        config: AcceleratorConfig,
        shapes: list[tuple[int, int]],
        *,
        k_tile: int,
        lo_bits: int,
        sparsity: float,
        top: str = "",
    ) -> None:
        self.config, self.k_tile, self.lo_bits = config, k_tile, lo_bits
        self._rng, self._numbers = random.Random(seed), np.random.default_rng([*seed.encode()])
        self.frequent = self._rng.randrange(1 << 8 - lo_bits)
        self.tiles: list[dict[str, int]] = []
        self.values: list[dict[str, Any]] = []
        self.spans: list[tuple[int, int]] = []
        self.needs: list[int] = []
        self.memory: dict[int, int] = {}
        address = self._rng.randrange(1 << 16) * config.load_beat_bytes
        for tile, (rows, columns) in enumerate(shapes):
            is_last = tile == len(shapes) - 1
            x = self._outputs(rows, columns, sparsity)
            images = self._images(x)
            size = config.load_beat_bytes + sum(image.nbytes for image in images)
            if top and is_last:
                address = (1 << config.address_bits) - (size if top == "ends" else 0)
            self._add_values(x, is_last)
            self._add_region(rows, columns, images, address, size)
            address += size + self._rng.randrange(3) * config.load_beat_bytes
        self.beats = sum(beats for _, beats in self.spans)

    def _outputs(self, rows: int, columns: int, sparsity: float) -> Any:
        v, groups = self.config.vector, -(-columns // self.config.vector)
        low = self._numbers.integers(0, 1 << self.lo_bits, (rows, groups, v))
        x = np.where(
            self._numbers.random((rows, groups, 1)) < sparsity,
            (self.frequent << self.lo_bits) + low,
            self._numbers.integers(0, 256, (rows, groups, v)),
        )
        return x.reshape(rows, groups * v)[:, :columns]

    def _images(self, x: Any) -> list[Any]:
        """Each k-tile's image, cut here: `activation_images` cuts at tile_k only."""
        zero_point = self.frequent << self.lo_bits
        cuts = [x[first : first + self.k_tile] for first in range(0, len(x), self.k_tile)]
        made = [
            activation_images(cut, zero_point=zero_point, lo_bits=self.lo_bits, config=self.config).images
            for cut in cuts
        ]
        assert all(len(rows) == 1 and len(rows[0]) == 1 for rows in made)
        return [rows[0][0] for rows in made]

    def _add_values(self, x: Any, is_last: bool) -> None:
        size = self.config.vector * self.config.result_lanes
        for row, values in enumerate(x.tolist()):
            for first in range(0, len(values), size):
                part = values[first : first + size]
                noise = [self._rng.randrange(256) for _ in range(size - len(part))]
                row_ends = first + size >= len(values)
                tile_ends = row_ends and row == len(x) - 1
                self.values.append({
                    "values": part + noise, "count": len(part), "last_of_row": int(row_ends),
                    "last_of_tile": int(tile_ends), "last": int(tile_ends and is_last),
                })  # fmt: skip
            if (row + 1) % self.k_tile == 0 or row == len(x) - 1:
                self.needs.append(len(self.values))
        self.needs.append(len(self.values))  # the length's job

    def _add_region(self, rows: int, columns: int, images: list[Any], address: int, size: int) -> None:
        """The tile's region; its length goes to a word of its header, or somewhere far away."""
        load_bytes = self.config.load_beat_bytes
        far = self._rng.choice([0, 1 << 31])
        length_address = (address ^ far) + 4 * self._rng.randrange(load_bytes // 4)
        addresses = {"address": address, "length_address": length_address}
        self.tiles.append({"rows": rows, "columns": columns, **addresses})
        at = address + load_bytes
        for image in images:
            self.spans.append((at, image.nbytes * 8 // self.config.bus_bits))
            self.memory |= {at + i: int(byte) for i, byte in enumerate(image.tobytes())}
            at += image.nbytes
        self.spans.append((length_address, 1))
        self.memory |= {length_address + i: (size // load_bytes) >> 8 * i & 255 for i in range(4)}
