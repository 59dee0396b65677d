"""Random layers for the benches of the core: operands, what goes in, and what must come out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.dataflow import Dataflow
from sliceforge.sim.apsq import apsq, quantize
from sliceforge.sim.gemm import folded_bias
from sliceforge.sim.images import OperandImages, activation_images, weight_images
from sliceforge.sim.operands import random_operands
from sliceforge.sim.plans import plan, plans
from sliceforge.sim.rle import kept_with_fillers
from sliceforge.sim.schedule import Schedule
from sliceforge.sim.work import kept_activation_vectors, kept_weight_vectors

__all__ = ["Layer", "random_layer", "random_schedule"]

NO_SPAN = (1 << 24) - 1


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer on one machine. ``exponents``: of APSQ, one a K-chunk."""

    schedule: Schedule
    weights: np.ndarray
    activations: np.ndarray
    bias: np.ndarray
    weight_bits: int
    lo_bits: int
    zero_point: int
    exponents: tuple[int, ...] = ()

    @property
    def config(self) -> AcceleratorConfig:
        return self.schedule.config

    @property
    def frequent(self) -> int:
        return self.zero_point >> self.lo_bits

    # What goes in.

    @property
    def descriptor(self) -> dict[str, Any]:
        s = self.schedule
        return {
            "loops": {
                "m": s.m, "n": s.n, "k": s.k, "dataflow": s.dataflow.value, "block": s.block,
                "chunk": s.chunk, "k_tile": s.k_tile,
            },
            "weight_slices": (self.weight_bits - 1) // 3,
            "lo_bits": self.lo_bits,
            "frequent": self.frequent,
            "weights_resident": int(s.weights_resident),
            "activations_resident": int(s.activations_resident),
            "blocks_share": int(s.blocks_share),
            "activations_span": NO_SPAN if s.span is None else s.span,
            "psum_group": s.psum_group,
            "psums_resident": int(s.psums_resident),
        }  # fmt: skip

    @property
    def biases(self) -> list[int]:
        """In the order in which rows of tiles come."""
        biases = folded_bias(self.weights, self.bias, self.zero_point, self.lo_bits)
        return [int(b) for rows in self.schedule.parameter_rows() for b in biases[rows]]

    @property
    def exponent_words(self) -> list[dict[str, int]]:
        words = [self.exponents[i : i + 4] for i in range(0, len(self.exponents), 4)]
        return [
            {"word": sum(e << 8 * place for place, e in enumerate(word)), "last": int(i == len(words) - 1)}
            for i, word in enumerate(words)
        ]

    @cached_property
    def _weight_images(self) -> OperandImages:
        s = self.schedule
        return weight_images(
            self.weights, weight_bits=self.weight_bits, config=self.config, chunk=s.chunk, k_tile=s.k_tile
        )

    @cached_property
    def _activation_images(self) -> OperandImages:
        s = self.schedule
        return activation_images(
            self.activations, zero_point=self.zero_point, lo_bits=self.lo_bits, config=self.config,
            chunk=s.chunk, k_tile=s.k_tile,
        )  # fmt: skip

    def weight_beats(self) -> list[int]:
        return _payloads(self._weight_images, self.schedule.weight_regions(), self.schedule.weight_loads)

    def activation_beats(self) -> list[int]:
        s = self.schedule
        return _payloads(self._activation_images, s.activation_regions(), s.activation_loads)

    def first_image_beats(self, operand: str) -> int:
        """Beats of the first tile image of ``operand``, "weight" or "activation"."""
        images = self._weight_images if operand == "weight" else self._activation_images
        return len(images.images[0][0])

    # What comes out.

    @cached_property
    def _steps(self) -> np.ndarray:
        """(p, rows, columns) ``W @ (x_hat - 2^l r)`` of each K-chunk; tiles padded, W with 0, X with zp."""
        s, c = self.schedule, self.config
        drop = self.lo_bits - 4
        w = np.zeros((s.rows * c.tile_m, s.k), np.int64)
        w[: s.m] = self.weights
        x = np.full((s.k, s.columns * c.tile_n), self.zero_point)
        x[:, : s.n] = self.activations
        centered = (x >> drop << drop) - (self.frequent << self.lo_bits)
        cuts = range(0, s.k, s.chunk)
        return np.stack([w[:, at : at + s.chunk] @ centered[at : at + s.chunk] for at in cuts])

    @cached_property
    def _stored(self) -> np.ndarray:
        """(p, rows, columns): what each K-chunk stores, the last excepted: sums so far, or APSQ's q."""
        g = self.schedule.psum_group
        if not g:
            return np.cumsum(self._steps, axis=0)
        # A group's head adds the result of all before it, which is what apsq() gives for the steps before.
        return np.stack([
            quantize(
                tile + (apsq(self._steps[:i], self.exponents[:i], g) if i and i % g == 0 else 0),
                self.exponents[i],
            )
            for i, tile in enumerate(self._steps)
        ])  # fmt: skip

    def expected(self) -> np.ndarray:
        """``W @ (x_hat - zp) + bias`` in int64, or APSQ's: the last word."""
        s = self.schedule
        if s.psum_group:
            folded = folded_bias(self.weights, self.bias, self.zero_point, self.lo_bits)
            y = apsq(self._steps, self.exponents, s.psum_group)[: s.m, : s.n]
            return y + folded.astype(np.int64)[:, None]
        drop = self.lo_bits - 4
        x_hat = (self.activations.astype(np.int64) >> drop) << drop
        return self.weights.astype(np.int64) @ (x_hat - self.zero_point) + self.bias[:, None]

    def steps_added(self, c: int) -> list[int]:
        """The K-chunks whose stored sums chunk ``c`` needs (arithmetic.md section 8)."""
        g, last = self.schedule.psum_group, self.schedule.steps - 1
        if c == 0 or (g and c % g and c != last):
            return []
        if not g:
            return [c - 1]
        return [*range(c - g, c)] if c % g == 0 else [*range(c - c % g, c)]

    def result_beats(self) -> list[dict[str, Any]]:
        """What the result stream must carry, beat by beat; the first ``count`` sums of each count."""
        s, c, y = self.schedule, self.config, self.expected()
        beats: list[dict[str, Any]] = []
        for i, j, step in s.tiles():
            tile_m, tile_n = slice(i * c.tile_m, (i + 1) * c.tile_m), slice(j * c.tile_n, (j + 1) * c.tile_n)
            if step == s.steps - 1:
                last_use = s.input_stationary or j == s.columns - 1
                last_use |= s.weight_stationary and (j + 1) % s.block == 0
                beats += self._rows(y[tile_m, tile_n], last_use)
            elif not s.psums_resident:
                beats += self._psums(self._stored[step][tile_m, tile_n])
        beats[-1]["last"] = 1
        return beats

    def _rows(self, tile: np.ndarray, last_use: bool) -> Iterator[dict[str, Any]]:
        width = self.config.result_sums
        for row in range(len(tile)):
            for first in range(0, tile.shape[1], width):
                sums = [int(value) & 0xFFFF_FFFF for value in tile[row, first : first + width]]
                row_ends = first + width >= tile.shape[1]
                ends = int(row_ends and row == len(tile) - 1)
                yield {
                    "sums": sums, "count": len(sums), "is_psum": 0, "last_of_row": int(row_ends),
                    "last_of_tile": ends, "frees_rows": int(ends and last_use), "last": 0,
                }  # fmt: skip

    def _psums(self, tile: np.ndarray) -> Iterator[dict[str, Any]]:
        """All of a tile, padding included: words of 32 bits, or four sums of 8 bits each."""
        width = self.config.result_sums
        words = tile.reshape(-1, width)
        for i, word in enumerate(words):
            sums = [int(value) & 0xFFFF_FFFF for value in word]
            if self.schedule.psum_group:
                data = bytes(value & 0xFF for value in sums)
                sums = [int.from_bytes(data[at : at + 4], "little") for at in range(0, width, 4)]
            ends = int(i == len(words) - 1)
            yield {
                "sums": sums, "count": len(sums), "is_psum": 1, "last_of_row": ends, "last_of_tile": ends,
                "frees_rows": 0, "last": 0,
            }  # fmt: skip

    def kept(self) -> tuple[np.ndarray, np.ndarray]:
        """Maps of kept vectors of weights and activations, without fillers."""
        v = self.config.vector
        return (
            kept_weight_vectors(self.weights, self.weight_bits, v),
            kept_activation_vectors(self.activations, self.zero_point, self.lo_bits, v),
        )

    def entries(self, kept: np.ndarray) -> np.ndarray:
        """``kept`` with the fillers, which each tile image has of its own."""
        run_bits = self.config.run_bits
        parts = [kept[:, piece] for piece in self.schedule.k_slices]
        return np.concatenate([kept_with_fillers(p, p.shape[1], run_bits) for p in parts], axis=1)

    def products(self) -> int:
        """Outer products that the array issues: with fillers, and on the grid padded to whole tiles."""
        c, s = self.config, self.schedule
        weight, activation = (self.entries(kept) for kept in self.kept())
        slices = (self.weight_bits - 1) // 3
        dense = max(1, slices - 1)
        weight_steps = np.full((s.rows * c.pea_count, weight.shape[1]), dense)
        weight_steps[: len(weight)] += weight * (slices > 1)
        activation_steps = np.ones((s.columns * c.lanes, activation.shape[1]), int)
        activation_steps[: len(activation)] += activation
        return int(weight_steps.sum(axis=0) @ activation_steps.sum(axis=0))


