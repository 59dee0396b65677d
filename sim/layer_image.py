"""A layer as the hardware reads it: regions of tile images, parameters and the descriptor
(docs/memory-format.md). `sim/layer_memory.py` reads it back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.registers import DESCRIPTOR_BYTES, DESCRIPTOR_FORMAT
from sliceforge.hw.payloads import PSUM_BANKS
from sliceforge.hw.psum_nest import psum_stride
from sliceforge.sim import checks
from sliceforge.sim.apsq import check_exponents
from sliceforge.sim.descriptor import MOST_SPAN, encode_descriptor
from sliceforge.sim.images import activation_images, weight_images
from sliceforge.sim.plans import plan
from sliceforge.sim.schedule import Schedule

__all__ = [
    "LENGTH_BYTES",
    "LayerImage",
    "OutputImages",
    "descriptor_bytes",
    "descriptor_fields",
    "least_bytes",
    "pack_layer",
]  # fmt: skip

Bytes = npt.NDArray[np.uint8]
ReadMemory = Callable[[int, int], bytes | bytearray | memoryview]

LENGTH_BYTES = 4
"""Of a region's header: the length of the next region."""


@dataclass(frozen=True, eq=False)
class OutputImages:
    """How a layer's results become the next layer's activations in memory.

    multiplier, shift : int64 (M,), and zero_point, relu: of `requantize.requantize`. table : uint8 (256,) or
        None. lo_bits, frequent, k_tile : of the next layer.
    group : rows of tiles whose regions lie side by side. stride : bytes from a region to the next.
    """

    multiplier: npt.NDArray[np.int64]
    shift: npt.NDArray[np.int64]
    zero_point: int
    relu: bool
    table: npt.NDArray[np.uint8] | None
    lo_bits: int
    frequent: int
    k_tile: int
    group: int
    stride: int


