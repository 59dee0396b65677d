"""The benchmarks of partial sums: bytes, errors, cells and cycles of the dataflows, and of layers that
chain.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sliceforge.gen.cli_parts import progress_bar
from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.registers import DESCRIPTOR_BYTES
from sliceforge.sim.apsq import apsq_gemm, psum_tiles
from sliceforge.sim.calibrate import psum_quality, tile_exponents
from sliceforge.sim.cells import cell_counts
from sliceforge.sim.chain import feed_forward
from sliceforge.sim.chain_rtl import chain_rtl, with_apsq
from sliceforge.sim.core_engine import run_core
from sliceforge.sim.gemm import MismatchError, folded_bias
from sliceforge.sim.golden import aqs_gemm
from sliceforge.sim.layer_image import LayerImage, pack_layer
from sliceforge.sim.minilm import linear_layer
from sliceforge.sim.plans import LOOP_ORDERS, dataflow_name, plan, plans
from sliceforge.sim.quantize import QuantizedLayer, quantize_layer
from sliceforge.sim.rtl import run_layers
from sliceforge.sim.schedule import Schedule
from sliceforge.sim.work import layer_work

__all__ = ["apsq_cells", "chains", "dataflows", "lost_cycles", "psum_bytes", "psum_errors"]

FEED_FORWARD = ("encoder.layer.3.intermediate.dense", "encoder.layer.3.output.dense")
ERROR_LAYERS = ("encoder.layer.3.attention.self.query", *FEED_FORWARD)
TOKENS = 128
LO_BITS = 4
CHUNK = 128
ENGINE_BLOCKS = ("apsq_engine", "step_exponents", "psum_memory")


def psum_bytes(preset: str = "panacea") -> list[dict[str, Any]]:
    """Bytes of partial sums of the feed-forward layers in K-chunks of 128, with 32 bits and with INT8 (group
    size 1): into and out of OMEM where they stay there, and over the bus where a block is too large for that.
    The bytes on the bus are measured: all that the run moved, less what the other tensors are known to move.
    """
    config, rows = AcceleratorConfig.preset(preset), []
    for name in FEED_FORWARD:
        layer = quantize_layer(linear_layer(name, tokens=TOKENS), lo_bits=LO_BITS)
        m, k = layer.weights.shape
        for flow, dataflow in LOOP_ORDERS.items():
            row: dict[str, Any] = {"layer": name, "dataflow": flow}
            for bits, group in ((32, 0), (8, 1)):
                kept = plan(config, m, k, TOKENS, dataflow=dataflow, chunk=CHUNK, psum_group=group)
                row[f"omem_{bits}_bit"] = kept.traffic(0, 0)["partial_sums"].chip
            row["omem_ratio"] = row["omem_32_bit"] / row["omem_8_bit"]
            for bits, group in ((32, 0), (8, 1)):
                spilled = _spilled(config, m, k, dataflow, group)
                row[f"dram_{bits}_bit"] = _moved_psums(_image(layer, spilled), layer)
            row["dram_ratio"] = row["dram_32_bit"] / row["dram_8_bit"]
            rows.append(row)
    return rows


def _spilled(config: AcceleratorConfig, m: int, k: int, dataflow: Dataflow, group: int) -> Schedule:
    """One whose partial sums go to memory: everything else on chip, the largest block of up to 8 tiles, so
    that they have time to come back."""
    found = plans(config, m, k, TOKENS, dataflow=dataflow, chunk=CHUNK, psum_group=group)
    sizes = [schedule for schedule in found if not schedule.psums_resident and schedule.block <= 8]
    return min(
        sizes,
        key=lambda s: (not s.weights_resident, not s.activations_resident, not s.blocks_share, -s.block),
    )


def _exponents(layer: QuantizedLayer, group: int) -> list[int] | None:
    if not group:
        return None
    tiles = psum_tiles(layer.weights, layer.activations, layer.zero_point, 7, LO_BITS, CHUNK)
    return tile_exponents(tiles, group)


def _image(layer: QuantizedLayer, schedule: Schedule) -> LayerImage:
    return pack_layer(
        layer.weights,
        layer.activations,
        folded_bias(layer.weights, layer.bias.astype(np.int64), layer.zero_point, LO_BITS),
        zero_point=layer.zero_point,
        weight_bits=7,
        lo_bits=LO_BITS,
        config=schedule.config,
        schedule=schedule,
        psum_exponents=_exponents(layer, schedule.psum_group),
    )


def _golden(layer: QuantizedLayer, image: LayerImage) -> Any:
    operands: dict[str, Any] = {"zero_point": layer.zero_point, "lo_bits": LO_BITS, "bias": layer.bias}
    if not image.schedule.psum_group:
        return aqs_gemm(layer.weights, layer.activations, **operands).output
    return apsq_gemm(
        layer.weights, layer.activations, psum_group=image.schedule.psum_group, psum_chunk=CHUNK,
        psum_exponents=image.exponents, **operands,
    ).output  # fmt: skip


def _checked_run(layer: QuantizedLayer, image: LayerImage) -> dict[str, int]:
    """Counters of the layer on the RTL, whose result is compared with the golden model."""
    with progress_bar(f"rtl on {image.config.name}") as progress:
        result = run_layers([image], progress=progress)
    if not np.array_equal(result.outputs[0], _golden(layer, image)):
        raise MismatchError("RTL and golden model differ")
    return result.counters


def _moved_psums(image: LayerImage, layer: QuantizedLayer) -> int:
    counters, s = _checked_run(layer, image), image.schedule
    loads = s.traffic(*image.image_bytes)
    others = loads["weights"].dram + loads["activations"].dram + _parameter_bytes(image)
    moved = counters["BYTES_READ"] + counters["BYTES_WRITTEN"]
    return moved - others - DESCRIPTOR_BYTES - image.output_bytes


def _parameter_bytes(image: LayerImage) -> int:
    """Read on the bus for exponents and biases: whole beats of each span, a row of tiles at a time."""
    beat = image.config.bus_bits // 8
    exponents = image.exponent_words.nbytes
    spans = [(0, exponents)] if exponents else []
    spans += [
        (exponents + 4 * rows.start, exponents + 4 * rows.stop) for rows in image.schedule.parameter_rows()
    ]
    return sum((-(-stop // beat) - start // beat) * beat for start, stop in spans)


def psum_errors() -> list[dict[str, Any]]:
    """Relative error of ``W @ (x_hat - zp)`` against exact, root of the mean square, in per cent: K-chunks of
    128, group sizes 1 to 4, calibrated exponents per layer and per step, on the data that they are calibrated
    on.
    """
    rows = []
    for name in ERROR_LAYERS:
        layer = quantize_layer(linear_layer(name, tokens=TOKENS), lo_bits=LO_BITS)
        tiles = psum_tiles(layer.weights, layer.activations, layer.zero_point, 7, LO_BITS, CHUNK)
        folded = folded_bias(layer.weights, np.zeros(len(layer.weights), np.int64), layer.zero_point, LO_BITS)
        for per in ("layer", "step"):
            row: dict[str, Any] = {"layer": name, "exponents per": per}
            for group in range(1, 5):
                quality = psum_quality(tiles, tile_exponents(tiles, group, per), group, folded[:, None])
                row[f"gs_{group}_percent"] = 100 * (quality.relative_error or 0.0)
            rows.append(row)
    return rows


def apsq_cells(presets: tuple[str, ...] = ("panacea", "edge", "tiny")) -> list[dict[str, Any]]:
    """What the APSQ engine with its exponents and the logic around its banks adds to the rest of the machine,
    in per cent of NAND2 equivalents (`sliceforge.sim.cells`); the published engine adds 3.21 (APSQ, DAC
    2025).
    """
    rows = []
    for preset in presets:
        blocks = cell_counts(AcceleratorConfig.preset(preset))
        whole = blocks["accelerator"].all.nand2
        parts = {name: blocks[name].all.nand2 for name in ENGINE_BLOCKS}
        added = sum(parts.values())
        rows.append(
            {
                "preset": preset,
                **{name: round(size) for name, size in parts.items()},
                "whole": round(whole),
                "adds_percent": 100 * added / (whole - added),
            }
        )
    return rows


def dataflows(preset: str = "panacea") -> list[dict[str, Any]]:
    """Utilization of the feed-forward layers in K-chunks of 128, weight and input stationary, memory of 100
    cycles: with APSQ, and with partial sums of 32 bits; those stay on chip, or go to memory."""
    rows = []
    for name, layer, image in _runs(preset):
        counters = _checked_run(layer, image)
        bound = _bound(layer, image.config)
        s = image.schedule
        rows.append(
            {
                "layer": name,
                "dataflow": dataflow_name(s.dataflow),
                "group": s.psum_group,
                "block": s.block,
                "psums": "on chip" if s.psums_resident else "in memory",
                "cycle_bound": bound,
                "total_cycles": counters["CYCLES"],
                "utilization_total": bound / counters["CYCLES"],
            }
        )
    return rows


def lost_cycles(preset: str = "panacea") -> list[dict[str, Any]]:
    """Where the cycles of `dataflows` with APSQ go; the causes add up to all of them. The bound; products
    of fillers and padding; operators of the array that wait for each other within an output tile (the
    core on streams that never stall, in one K-chunk) and because a tile ends with each K-chunk (the same in
    K-chunks of 128); the array waits for memory; before its first product; after its last."""
    rows = []
    for name, layer, image in _runs(preset):
        s, config = image.schedule, image.config
        if s.psum_group != 1 or not s.psums_resident:
            continue
        counters, alone = _checked_run(layer, image), run_core(image)
        whole = plan(config, s.m, s.k, s.n, dataflow=s.dataflow)
        one_chunk = run_core(_image(layer, whole))
        bound, total = _bound(layer, config), counters["CYCLES"]
        products = -(-counters["OUTER_PRODUCTS"] // config.operators)
        causes = {
            "bound": bound,
            "fillers_padding": products - bound,
            "operators_wait": one_chunk.cycles - products,
            "chunks_end": alone.cycles - one_chunk.cycles,
            "memory_waits": counters["ARRAY_CYCLES"] - alone.cycles,
            "start_and_end": total - counters["ARRAY_CYCLES"],
        }
        assert sum(causes.values()) == total
        rows.append({"layer": name, "dataflow": dataflow_name(s.dataflow), **causes, "total_cycles": total})
    return rows


def _runs(preset: str) -> list[tuple[str, QuantizedLayer, LayerImage]]:
    config, runs = AcceleratorConfig.preset(preset), []
    for name in FEED_FORWARD:
        layer = quantize_layer(linear_layer(name, tokens=TOKENS), lo_bits=LO_BITS)
        m, k = layer.weights.shape
        for flow in (Dataflow.WEIGHT_STATIONARY, Dataflow.INPUT_STATIONARY):
            schedules = [
                plan(config, m, k, TOKENS, dataflow=flow, chunk=CHUNK, psum_group=group) for group in (1, 0)
            ]
            schedules += [_spilled(config, m, k, flow, group) for group in (1, 0)]
            runs += [(name, layer, _image(layer, schedule)) for schedule in schedules]
    return runs


def _bound(layer: QuantizedLayer, config: AcceleratorConfig) -> int:
    work = layer_work(layer.weights, layer.activations, layer.zero_point, 7, LO_BITS, config.vector)
    return -(-work.done // config.operators)


def chains(preset: str = "panacea") -> list[dict[str, Any]]:
    """The feed-forward block of MiniLM's layer 3 from one descriptor list, GELU in the post-processing unit,
    in each loop order, with partial sums of 32 bits and with APSQ; compared with the golden chain."""
    config, rows = AcceleratorConfig.preset(preset), []
    layers, activations = feed_forward(3, tokens=TOKENS)
    kinds = {0: layers, 1: with_apsq(layers, activations, group=1, chunk=CHUNK)}
    for flow in LOOP_ORDERS:
        for group, chain in kinds.items():
            with progress_bar(f"rtl on {preset}") as progress:
                run = chain_rtl(
                    chain, activations, config=config, dataflow=flow, chunk=CHUNK, progress=progress
                )
            figures = (
                "cycle_bound", "total_cycles", "utilization_total", "dram_bytes_read", "dram_bytes_written"
            )  # fmt: skip
            rows.append({"dataflow": flow, "group": group, **{name: run.report[name] for name in figures}})
    return rows
