"""Layers that chain, as the hardware reads them: each layer's results are the next one's activations in
memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.dataflow import Dataflow
from sliceforge.sim import checks
from sliceforge.sim.chain import ChainLayer, check_link
from sliceforge.sim.gemm import folded_bias
from sliceforge.sim.layer_image import LayerImage, OutputImages, pack_layer
from sliceforge.sim.limits import check_hardware, check_psums
from sliceforge.sim.plans import plan
from sliceforge.sim.schedule import Schedule

__all__ = ["chain_k_tile", "pack_chain", "region_stride"]


def chain_k_tile(config: AcceleratorConfig) -> int:
    """Positions in a tile image of a layer that follows another: the most that a tile's rows are a multiple
    of.
    """
    return max(size for size in range(1, config.tile_k + 1) if config.tile_m % size == 0)


def region_stride(config: AcceleratorConfig) -> int:
    """Bytes of the largest region of one output tile's images, its header included."""
    size = chain_k_tile(config)
    image = config.activation_layout.most_image_beats(config.lanes, config.load_ways, size)
    return (1 + config.tile_m // size * image) * config.load_beat_bytes


def pack_chain(
    layers: Sequence[ChainLayer],
    activations: npt.ArrayLike,
    *,
    config: AcceleratorConfig,
    dataflow: Dataflow | Sequence[Dataflow | None] | None = Dataflow.OUTPUT_STATIONARY,
    chunk: int | None = None,
) -> list[LayerImage]:
    """The images of layers of which each one's result is the next one's input (`chain.run_chain`).

    activations (K, N) of the first layer. dataflow: of all layers or one each, None for the least traffic.
    chunk: positions along K after which sums leave the array, without APSQ; with it, the layer's psum_chunk.
    After the first layer a chunk must be a multiple of tile_m, or K. Raises TypeError or ValueError for what
    ``config``'s machine cannot run; the message names the layer.
    """
    if not layers:
        raise ValueError("layers must be one or more, not none")
    flows = [dataflow] * len(layers) if dataflow is None or isinstance(dataflow, Dataflow) else list(dataflow)
    if len(flows) != len(layers):
        raise ValueError(f"dataflow must be one or one for each of {len(layers)} layers, not {len(flows)}")
    if chunk is not None:
        checks.integer("chunk", chunk, 1)
    x = checks.matrix("activations", checks.activations("activations", activations), "(K, N)")
    k, n = x.shape
    plans: list[Schedule] = []
    images: list[LayerImage] = []
    for i, (layer, flow) in enumerate(zip(layers, flows, strict=True)):
        with _naming_layer(i):
            w = checks.matrix(
                "weights", checks.weights("weights", layer.weights, layer.weight_bits), "(M, K)"
            )
            if w.shape[1] != k:
                raise ValueError(f"weights must have K = {k} columns, not {w.shape[1]}")
            check_link(layer, layers[i + 1] if i + 1 < len(layers) else None)
            plans.append(_plan(layer, i > 0, n, flow, chunk, config))
        k = len(layer.weights)
    for i, layer in enumerate(layers):
        with _naming_layer(i):
            following = (layers[i + 1], plans[i + 1]) if i + 1 < len(layers) else None
            images.append(_pack(layer, None if i else x, plans[i], following))
    return images


@contextmanager
def _naming_layer(i: int) -> Iterator[None]:
    """Errors of input tell that they are about layer i."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"layers[{i}]: {error}") from None


def _plan(
    layer: ChainLayer,
    follows: bool,
    n: int,
    flow: Dataflow | None,
    chunk: int | None,
    config: AcceleratorConfig,
) -> Schedule:
    m, k = np.shape(layer.weights)
    size = min(k, (layer.psum_chunk or 32) if layer.psum_group else (chunk or k))
    parts: dict[str, Any] = {}
    if follows:
        if size < k and size % config.tile_m:
            name = "psum_chunk" if layer.psum_group else "chunk"
            raise ValueError(f"{name} must be a multiple of tile_m = {config.tile_m}, or K = {k}, not {size}")
        parts = {"k_tile": chain_k_tile(config), "span": config.tile_m}
    return plan(config, m, k, n, dataflow=flow, chunk=size, psum_group=layer.psum_group or 0, **parts)


def _pack(
    layer: ChainLayer,
    activations: npt.NDArray[np.uint8] | None,
    schedule: Schedule,
    following: tuple[ChainLayer, Schedule] | None,
) -> LayerImage:
    config, n = schedule.config, schedule.n
    checks.weight_bits(layer.weight_bits, config)
    x = np.zeros((np.shape(layer.weights)[1], 1), np.uint8) if activations is None else activations
    w, _, bias = checks.gemm_operands(layer.weights, x, layer.bias, layer.weight_bits)
    check_hardware(w, n, bias, layer.zero_point, config)
    folded = folded_bias(w, bias, layer.zero_point, layer.lo_bits)
    image = pack_layer(
        w, activations, folded, zero_point=layer.zero_point, weight_bits=layer.weight_bits,
        lo_bits=layer.lo_bits, config=config, schedule=schedule, psum_exponents=layer.psum_exponents,
        activations_stride=region_stride(config) if activations is None else 0,
        output=None if layer.output is None else _output(layer, schedule, following),
    )  # fmt: skip
    if layer.psum_group:
        check_psums(
            w, folded, layer.zero_point, layer.lo_bits,
            group=layer.psum_group, chunk=schedule.chunk, exponents=image.exponents,
        )  # fmt: skip
    return image


def _output(
    layer: ChainLayer, schedule: Schedule, following: tuple[ChainLayer, Schedule] | None
) -> OutputImages:
    """What the post-processing unit makes of the results. The last layer's are laid out as for a next one
    that keeps all 8 bits."""
    output, config = layer.output, schedule.config
    assert output is not None
    lo_bits, zero_point, group = output.next_lo_bits, 0, schedule.rows
    if following is not None:
        next_layer, next_schedule = following
        zero_point = next_layer.zero_point
        if next_schedule.weight_stationary:
            group = min(group, -(-next_schedule.chunk // config.tile_m))
    rows = np.ones(schedule.m, np.int64)
    return OutputImages(
        multiplier=rows * np.asarray(output.multiplier),
        shift=rows * np.asarray(output.shift),
        zero_point=output.zero_point_out,
        relu=output.relu,
        table=None if output.table is None else np.asarray(output.table, np.uint8),
        lo_bits=lo_bits,
        frequent=zero_point >> lo_bits,
        k_tile=chain_k_tile(config),
        group=group,
        stride=region_stride(config),
    )
