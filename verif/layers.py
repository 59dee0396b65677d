"""Random layers for the benches of the core: operands, what goes in, and what must come out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.sim.gemm import folded_bias
from sliceforge.sim.images import OperandImages, activation_images, weight_images
from sliceforge.sim.operands import random_operands
from sliceforge.sim.rle import kept_with_fillers
from sliceforge.sim.schedule import Schedule
from sliceforge.sim.work import kept_activation_vectors, kept_weight_vectors

__all__ = ["Layer", "random_layer"]


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer on one machine. ``resident``: whether W and X are kept on chip, where they fit."""

    config: AcceleratorConfig
    weights: np.ndarray
    activations: np.ndarray
    bias: np.ndarray
    weight_bits: int
    lo_bits: int
    zero_point: int
    resident: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.weights), self.weights.shape[1], self.activations.shape[1]

    @property
    def frequent(self) -> int:
        return self.zero_point >> self.lo_bits

    @cached_property
    def schedule(self) -> Schedule:
        m, k, n = self.shape
        return Schedule(self.config, m, k, n)

    @property
    def descriptor(self) -> dict[str, int]:
        m, k, n = self.shape
        return {
            "m": m,
            "n": n,
            "k": k,
            "weight_slices": (self.weight_bits - 1) // 3,
            "lo_bits": self.lo_bits,
            "frequent": self.frequent,
            "weights_resident": int(self.schedule.weights_resident and self.resident),
            "activations_resident": int(self.schedule.activations_resident and self.resident),
        }

    @property
    def biases(self) -> list[int]:
        return [int(b) for b in folded_bias(self.weights, self.bias, self.zero_point, self.lo_bits)]

    @cached_property
    def _weight_images(self) -> OperandImages:
        return weight_images(self.weights, weight_bits=self.weight_bits, config=self.config)

    @cached_property
    def _activation_images(self) -> OperandImages:
        return activation_images(
            self.activations, zero_point=self.zero_point, lo_bits=self.lo_bits, config=self.config
        )

    def weight_beats(self) -> list[int]:
        s = self.schedule
        passes = 1 if self.descriptor["weights_resident"] else s.columns
        regions = ([(i, kt) for kt in range(s.k_tiles)] for i in range(s.rows) for _ in range(passes))
        return _payloads(self._weight_images, regions)

    def activation_beats(self) -> list[int]:
        s = self.schedule
        passes = 1 if self.descriptor["activations_resident"] else s.rows
        region = [(j, kt) for j in range(s.columns) for kt in range(s.k_tiles)]
        return _payloads(self._activation_images, (region for _ in range(passes)))

    def first_image_beats(self, operand: str) -> int:
        """Beats of the first tile image of ``operand``, "weight" or "activation"."""
        images = self._weight_images if operand == "weight" else self._activation_images
        return len(images.images[0][0])

    def expected(self) -> np.ndarray:
        """``W @ (x_hat - zp) + bias`` in int64: the last word."""
        drop = self.lo_bits - 4
        x_hat = (self.activations.astype(np.int64) >> drop) << drop
        return self.weights.astype(np.int64) @ (x_hat - self.zero_point) + self.bias[:, None]

    def result_beats(self) -> list[dict[str, Any]]:
        """What the result stream must carry, beat by beat; the first ``count`` sums of each count."""
        y = self.expected()
        width = self.config.vector * self.config.result_lanes
        beats = []
        for rows, columns in self.schedule.output_tiles():
            for row in range(rows.start, rows.stop):
                for first in range(columns.start, columns.stop, width):
                    sums = [int(value) for value in y[row, first : min(first + width, columns.stop)]]
                    ends = first + width >= columns.stop
                    beats.append({"sums": sums, "last_of_row": int(ends), "last": 0})
        beats[-1]["last"] = 1
        return beats

    def kept(self) -> tuple[np.ndarray, np.ndarray]:
        """Maps of kept vectors of weights and activations, without fillers."""
        v = self.config.vector
        return (
            kept_weight_vectors(self.weights, self.weight_bits, v),
            kept_activation_vectors(self.activations, self.zero_point, self.lo_bits, v),
        )

    def products(self) -> int:
        """Outer products that the array issues: with fillers, and on the grid padded to whole tiles."""
        c, s = self.config, self.schedule
        weight, activation = (kept_with_fillers(kept, c.tile_k, c.run_bits) for kept in self.kept())
        slices = (self.weight_bits - 1) // 3
        dense = max(1, slices - 1)
        weight_steps = np.full((s.rows * c.pea_count, weight.shape[1]), dense)
        weight_steps[: len(weight)] += weight * (slices > 1)
        activation_steps = np.ones((s.columns * c.lanes, activation.shape[1]), int)
        activation_steps[: len(activation)] += activation
        return int(weight_steps.sum(axis=0) @ activation_steps.sum(axis=0))


def _payloads(operand: OperandImages, regions: Iterable[list[tuple[int, int]]]) -> list[int]:
    """Beats as payloads: granules, and ``last`` above them on the last beat of each pass over a region."""
    payloads = []
    for region in regions:
        for tile, kt in region:
            image = operand.images[tile][kt]
            payloads += [int.from_bytes(beat.tobytes(), "little") for beat in image]
        payloads[-1] |= 1 << 8 * image.shape[1]
    return payloads


def random_layer(
    rng: np.random.Generator,
    config: AcceleratorConfig,
    shape: tuple[int, int, int],
    *,
    weight_bits: int = 7,
    lo_bits: int = 4,
    zero_point: int = 128,
    weight_sparsity: float = 0.5,
    activation_sparsity: float = 0.5,
    resident: bool = True,
) -> Layer:
    """Random operands with about these shares of compressed vectors; 0 and 1 are exact."""
    weights, activations = random_operands(
        rng,
        shape,
        vector=config.vector,
        weight_bits=weight_bits,
        lo_bits=lo_bits,
        zero_point=zero_point,
        weight_sparsity=weight_sparsity,
        activation_sparsity=activation_sparsity,
    )
    bias = rng.integers(-(1 << 20), 1 << 20, shape[0])
    return Layer(config, weights, activations, bias, weight_bits, lo_bits, zero_point, resident)
