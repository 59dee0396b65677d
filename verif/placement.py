"""Layers for the accelerator's bench: random ones, anywhere in memory, and what the bus must carry then."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cocotb
import numpy as np

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.registers import DESCRIPTOR_BYTES
from sliceforge.sim.layer_image import (
    LayerImage,
    decode_descriptor,
    descriptor_bytes,
    encode_descriptor,
    pack_layer,
)
from sliceforge.verif.layers import Layer, random_layer

__all__ = [
    "MEMORY_BYTES", "Placed", "beats_moved", "image_of", "load_beats", "long", "passes", "place_layers",
    "random_chain", "seeded", "small_layer",
]  # fmt: skip

MEMORY_BYTES = 1 << 17
"""Of the bench's memory, which repeats over the whole address space."""


def long(usual: int, more: int) -> int:
    """A number of repetitions: ``more`` of them with SLICEFORGE_LONG=1 (``--run-long``)."""
    return more if os.environ.get("SLICEFORGE_LONG") == "1" else usual


def seeded(*salt: Any) -> random.Random:
    """A source of random numbers for one test."""
    return random.Random(f"{cocotb.RANDOM_SEED} {salt}")


def _generator(rng: random.Random) -> np.random.Generator:
    return np.random.default_rng(rng.getrandbits(64))


def small_layer(rng: random.Random, config: AcceleratorConfig, shape: Any = None, **settings: Any) -> Layer:
    """A layer of a few tiles, (M, K, N) all different unless ``shape`` says otherwise."""
    shape = shape or (config.tile_m + 1, min(config.max_k, config.tile_k + 3), config.tile_n + 2)
    return random_layer(_generator(rng), config, shape, **{"weight_bits": 4, **settings})


def random_chain(rng: random.Random, config: AcceleratorConfig, count: int) -> list[Layer]:
    """Layers of sizes around the tile, each with settings of its own, and of bounded work."""
    layers: list[Layer] = []
    while len(layers) < count:
        lo_bits = rng.choice([4, 5, 6])
        top = (256 >> lo_bits) - 1
        zero_point = rng.choice([0, top, rng.randint(0, top)]) << lo_bits
        layer = random_layer(
            _generator(rng),
            config,
            (
                rng.choice(_sizes(config.tile_m)),
                min(config.max_k, rng.choice([*_sizes(config.tile_k), 5 * config.tile_k + 1])),
                rng.choice(_sizes(config.tile_n)),
            ),
            weight_bits=rng.choice([bits for bits in (4, 7, 10) if bits <= config.max_weight_bits]),
            lo_bits=lo_bits,
            zero_point=rng.choice([zero_point, zero_point + (1 << lo_bits) - 1]),
            weight_sparsity=rng.choice([0.0, 0.5, 0.97, 1.0]),
            activation_sparsity=rng.choice([0.0, 0.5, 0.97, 1.0]),
            resident=rng.random() < 0.75,
        )
        if layer.products() <= _MOST_WORK * config.operators:
            layers.append(layer)
    return layers


_MOST_WORK = 2500  # cycles of the array


def _sizes(tile: int) -> list[int]:
    return [1, max(1, tile - 1), tile, tile + 1, 2 * tile + 3, 7, 13]


def image_of(layer: Layer) -> LayerImage:
    return pack_layer(
        layer.weights, layer.activations, layer.biases, zero_point=layer.zero_point,
        weight_bits=layer.weight_bits, lo_bits=layer.lo_bits, config=layer.config, resident=layer.resident,
    )  # fmt: skip


@dataclass
class Placed:
    """A layer in memory. ``fields``: of its descriptor, for tests to alter before `System.load`."""

    layer: Layer
    image: LayerImage
    address: int  # of the descriptor
    fields: dict[str, int]
    weights: bytearray = field(default_factory=bytearray)
    activations: bytearray = field(default_factory=bytearray)
    bias_bytes: bytes = b""
    space: int | None = None  # results end there

    def pieces(self) -> dict[str, tuple[int, bytes]]:
        """What the layer reads, each with its address."""
        return {
            "descriptor": (self.address, encode_descriptor(self.fields)),
            "weights": (self.fields["WEIGHTS_ADDRESS"], bytes(self.weights)),
            "activations": (self.fields["ACTIVATIONS_ADDRESS"], bytes(self.activations)),
            "bias": (self.fields["BIAS_ADDRESS"], self.bias_bytes),
        }

    def clip(self, operand: str, size: int) -> None:
        """Keeps only the first ``size`` bytes of what lies in memory."""
        if operand == "bias":
            self.bias_bytes = self.bias_bytes[:size]
        else:
            del getattr(self, operand)[size:]

    def rows(self) -> list[tuple[int, bytes]]:
        """What the layer writes: each row of results with its address."""
        first, stride = self.fields["OUTPUT_ADDRESS"], self.fields["OUTPUT_STRIDE"]
        results = self.layer.expected().astype("<i4")
        rows = [(first + i * stride, row.tobytes()) for i, row in enumerate(results)]
        if self.space is not None:
            rows = [(at, row[: self.space - at]) for at, row in rows if at < self.space]
        return rows


