"""A layer as the hardware reads it: regions of tile images, folded biases and the descriptor
(docs/memory-format.md), and back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sliceforge.gen.config import AcceleratorConfig, TileLayout
from sliceforge.gen.registers import DESCRIPTOR, DESCRIPTOR_BYTES, DESCRIPTOR_FORMAT
from sliceforge.sim import checks
from sliceforge.sim.images import activation_images, image_beats, unpack_image, weight_images
from sliceforge.sim.schedule import Schedule

__all__ = [
    "LayerImage", "UnpackedLayer", "decode_descriptor", "descriptor_bytes", "encode_descriptor",
    "least_bytes", "pack_layer", "unpack_layer",
]  # fmt: skip

Bytes = npt.NDArray[np.uint8]
ReadMemory = Callable[[int, int], bytes | bytearray | memoryview]

_LENGTH_BYTES = 4  # of a region's header: the length of the next region


@dataclass(frozen=True, eq=False)
class LayerImage:
    """What memory holds of one layer (M, K, N), for machine ``config``.

    weights, activations : uint8, all regions one after another; their first ones have ``weights_length``
        and ``activations_length`` load beats, header included.
    bias : int32 (M,), folded.
    lo_bits, weight_slices, frequent, weights_resident, activations_resident : as in the descriptor.
    """

    config: AcceleratorConfig
    m: int
    k: int
    n: int
    weights: Bytes
    activations: Bytes
    bias: npt.NDArray[np.int32]
    weights_length: int
    activations_length: int
    lo_bits: int
    weight_slices: int
    frequent: int
    weights_resident: bool
    activations_resident: bool


@dataclass(frozen=True, eq=False)
class UnpackedLayer:
    """A layer read back: ``weights`` int16 (M, K), ``x_hat`` uint8 (K, N), ``bias`` int32 (M,), and the
    ``descriptor``'s fields as `decode_descriptor` gives them.
    """

    descriptor: dict[str, int]
    weights: npt.NDArray[np.int16]
    x_hat: npt.NDArray[np.uint8]
    bias: npt.NDArray[np.int32]


def pack_layer(
    weights: npt.ArrayLike,
    activations: npt.ArrayLike,
    folded_bias: npt.ArrayLike,
    *,
    zero_point: int,
    weight_bits: int,
    lo_bits: int,
    config: AcceleratorConfig,
    resident: bool = True,
) -> LayerImage:
    """The images of ``Y = W @ (x_hat - zp) + bias``.

    weights (M, K), activations (K, N): integers; folded_bias (M,): of 32 bits, zp folded in as by
    `gemm.folded_bias`. resident: operands that fit their memory
    are loaded once; False loads them for each pass. Raises TypeError or ValueError for what ``config``'s
    machine cannot run, except for sums beyond 32 bits.
    """
    w, x, bias = checks.gemm_operands(weights, activations, folded_bias, weight_bits)
    (m, k), n = w.shape, x.shape[1]
    if weight_bits > config.max_weight_bits:
        raise ValueError(f"weight_bits must be at most {config.max_weight_bits}, not {weight_bits}")
    if k > config.max_k:
        raise ValueError(f"weights must have at most max_k = {config.max_k} columns, not {k}")
    zero = checks.zero_point(zero_point)
    weight_rows = weight_images(w, weight_bits=weight_bits, config=config).images
    columns = activation_images(x, zero_point=zero, lo_bits=lo_bits, config=config).images
    weight_regions, weights_length = _regions(weight_rows)
    activation_region, activations_length = _regions([[image for column in columns for image in column]])
    schedule = Schedule(config, m, k, n)
    return LayerImage(
        config=config,
        m=m,
        k=k,
        n=n,
        weights=weight_regions,
        activations=activation_region,
        bias=bias.astype(np.int32),
        weights_length=weights_length,
        activations_length=activations_length,
        lo_bits=int(lo_bits),
        weight_slices=(int(weight_bits) - 1) // 3,
        frequent=zero >> lo_bits,
        weights_resident=resident and schedule.weights_resident,
        activations_resident=resident and schedule.activations_resident,
    )


def _regions(images: list[list[Bytes]]) -> tuple[Bytes, int]:
    """Regions of the tile images that each list holds, and the load beats of the first."""
    lengths = [1 + sum(len(image) for image in region) for region in images]
    parts = []
    for region, following in zip(images, [*lengths[1:], 0], strict=True):
        header = np.zeros((1, region[0].shape[1]), np.uint8)
        header[0, :_LENGTH_BYTES] = np.frombuffer(following.to_bytes(_LENGTH_BYTES, "little"), np.uint8)
        parts += [header, *region]
    return np.concatenate(parts).reshape(-1), lengths[0]


def least_bytes(image: LayerImage) -> tuple[int, int]:
    """``(read, written)``: bytes that a layer moves at least. Each compressed operand, the biases and the
    descriptor are read once, each result is written once.
    """
    read = image.weights.nbytes + image.activations.nbytes + image.bias.nbytes + DESCRIPTOR_BYTES
    return read, 4 * image.m * image.n


def descriptor_bytes(
    image: LayerImage,
    *,
    weights_address: int,
    activations_address: int,
    bias_address: int,
    output_address: int,
    output_stride: int,
    next_address: int | None = None,
    interrupt: bool = False,
) -> bytes:
    """The layer's descriptor. next_address: of the next layer's, None after the last; interrupt: raise
    LAYER when this layer is done. ValueError for a value that its field cannot hold; whether the machine
    will accept it is not checked.
    """
    return encode_descriptor(
        {
            "FORMAT": DESCRIPTOR_FORMAT,
            "NEXT": next_address is not None,
            "INTERRUPT": interrupt,
            "WEIGHTS_RESIDENT": image.weights_resident,
            "ACTIVATIONS_RESIDENT": image.activations_resident,
            "LO_BITS": image.lo_bits,
            "WEIGHT_SLICES": image.weight_slices,
            "FREQUENT": image.frequent,
            "M": image.m,
            "N": image.n,
            "K": image.k,
            "WEIGHTS_ADDRESS": weights_address,
            "WEIGHTS_LENGTH": image.weights_length,
            "ACTIVATIONS_ADDRESS": activations_address,
            "ACTIVATIONS_LENGTH": image.activations_length,
            "BIAS_ADDRESS": bias_address,
            "OUTPUT_ADDRESS": output_address,
            "OUTPUT_STRIDE": output_stride,
            "NEXT_ADDRESS": next_address or 0,
        }
    )


def _descriptor_fields() -> dict[str, tuple[int, int]]:
    """(lowest bit in the descriptor, width) of each field; the two words of an address are one field."""
    fields: dict[str, tuple[int, int]] = {}
    for register in DESCRIPTOR:
        for field in register.fields:
            name = register.name if field.name == "VALUE" else field.name
            if name.endswith("_HIGH"):
                name = name.removesuffix("_HIGH")
                fields[name] = (fields[name][0], fields[name][1] + field.width)
            else:
                fields[name] = (8 * register.offset + field.lsb, field.width)
    return fields


_FIELDS = _descriptor_fields()


def encode_descriptor(values: Mapping[str, int]) -> bytes:
    """A descriptor of these fields, named as in `registers.DESCRIPTOR`: a register's name, or its fields'
    where it has several; an address is one value of 64 bits. Absent fields are 0, and values need not be
    legal, but must fit: else ValueError.
    """
    word = 0
    for name, value in values.items():
        lsb, width = _FIELDS[name]
        word |= checks.integer(name, int(value), 0, (1 << width) - 1) << lsb
    return word.to_bytes(DESCRIPTOR_BYTES, "little")


def decode_descriptor(data: bytes | bytearray | memoryview) -> dict[str, int]:
    """All fields of a descriptor, as `encode_descriptor` takes them. ValueError if its format is unknown or
    a reserved bit is set.
    """
    word = int.from_bytes(data, "little")
    values = {name: word >> lsb & ((1 << width) - 1) for name, (lsb, width) in _FIELDS.items()}
    if len(data) != DESCRIPTOR_BYTES or encode_descriptor(values) != bytes(data):
        raise ValueError(f"descriptor must have {DESCRIPTOR_BYTES} bytes and all reserved bits 0")
    if values["FORMAT"] != DESCRIPTOR_FORMAT:
        raise ValueError(f"descriptor must have format {DESCRIPTOR_FORMAT}, not {values['FORMAT']}")
    return values


def unpack_layer(read: ReadMemory, address: int, config: AcceleratorConfig) -> UnpackedLayer:
    """The layer whose descriptor is at ``address``, from memory alone: the inverse of `pack_layer`.

    ``read(address, size)`` gives bytes of memory. Activations come back as x_hat, without the bits that
    `lo_bits` drops. ValueError for a malformed descriptor, region or image.
    """
    d = decode_descriptor(read(address, DESCRIPTOR_BYTES))
    m, k, n = d["M"], d["K"], d["N"]
    schedule = Schedule(config, m, k, n)
    weights = _read_regions(read, d["WEIGHTS_ADDRESS"], d["WEIGHTS_LENGTH"], schedule.rows, config)
    activations = _read_regions(read, d["ACTIVATIONS_ADDRESS"], d["ACTIVATIONS_LENGTH"], 1, config)
    ways, dense = config.load_ways, max(1, d["WEIGHT_SLICES"] - 1)
    weight_tiles = [
        _unpack_tiles(region, 1, k, config.pea_count, ways, dense, 0, config.weight_layout)
        for region in weights
    ]
    slices = (np.concatenate(weight_tiles, axis=1)[:, :m] ^ 8) - 8  # 4-bit two's complement
    (low, high) = _unpack_tiles(
        activations[0], schedule.columns, k, config.lanes, ways, 1, d["FREQUENT"], config.activation_layout
    )[:, :n]
    l = d["LO_BITS"]
    return UnpackedLayer(
        descriptor=d,
        weights=(slices << 3 * np.arange(dense + 1)[:, None, None]).sum(axis=0).astype(np.int16),
        x_hat=((high << l) + (low << (l - 4))).T.astype(np.uint8),
        bias=np.frombuffer(read(d["BIAS_ADDRESS"], 4 * m), "<i4").astype(np.int32),
    )


def _read_regions(
    read: ReadMemory, address: int, length: int, count: int, config: AcceleratorConfig
) -> list[Bytes]:
    """The tile images of ``count`` regions, each (beats, load_beat_bytes), the first of ``length`` beats."""
    regions: list[Bytes] = []
    while length:
        size = length * config.load_beat_bytes
        beats = np.frombuffer(read(address, size), np.uint8).reshape(length, config.load_beat_bytes)
        if beats[0, _LENGTH_BYTES:].any():
            raise ValueError(f"region {len(regions)} must have zeros after the length in its header")
        regions.append(beats[1:])
        address, length = address + size, int.from_bytes(beats[0, :_LENGTH_BYTES].tobytes(), "little")
    if len(regions) != count:
        raise ValueError(f"operand must have {count} regions, not {len(regions)}")
    return regions


def _unpack_tiles(
    region: Bytes, tiles: int, k: int, banks: int, ways: int, dense: int, frequent: int, layout: TileLayout
) -> npt.NDArray[np.int64]:
    """Slices (dense + 1, tiles * banks * vector, k) as nibbles, HO last, from a region's tile images."""
    slices = np.full((dense + 1, k, tiles, banks, layout.vector), frequent, np.int64)
    for tile in range(tiles):
        for start in range(0, k, layout.tile_k):
            length = min(layout.tile_k, k - start)
            beats = image_beats(region, banks=banks, ways=ways, length=length, dense=dense, layout=layout)
            found = unpack_image(
                region[:beats], banks=banks, ways=ways, length=length, dense=dense, layout=layout
            )
            region = region[beats:]
            for bank, (lo, skips, data) in enumerate(found):
                positions = np.cumsum(skips + 1) - 1
                if len(positions) and positions[-1] >= length:
                    raise ValueError(
                        f"entries must lie in a tile of {length} positions, not at {positions[-1]}"
                    )
                slices[:dense, start : start + length, tile, bank] = lo.transpose(1, 0, 2)
                slices[dense, start + positions, tile, bank] = data
    if len(region):
        raise ValueError(f"region must end with its last image, not {len(region)} beats later")
    return slices.transpose(0, 2, 3, 4, 1).reshape(dense + 1, -1, k)
