"""Layers for tests of the whole accelerator, each with its golden result; some feed the next."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.dataflow import Dataflow
from sliceforge.sim.chain import ChainLayer, Requantize, run_chain
from sliceforge.sim.chain_image import pack_chain
from sliceforge.sim.images import activation_images
from sliceforge.sim.layer_image import LayerImage, pack_layer
from sliceforge.sim.operands import random_operands
from sliceforge.sim.plans import plans
from sliceforge.sim.rle import kept_with_fillers
from sliceforge.sim.schedule import Schedule
from sliceforge.sim.work import kept_activation_vectors, kept_weight_vectors

__all__ = [
    "Array", "GoldenLayer", "cut_layer", "linked_layers", "make_chain", "random_operands_of", "scales_for",
    "small_layer",
]  # fmt: skip

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class GoldenLayer:
    """A packed layer, ``inputs`` (K, N) before slicing, and its golden ``result`` (M, N): of 32 bits, or of 8
    if it is requantized. ``producer``: the layer before, if that one's results are its inputs.
    """

    operands: ChainLayer
    image: LayerImage
    inputs: Array
    result: Array
    producer: GoldenLayer | None

    @property
    def schedule(self) -> Schedule:
        return self.image.schedule

    @property
    def config(self) -> AcceleratorConfig:
        return self.schedule.config

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.schedule.m, self.schedule.k, self.schedule.n

    def products(self) -> int:
        """Outer products that the array issues: with fillers, and on the grid padded to whole tiles."""
        c, s, layer = self.config, self.schedule, self.operands
        kept = (
            kept_weight_vectors(layer.weights, layer.weight_bits, c.vector),
            kept_activation_vectors(self.inputs, layer.zero_point, layer.lo_bits, c.vector),
        )
        slices = (layer.weight_bits - 1) // 3
        total = 0
        for part in s.k_slices:
            weight, activation = (
                kept_with_fillers(k[:, part], c.tile_k, c.run_bits).sum(axis=0) for k in kept
            )
            weight_steps = s.rows * c.pea_count * max(1, slices - 1) + weight * (slices > 1)
            total += int(weight_steps @ (s.columns * c.lanes + activation))
        return total

    @cached_property
    def output_regions(self) -> list[list[Array]]:
        """The tile images in each region that the layer writes, in the order of memory."""
        output, s, c = self.image.output, self.schedule, self.config
        assert output is not None
        return [
            activation_images(
                self.result[i * c.tile_m : (i + 1) * c.tile_m, j * c.tile_n : (j + 1) * c.tile_n],
                zero_point=output.frequent << output.lo_bits, lo_bits=output.lo_bits, config=c,
                k_tile=output.k_tile,
            ).images[0]
            for first in range(0, s.rows, output.group)
            for j in range(s.columns)
            for i in range(first, min(s.rows, first + output.group))
        ]  # fmt: skip

    def region_beats(self, operand: str) -> list[int]:
        """Load beats of each region of "weights" or "activations" that it reads, without the headers."""
        if operand == "activations" and self.producer is not None:
            return [sum(map(len, region)) for region in self.producer.output_regions]
        data = self.image.weights if operand == "weights" else self.image.activations
        length = self.image.weights_length if operand == "weights" else self.image.activations_length
        beats, lengths = data.reshape(-1, self.config.load_beat_bytes), []
        while length:
            lengths.append(length - 1)
            following = int.from_bytes(beats[0, :4].tobytes(), "little")
            beats, length = beats[length:], following
        return lengths

    def loads(self, operand: str) -> int:
        """How often each region is read."""
        s = self.schedule
        return math.prod(s.weight_loads if operand == "weights" else s.activation_loads)


def make_chain(
    rng: random.Random,
    config: AcceleratorConfig,
    operands: list[ChainLayer],
    x: Array,
    *,
    flows: list[Dataflow],
    chunk: int | None = None,
    resident: bool | None = True,
    spilled: Sequence[bool | None] = (),
) -> list[GoldenLayer]:
    """The layers of a chain, each with a random schedule of its dataflow.

    chunk: of layers without APSQ. resident: operands stay on chip as far as possible (True), are loaded again
    wherever that is possible, or either. spilled: each layer's partial sums are kept in memory, on chip, or
    either. ValueError for what the machine cannot run.
    """
    results = run_chain(operands, x)
    layers: list[GoldenLayer] = []
    images = pack_chain(operands, x, config=config, dataflow=flows, chunk=chunk)
    places = [*spilled, *[None] * (len(operands) - len(spilled))]
    for link, image, result, inputs, spills in zip(
        operands, images, results, [x, *results[:-1]], places, strict=True
    ):
        s = image.schedule
        may_load = rng.random() < 0.5 if resident is None else resident
        found = [
            other
            for other in plans(
                config, s.m, s.k, s.n, dataflow=s.dataflow, chunk=s.chunk, psum_group=s.psum_group,
                k_tile=s.k_tile, span=s.span, resident=may_load,
            )
            if spills is None or s.steps == 1 or other.psums_resident != spills
        ]  # fmt: skip
        if not found:
            raise ValueError("no schedule")
        packed = pack_layer(
            link.weights, None if layers else x, image.bias, zero_point=link.zero_point,
            weight_bits=link.weight_bits, lo_bits=link.lo_bits, config=config,
            schedule=found[0] if resident and spills is None else rng.choice(found),
            psum_exponents=link.psum_exponents, activations_stride=image.activations_stride,
            output=image.output,
        )  # fmt: skip
        layers.append(GoldenLayer(link, packed, inputs, result, layers[-1] if layers else None))
    return layers


def _numbers(rng: random.Random) -> np.random.Generator:
    return np.random.default_rng(rng.getrandbits(64))


def scales_for(
    rng: random.Random, layer: ChainLayer, x: Array, next_zero_point: int, next_lo_bits: int
) -> Requantize:
    """Scales that spread the results over the 8 bits."""
    y = run_chain([layer], x)[-1]
    numbers, m = _numbers(rng), len(layer.weights)
    shift = min(62, max(1, round(math.log2(1.5 * (1 << 30) * max(1.0, float(y.std())) / 40))))
    rows = m if rng.random() < 0.5 else None
    return Requantize(
        numbers.integers(1 << 30, 1 << 31, rows),
        np.minimum(62, shift + numbers.integers(0, 2, rows)),
        rng.choice([0, 255, next_zero_point, next_zero_point, rng.randrange(256)]),
        rng.random() < 0.5,
        next_lo_bits,
        numbers.integers(0, 256, 256).astype(np.uint8) if rng.random() < 0.3 else None,
    )


def random_operands_of(
    rng: random.Random,
    config: AcceleratorConfig,
    shape: tuple[int, int, int],
    *,
    weight_bits: int,
    lo_bits: int,
    zero_point: int,
    weight_sparsity: float,
    activation_sparsity: float,
    group: int,
    chunk: int | None,
) -> tuple[ChainLayer, Array]:
    """A layer, and activations in case it is the first."""
    numbers = _numbers(rng)
    weights, x = random_operands(
        numbers, shape, vector=config.vector, weight_bits=weight_bits, lo_bits=lo_bits, zero_point=zero_point,
        weight_sparsity=weight_sparsity, activation_sparsity=activation_sparsity,
    )  # fmt: skip
    psums: dict[str, Any] = {}
    if group:
        chunk = min(shape[1], chunk or shape[1])
        exponents = numbers.integers(0, 12, -(-shape[1] // chunk))
        psums = {"psum_group": group, "psum_chunk": chunk, "psum_exponents": exponents}
    bias = numbers.integers(-(1 << 20), 1 << 20, shape[0]) >> rng.choice([0, 10])
    return ChainLayer(weights, zero_point, bias, lo_bits, weight_bits, **psums), x


def small_layer(
    rng: random.Random, config: AcceleratorConfig, shape: Any = None, **settings: Any
) -> GoldenLayer:
    """A layer of a few tiles, (M, K, N) all different unless ``shape`` says otherwise.

    settings: of the operands as in `random_operands`; ``flow``, ``group``, ``chunk``; ``requantize``;
    ``resident``, ``spilled`` as of `make_chain`.
    """
    chosen = {
        "weight_bits": 4, "lo_bits": 4, "zero_point": 128, "weight_sparsity": 0.5, "activation_sparsity": 0.5,
        "group": 0, "chunk": None,
    }  # fmt: skip
    chosen |= {name: settings[name] for name in chosen if name in settings}
    flow, resident, spilled = (
        settings.get(name, usual)
        for name, usual in (("flow", Dataflow.OUTPUT_STATIONARY), ("resident", True), ("spilled", None))
    )
    shape = shape or (config.tile_m + 1, min(config.max_k, config.tile_k + 3), config.tile_n + 2)
    layer, x = random_operands_of(rng, config, shape, **chosen)
    if settings.get("requantize"):
        layer = replace(layer, output=scales_for(rng, layer, x, rng.randrange(256), rng.choice([4, 5, 6])))
    return make_chain(
        rng, config, [layer], x, flows=[flow], chunk=chosen["chunk"], resident=resident, spilled=[spilled]
    )[0]


def cut_layer(rng: random.Random, config: AcceleratorConfig, **settings: Any) -> GoldenLayer:
    """A small layer of three K-chunks, of any dataflow, with or without APSQ, with spilled partial sums."""
    chosen: dict[str, Any] = {
        "shape": (rng.choice([1, config.tile_m + 1]), 13, config.tile_n + 2), "chunk": 5,
        "flow": rng.choice(list(Dataflow)), "group": rng.randrange(5), "spilled": True,
    }  # fmt: skip
    return small_layer(rng, config, **{**chosen, **settings})


def linked_layers(
    rng: random.Random, config: AcceleratorConfig, flows: Sequence[Dataflow] = ()
) -> list[GoldenLayer]:
    """Two small layers with spilled partial sums, of any dataflow; the first one feeds the second."""
    m = config.tile_m + 1
    for attempt in range(100):
        n = config.tile_n + (2 if attempt < 4 else -1)  # else the second one's activations may not fit
        sizes = dict.fromkeys(("weight_sparsity", "activation_sparsity"), 0.5)
        chosen = list(flows) or [rng.choice(list(Dataflow)) for _ in range(2)]
        formats = [
            {"weight_bits": 4, "zero_point": rng.randrange(256), "lo_bits": rng.choice([4, 5, 6]),
             "chunk": config.tile_m, "group": rng.randrange(5)} for _ in range(2)
        ]  # fmt: skip
        first, x = random_operands_of(rng, config, (m, config.tile_m + 5, n), **sizes, **formats[0])
        second, _ = random_operands_of(rng, config, (config.tile_m + 2, m, n), **sizes, **formats[1])
        output = scales_for(rng, first, x, second.zero_point, second.lo_bits)
        try:
            return make_chain(
                rng, config, [replace(first, output=output), second], x, flows=chosen, chunk=config.tile_m,
                resident=None, spilled=[True, True],
            )  # fmt: skip
        except ValueError:  # too much for the machine's memories
            continue
    raise AssertionError(f"no linked layers for {config}")