def place_layers(
    rng: random.Random,
    layers: Sequence[Layer],
    *,
    memory_bytes: int = MEMORY_BYTES,
    interrupt: Callable[[int], bool] = lambda i: False,
    top: str | None = None,
) -> list[Placed]:
    """Layers as a chain, everything at random legal addresses of the whole space, in random order.

    Some rows of results, regions and biases lie across 4 KiB. memory_bytes: of the memory to use. top: this
    of the last layer ("descriptor" or an address of the descriptor) ends where the address space does.
    """
    config = layers[0].config
    images = [image_of(layer) for layer in layers]
    strides = [4 * (image.n + rng.choice([0, 0, 1, 2, 7])) for image in images]
    wanted: list[tuple[int, str, int, int]] = []  # layer, what, size, alignment
    for i, (image, stride) in enumerate(zip(images, strides, strict=True)):
        wanted += [
            (i, "descriptor", DESCRIPTOR_BYTES, DESCRIPTOR_BYTES),
            (i, "WEIGHTS_ADDRESS", image.weights.nbytes, config.load_beat_bytes),
            (i, "ACTIVATIONS_ADDRESS", image.activations.nbytes, config.load_beat_bytes),
            (i, "BIAS_ADDRESS", 4 * image.m, 4),
            (i, "OUTPUT_ADDRESS", (image.m - 1) * stride + 4 * image.n, 4),
        ]
    rng.shuffle(wanted)
    found: list[dict[str, int]] = [{} for _ in layers]
    end = 0
    for i, what, size, alignment in wanted:
        at = -(-(end + rng.randrange(256)) // alignment) * alignment
        if what != "descriptor" and rng.random() < 0.3:  # across the next 4 KiB
            page = (at | 4095) + 1
            at = max(at, page - rng.randint(1, max(1, min(size, 96) // alignment)) * alignment)
        if what == top and i == len(layers) - 1:
            at = (1 << config.address_bits) - size
        else:
            end = at + size
            at += MEMORY_BYTES * rng.randrange((1 << config.address_bits) // MEMORY_BYTES)
        found[i][what] = at
    assert end <= memory_bytes, f"layers need {end} bytes of memory"
    placed = []
    for i, (layer, image) in enumerate(zip(layers, images, strict=True)):
        descriptor = descriptor_bytes(
            image,
            weights_address=found[i]["WEIGHTS_ADDRESS"],
            activations_address=found[i]["ACTIVATIONS_ADDRESS"],
            bias_address=found[i]["BIAS_ADDRESS"],
            output_address=found[i]["OUTPUT_ADDRESS"],
            output_stride=strides[i],
            next_address=found[i + 1]["descriptor"] if i + 1 < len(layers) else None,
            interrupt=interrupt(i),
        )
        placed.append(
            Placed(
                layer, image, found[i]["descriptor"], decode_descriptor(descriptor),
                bytearray(image.weights.tobytes()), bytearray(image.activations.tobytes()),
                image.bias.astype("<i4").tobytes(),
            )
        )  # fmt: skip
    return placed


def passes(placed: Placed) -> dict[str, int]:
    """How often each region is read."""
    schedule = placed.layer.schedule
    return {
        "weights": 1 if placed.image.weights_resident else schedule.columns,
        "activations": 1 if placed.image.activations_resident else schedule.rows,
    }


def beats_moved(placed: Placed) -> tuple[Counter[int], Counter[int]]:
    """How often each beat of memory (address over bytes of the bus) is read, and written, for this layer."""
    config = placed.layer.config
    bus, tile = config.bus_bits // 8, 4 * config.tile_n  # bytes of a row of a tile, written at once
    read, written = Counter[int](), Counter[int]()

    def add(beats: Counter[int], at: int, size: int, times: int = 1) -> None:
        for beat in range(at // bus, -(-(at + size) // bus)):
            beats[beat] += times

    for name, (at, data) in placed.pieces().items():
        add(read, at, len(data), passes(placed).get(name, 1))
    for at, row in placed.rows():
        for i in range(0, len(row), tile):
            add(written, at + i, min(tile, len(row) - i))
    return read, written


def load_beats(placed: Placed, operand: str) -> int:
    """Load beats of images that go into the array; headers of regions do not."""
    config = placed.layer.config
    size, regions = len(getattr(placed, operand)), 1
    if operand == "weights":
        regions = placed.layer.schedule.rows
    return (size // config.load_beat_bytes - regions) * passes(placed)[operand]
