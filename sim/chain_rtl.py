"""Layers that chain on the RTL, from one descriptor list, compared with the golden chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.sim.calibrate import calibrate_exponents
from sliceforge.sim.chain import ChainLayer, run_chain
from sliceforge.sim.chain_image import pack_chain
from sliceforge.sim.gemm import compare
from sliceforge.sim.plans import dataflow_name, named_dataflow
from sliceforge.sim.rtl import Memory, run_layers
from sliceforge.sim.slices import sliced_activations
from sliceforge.sim.verilated import Progress
from sliceforge.sim.work import layer_work

__all__ = ["ChainRun", "chain_rtl", "with_apsq"]


@dataclass(frozen=True, eq=False)
class ChainRun:
    """``outputs`` of each layer, as of `run_chain`; ``report``: what the machine needed for all of them."""

    outputs: list[npt.NDArray[Any]]
    report: dict[str, Any]


def chain_rtl(
    layers: Sequence[ChainLayer],
    activations: npt.ArrayLike,
    *,
    config: AcceleratorConfig,
    dataflow: str = "os",
    chunk: int | None = None,
    memory: Memory | None = None,
    progress: Progress | None = None,
) -> ChainRun:
    """Runs the layers on the RTL; nobody touches memory between them. Each layer's output is compared with
    `run_chain`: all of it, or what the next layer's lo_bits leave of it.

    dataflow: os, ws, is or auto; chunk: positions along K after which sums leave the array, of layers
    without APSQ, K by default. See `pack_chain` for both. Raises TypeError or ValueError for what the
    machine cannot run, MismatchError where RTL and golden differ, RuntimeError where the RTL stops.
    """
    flow = named_dataflow(dataflow)
    golden = run_chain(layers, activations)
    images = pack_chain(layers, activations, config=config, dataflow=flow, chunk=chunk)
    run = run_layers(images, memory=memory, progress=progress)
    for i, (layer, found, output) in enumerate(zip(layers, run.outputs, golden, strict=True)):
        expected = output if layer.output is None else sliced_activations(output, layer.output.next_lo_bits)
        compare(found, expected.astype(np.int64), f"RTL of layers[{i}]")
    products, x = 0, np.asarray(activations)
    for layer, output in zip(layers, golden, strict=True):
        products += layer_work(
            layer.weights, x, layer.zero_point, layer.weight_bits, layer.lo_bits, config.vector
        ).done
        x = output
    bound, cycles = -(-products // config.operators), run.counters["CYCLES"]
    report = {
        "config": config.name,
        "shapes": [[image.schedule.m, image.schedule.k, image.schedule.n] for image in images],
        "dataflows": [dataflow_name(image.schedule.dataflow) for image in images],
        "psum_groups": [image.schedule.psum_group for image in images],
        "outer_products_done": products,
        "cycle_bound": bound,
        "total_cycles": cycles,
        "utilization_total": bound / cycles,
        "dram_bytes_read": run.counters["BYTES_READ"],
        "dram_bytes_written": run.counters["BYTES_WRITTEN"],
    }
    return ChainRun(golden, report)


def with_apsq(
    layers: Sequence[ChainLayer], activations: npt.ArrayLike, *, group: int, chunk: int, per: str = "layer"
) -> list[ChainLayer]:
    """The layers with APSQ in groups of ``group``, K-chunks of ``chunk`` positions and exponents that are
    calibrated (`calibrate_exponents`) on ``activations``, layer by layer, each on what the ones before
    give.
    """
    changed: list[ChainLayer] = []
    x = activations
    for layer in layers:
        exponents = calibrate_exponents(
            layer.weights, x, zero_point=layer.zero_point, weight_bits=layer.weight_bits,
            lo_bits=layer.lo_bits, psum_group=group, psum_chunk=chunk, per=per,
        )  # fmt: skip
        changed.append(replace(layer, psum_group=group, psum_chunk=chunk, psum_exponents=exponents))
        x = run_chain([changed[-1]], x)[0] if layer is not layers[-1] else x
    return changed