@dataclass(frozen=True, eq=False)
class LayerImage:
    """What memory holds of one layer, which runs as ``schedule`` says.

    weights, activations : uint8, all regions one after another; their first ones have ``weights_length``
        and ``activations_length`` load beats, header included.
        Those of a layer that follows another in a chain are not here: they lie ``activations_stride`` bytes
        apart.
    bias : int32 (M,), folded. exponents : of APSQ, one a K-chunk; none with full partial sums.
    lo_bits, weight_slices, frequent : as in the descriptor. output : None for results of 32 bits.
    """

    schedule: Schedule
    weights: Bytes
    activations: Bytes
    bias: npt.NDArray[np.int32]
    exponents: tuple[int, ...]
    weights_length: int
    activations_length: int
    lo_bits: int
    weight_slices: int
    frequent: int
    activations_stride: int = 0
    output: OutputImages | None = None

    @property
    def config(self) -> AcceleratorConfig:
        return self.schedule.config

    @property
    def exponent_words(self) -> npt.NDArray[np.uint32]:
        """The exponents as the machine reads them: four a word, the first lowest."""
        padded = np.zeros(-(-len(self.exponents) // 4) * 4, np.uint8)
        padded[: len(self.exponents)] = self.exponents
        return padded.view("<u4").astype(np.uint32)

    @property
    def parameters(self) -> npt.NDArray[np.uint32]:
        """Activation table, exponents, biases and scales as they lie in memory."""
        rows, words = self.bias.view(np.uint32)[:, None], [self.exponent_words]
        if self.output is not None:
            scales = np.stack([self.output.multiplier, self.output.shift], axis=1)
            rows = np.concatenate([rows, scales.astype(np.uint32)], axis=1)
            if self.output.table is not None:
                words.insert(0, self.output.table.view("<u4").astype(np.uint32))
        return np.concatenate([*words, rows.reshape(-1)])

    @property
    def image_bytes(self) -> tuple[int, int]:
        """Bytes of all tile images of weights and of activations, without the headers of regions."""
        headers = self.schedule.header_bytes
        return self.weights.nbytes - headers[0], self.activations.nbytes - headers[1]

    @property
    def output_bytes(self) -> int:
        """Memory that the results take."""
        s = self.schedule
        return 4 * s.m * s.n if self.output is None else s.rows * s.columns * self.output.stride

    @property
    def psum_bytes(self) -> int:
        """Memory that partial sums take which are not resident."""
        s = self.schedule
        if s.psums_resident:
            return 0
        stride: int = psum_stride(s.psum_tile_bytes // 4, s.config.bus_bits)
        return s.waiting_psums * max(1, s.psum_group) * stride


def pack_layer(
    weights: npt.ArrayLike,
    activations: npt.ArrayLike | None,
    folded_bias: npt.ArrayLike,
    *,
    zero_point: int,
    weight_bits: int,
    lo_bits: int,
    config: AcceleratorConfig,
    dataflow: Dataflow | None = Dataflow.OUTPUT_STATIONARY,
    chunk: int | None = None,
    psum_group: int = 0,
    psum_exponents: npt.ArrayLike | None = None,
    resident: bool = True,
    schedule: Schedule | None = None,
    activations_stride: int = 0,
    output: OutputImages | None = None,
) -> LayerImage:
    """The images of ``Y = W @ (x_hat - zp) + bias``, or of the APSQ of arithmetic.md section 8.

    weights (M, K), activations (K, N): integers; folded_bias (M,): of 32 bits, zp folded in as by
    `gemm.folded_bias`. dataflow, chunk, psum_group, resident : of `plans.plan`, which chooses the schedule
    by the size of these images; schedule: take this one instead. psum_exponents: with psum_group, one integer
    or one a K-chunk. Where activations are None, another layer writes them, in regions ``activations_stride``
    bytes apart (`chain_image.pack_chain`). Raises TypeError or ValueError for what ``config``'s machine
    cannot run, except for sums beyond 32 bits.
    """
    assert activations is not None or schedule is not None
    given = np.zeros((np.shape(weights)[1], 1), np.uint8) if activations is None else activations
    w, x, bias = checks.gemm_operands(weights, given, folded_bias, weight_bits)
    (m, k), n = w.shape, x.shape[1]
    if weight_bits > config.max_weight_bits:
        raise ValueError(f"weight_bits must be at most {config.max_weight_bits}, not {weight_bits}")
    if k > config.max_k:
        raise ValueError(f"weights must have at most max_k = {config.max_k} columns, not {k}")
    zero = checks.zero_point(zero_point)
    if schedule is not None:
        chunk, k_tile, psum_group = schedule.chunk, schedule.k_tile, schedule.psum_group
    else:
        k_tile = config.tile_k
    group = checks.integer("psum_group", psum_group, 0, PSUM_BANKS)
    size = k if chunk is None else min(k, checks.integer("chunk", chunk, 1))
    weight_rows = weight_images(w, weight_bits=weight_bits, config=config, chunk=size, k_tile=k_tile)
    if activations is not None:
        columns = activation_images(
            x, zero_point=zero, lo_bits=lo_bits, config=config, chunk=size, k_tile=k_tile
        )
    if schedule is None:
        schedule = plan(
            config, m, k, n, dataflow=dataflow, chunk=size, psum_group=group, resident=resident,
            weight_bytes=weight_rows.nbytes, activation_bytes=columns.nbytes,
        )  # fmt: skip
    weight_regions, weights_length = _regions(weight_rows.images, schedule.weight_regions())
    activation_regions, activations_length = np.zeros(0, np.uint8), 0
    if activations is not None:
        activation_regions, activations_length = _regions(columns.images, schedule.activation_regions())
    exponents: list[int] = []
    if group:
        if psum_exponents is None:
            raise ValueError(f"psum_exponents must be given with psum_group = {group}, not None")
        exponents = check_exponents("psum_exponents", psum_exponents, schedule.steps)
    return LayerImage(
        schedule=schedule,
        weights=weight_regions,
        activations=activation_regions,
        bias=bias.astype(np.int32),
        exponents=tuple(exponents),
        weights_length=weights_length,
        activations_length=activations_length,
        lo_bits=int(lo_bits),
        weight_slices=(int(weight_bits) - 1) // 3,
        frequent=zero >> lo_bits,
        activations_stride=activations_stride,
        output=output,
    )


def _regions(images: list[list[Bytes]], regions: list[list[tuple[int, int]]]) -> tuple[Bytes, int]:
    """The regions of tile images one behind the other, and the load beats of the first."""
    lengths = [1 + sum(len(images[tile][kt]) for tile, kt in region) for region in regions]
    parts = []
    for region, following in zip(regions, [*lengths[1:], 0], strict=True):
        header = np.zeros((1, images[0][0].shape[1]), np.uint8)
        header[0, :LENGTH_BYTES] = np.frombuffer(following.to_bytes(LENGTH_BYTES, "little"), np.uint8)
        parts += [header, *(images[tile][kt] for tile, kt in region)]
    return np.concatenate(parts).reshape(-1), lengths[0]


def least_bytes(image: LayerImage) -> tuple[int, int]:
    """``(read, written)``: bytes that a layer moves at least. Each compressed operand, the parameters and the
    descriptor are read once, each result of 32 bits is written once; what images of results take is not known
    before.
    """
    read = image.weights.nbytes + image.activations.nbytes + image.parameters.nbytes + DESCRIPTOR_BYTES
    return read, image.output_bytes if image.output is None else 0


def descriptor_bytes(
    image: LayerImage,
    *,
    weights_address: int,
    activations_address: int,
    parameters_address: int,
    output_address: int,
    output_stride: int | None = None,
    psum_address: int = 0,
    length_address: int = 0,
    next_address: int | None = None,
    interrupt: bool = False,
) -> bytes:
    """The layer's descriptor. output_address: of ``image.output_bytes`` bytes; output_stride: from a row of
    results to the next, None for no gap; psum_address: of ``image.psum_bytes`` bytes; length_address: where
    the length of a requantized layer's first region goes; next_address: of the next layer's,
    None after the last; interrupt: raise LAYER when this layer is done. ValueError for a value that its field
    cannot hold; whether the machine will accept it is not checked.
    """
    return encode_descriptor(
        {
            **descriptor_fields(image),
            "NEXT": next_address is not None,
            "INTERRUPT": interrupt,
            "WEIGHTS_ADDRESS": weights_address,
            "ACTIVATIONS_ADDRESS": activations_address,
            "PARAMETERS_ADDRESS": parameters_address,
            "OUTPUT_ADDRESS": output_address,
            **({} if output_stride is None else {"OUTPUT_STRIDE": output_stride}),
            "PSUM_ADDRESS": psum_address,
            "LENGTH_ADDRESS": length_address,
            "NEXT_ADDRESS": next_address or 0,
        }
    )


def descriptor_fields(image: LayerImage) -> dict[str, int]:
    """The descriptor's fields that do not depend on where the layer lies."""
    s = image.schedule
    fields = {
        "FORMAT": DESCRIPTOR_FORMAT,
        "WEIGHTS_RESIDENT": s.weights_resident,
        "ACTIVATIONS_RESIDENT": s.activations_resident,
        "PSUMS_RESIDENT": s.psums_resident,
        "BLOCKS_SHARE": s.blocks_share,
        "DATAFLOW": s.dataflow.value,
        "LO_BITS": image.lo_bits,
        "WEIGHT_SLICES": image.weight_slices,
        "FREQUENT": image.frequent,
        "M": s.m,
        "N": s.n,
        "K": s.k,
        "WEIGHTS_LENGTH": image.weights_length,
        "K_CHUNK": s.chunk,
        "ACTIVATIONS_LENGTH": image.activations_length,
        "ACTIVATIONS_SPAN": MOST_SPAN if s.span is None else s.span,
        "K_TILE": s.k_tile,
        "PSUM_GROUP": s.psum_group,
        "BLOCK": s.block,
        "EXPONENT_WORDS": len(image.exponent_words),
        "ACTIVATIONS_STRIDE": image.activations_stride,
        "OUTPUT_STRIDE": 4 * s.n,
    }
    output = image.output
    if output is not None:
        fields |= {
            "OUTPUT_STRIDE": output.stride,
            "REQUANTIZE": 1,
            "RELU": output.relu,
            "TABLE": output.table is not None,
            "NEXT_LO_BITS": output.lo_bits,
            "NEXT_FREQUENT": output.frequent,
            "ZERO_POINT": output.zero_point,
            "NEXT_K_TILE": output.k_tile,
            "OUTPUT_GROUP": output.group,
            "OUTPUT_TILE_ROWS": s.rows,
            "OUTPUT_TILE_COLUMNS": s.columns,
        }
    return fields