def _payloads(
    operand: OperandImages, regions: list[list[tuple[int, int]]], loads: tuple[int, int]
) -> list[int]:
    """Beats as payloads: granules, and ``last`` above them on the last beat of each pass over a region."""
    rounds, passes = loads
    payloads = []
    for region in [region for _ in range(rounds) for region in regions for _ in range(passes)]:
        for tile, kt in region:
            image = operand.images[tile][kt]
            payloads += [int.from_bytes(beat.tobytes(), "little") for beat in image]
        payloads[-1] |= 1 << 8 * image.shape[1]
    return payloads


def random_schedule(
    rng: np.random.Generator,
    config: AcceleratorConfig,
    shape: tuple[int, int, int],
    *,
    dataflow: Dataflow,
    chunk: int,
    psum_group: int,
    spills: bool,
) -> Schedule:
    """Any that the machine can run, now and then with short k-tiles and activations in parts. spills: partial
    sums go to memory, if there are any.
    """
    found = list(plans(config, *shape, dataflow=dataflow, chunk=chunk, psum_group=psum_group))
    found = [s for s in found if s.psums_resident != spills] or found
    schedule = found[int(rng.integers(len(found)))]
    for change in (
        {"k_tile": int(rng.integers(max(1, config.tile_k // 2), config.tile_k + 1))},
        {"span": int(rng.integers(1, shape[1] + 1))},
    ):
        changed = replace(schedule, **change)
        if changed.legal and rng.random() < 0.4:
            schedule = changed
    return schedule


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
    schedule: Schedule | None = None,
) -> Layer:
    """Random operands with about these shares of compressed vectors; 0 and 1 are exact. schedule: by default
    one without K-chunks.
    """
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
    schedule = schedule or plan(config, *shape)
    # About as large as partial sums need; now and then all for which everything fits 32 bits.
    top = 21 if rng.random() < 0.1 else 12
    exponents = tuple(int(e) for e in rng.integers(0, top, schedule.steps)) if schedule.psum_group else ()
    return Layer(schedule, weights, activations, bias, weight_bits, lo_bits, zero_point, exponents)
