"""Layers read back from memory: the inverse of `pack_layer`, and results that were stored as images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sliceforge.gen.config import AcceleratorConfig, TileLayout
from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.registers import DESCRIPTOR_BYTES, TABLE_WORDS
from sliceforge.sim.descriptor import decode_descriptor, descriptor_schedule
from sliceforge.sim.images import image_beats, unpack_image
from sliceforge.sim.layer_image import LENGTH_BYTES, LayerImage
from sliceforge.sim.schedule import Schedule

__all__ = ["UnpackedLayer", "read_output", "unpack_layer"]

Bytes = npt.NDArray[np.uint8]
ReadMemory = Callable[[int, int], bytes | bytearray | memoryview]


@dataclass(frozen=True, eq=False)
class UnpackedLayer:
    """A layer read back: ``weights`` int16 (M, K), ``x_hat`` uint8 (K, N), ``bias`` int32 (M,), ``exponents``
    one a K-chunk with APSQ, and the ``descriptor``'s fields as `decode_descriptor` gives them.
    """

    descriptor: dict[str, int]
    schedule: Schedule
    weights: npt.NDArray[np.int16]
    x_hat: npt.NDArray[np.uint8]
    bias: npt.NDArray[np.int32]
    exponents: tuple[int, ...]


def unpack_layer(read: ReadMemory, address: int, config: AcceleratorConfig) -> UnpackedLayer:
    """The layer whose descriptor is at ``address``, from memory alone: the inverse of `pack_layer`.

    ``read(address, size)`` gives bytes of memory. Activations come back as x_hat, without the bits that
    `lo_bits` drops. ValueError for a malformed descriptor, region or image.
    """
    d = decode_descriptor(read(address, DESCRIPTOR_BYTES))
    schedule = descriptor_schedule(d, config)
    m, n, dense = schedule.m, schedule.n, max(1, d["WEIGHT_SLICES"] - 1)
    slices = _read_operand(
        read, d["WEIGHTS_ADDRESS"], d["WEIGHTS_LENGTH"], 0, schedule.weight_regions(), schedule,
        banks=config.pea_count, dense=dense, frequent=0, layout=config.weight_layout,
    )  # fmt: skip
    slices = (slices[:, :m] ^ 8) - 8  # 4-bit two's complement
    (low, high) = _read_operand(
        read, d["ACTIVATIONS_ADDRESS"], d["ACTIVATIONS_LENGTH"], d["ACTIVATIONS_STRIDE"],
        schedule.activation_regions(), schedule,
        banks=config.lanes, dense=1, frequent=d["FREQUENT"], layout=config.activation_layout,
    )[:, :n]  # fmt: skip
    l, words, table = d["LO_BITS"], d["EXPONENT_WORDS"], TABLE_WORDS * (d["REQUANTIZE"] & d["TABLE"])
    row_words = 3 if d["REQUANTIZE"] else 1
    parameters = bytes(read(d["PARAMETERS_ADDRESS"] + 4 * table, 4 * (words + row_words * m)))
    rows = np.frombuffer(parameters[4 * words :], "<i4").reshape(m, row_words)
    return UnpackedLayer(
        descriptor=d,
        schedule=schedule,
        weights=(slices << 3 * np.arange(dense + 1)[:, None, None]).sum(axis=0).astype(np.int16),
        x_hat=((high << l) + (low << (l - 4))).T.astype(np.uint8),
        bias=rows[:, 0].astype(np.int32),
        exponents=tuple(parameters[: schedule.steps if schedule.psum_group else 0]),
    )


def read_output(read: ReadMemory, address: int, length: int, image: LayerImage) -> npt.NDArray[np.uint8]:
    """The requantized results (M, N) of a layer from its regions at ``address``, the first of ``length`` load
    beats; without the bits that the next layer's lo_bits drop. ValueError for a malformed region or image.
    """
    output, s = image.output, image.schedule
    assert output is not None
    tile_m = s.config.tile_m
    # A layer that loads them in this order.
    reader = Schedule(
        config=s.config, m=1, k=s.m, n=s.n, chunk=output.group * tile_m, k_tile=output.k_tile, span=tile_m,
        dataflow=Dataflow.WEIGHT_STATIONARY, block=s.columns,
    )  # fmt: skip
    low, high = _read_operand(
        read, address, length, output.stride, reader.activation_regions(), reader,
        banks=s.config.lanes, dense=1, frequent=output.frequent, layout=s.config.activation_layout,
    )[:, : s.n]  # fmt: skip
    values: npt.NDArray[np.int64] = (high << output.lo_bits) + (low << (output.lo_bits - 4))
    return values.T.astype(np.uint8)


def _read_operand(
    read: ReadMemory,
    address: int,
    length: int,
    stride: int,
    regions: list[list[tuple[int, int]]],
    schedule: Schedule,
    *,
    banks: int,
    dense: int,
    frequent: int,
    layout: TileLayout,
) -> npt.NDArray[np.int64]:
    """Slices (dense + 1, tiles * banks * vector, K) as nibbles, HO last, from a chain of regions."""
    config = schedule.config
    tiles = 1 + max(tile for region in regions for tile, _ in region)
    slices = np.full((dense + 1, schedule.k, tiles, banks, layout.vector), frequent, np.int64)
    number = 0
    while length:
        size = length * config.load_beat_bytes
        beats = np.frombuffer(read(address, size), np.uint8).reshape(length, config.load_beat_bytes)
        if stride == 0 and beats[0, LENGTH_BYTES:].any():
            raise ValueError(f"region {number} must have zeros after the length in its header")
        if number == len(regions):
            raise ValueError(f"operand must have {len(regions)} regions, not more")
        rest = beats[1:]
        for tile, kt in regions[number]:
            rest = _unpack_tile(rest, slices[:, schedule.k_slices[kt], tile], config.load_ways, dense, layout)
        if len(rest):
            raise ValueError(f"region must end with its last image, not {len(rest)} beats later")
        address, length = (
            address + (stride or size),
            int.from_bytes(beats[0, :LENGTH_BYTES].tobytes(), "little"),
        )
        number += 1
    if number != len(regions):
        raise ValueError(f"operand must have {len(regions)} regions, not {number}")
    return slices.transpose(0, 2, 3, 4, 1).reshape(dense + 1, -1, schedule.k)


def _unpack_tile(
    beats: Bytes, slices: npt.NDArray[np.int64], ways: int, dense: int, layout: TileLayout
) -> Bytes:
    """Writes the image that ``beats`` begin with into ``slices`` (dense + 1, positions, banks, vector);
    returns what comes after it."""
    _, length, banks, _ = slices.shape
    count = image_beats(beats, banks=banks, ways=ways, length=length, dense=dense, layout=layout)
    found = unpack_image(beats[:count], banks=banks, ways=ways, length=length, dense=dense, layout=layout)
    for bank, (lo, skips, data) in enumerate(found):
        positions = np.cumsum(skips + 1) - 1
        if len(positions) and positions[-1] >= length:
            raise ValueError(f"entries must lie in a tile of {length} positions, not at {positions[-1]}")
        slices[:dense, :, bank] = lo.transpose(1, 0, 2)
        slices[dense, positions, bank] = data
    return beats[count:]
