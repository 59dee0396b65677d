"""The benchmark of a board's machine: MiniLM layers at the clock that the board's bitstream keeps."""

from __future__ import annotations

from itertools import product
from typing import Any

from sliceforge.gen.boards import board
from sliceforge.gen.cli_parts import progress_bar
from sliceforge.sim.gemm import gemm
from sliceforge.sim.minilm import linear_layer
from sliceforge.sim.quantize import quantize_layer

__all__ = ["board_speed"]

LAYERS = tuple(
    f"encoder.layer.3.{name}" for name in ("attention.self.query", "intermediate.dense", "output.dense")
)
TOKENS = 128
# Latency in cycles and bandwidth in beats a cycle, each way: a memory on the chip; and 16 bits a cycle for a
# bus of 64, as an SDRAM at the design's clock gives them at best, while only one of the two ways is in use.
MEMORIES = {"on chip": (4, 1.0), "SDRAM": (16, 0.25)}


def board_speed(name: str = "ulx3s-85f") -> list[dict[str, Any]]:
    """Cycles of the board's machine from start to interrupt, with all of a layer in one of `MEMORIES` and the
    loop order of the least traffic, and operations a second at its clock: ``2 M K N clock / total_cycles``,
    each multiply-accumulate of the product as two, skipped or not. Beside them those of a dense machine of as
    many multipliers that never waits.
    """
    target, rows = board(name), []
    config = target.config()
    for layer_name, lo_bits, memory in product(LAYERS, (4, 5, 6), MEMORIES):
        layer = quantize_layer(linear_layer(layer_name, tokens=TOKENS), lo_bits=lo_bits)
        latency, bandwidth = MEMORIES[memory]
        with progress_bar(f"rtl on {config.name} for {name}") as progress:
            report = gemm(
                layer.weights, layer.activations, config=config, zero_point=layer.zero_point,
                lo_bits=lo_bits, bias=layer.bias, engine="rtl", dataflow="auto", memory_latency=latency,
                memory_bandwidth=bandwidth, progress=progress,
            ).report  # fmt: skip
        m, k, n = report["shape"]
        dense = report["outer_products_full"] / config.operators
        seconds = report["total_cycles"] / target.clock_hz
        rows.append(
            {
                "layer": layer_name,
                "lo_bits": lo_bits,
                "memory": memory,
                "dataflow": report["dataflow"],
                "total_cycles": report["total_cycles"],
                "milliseconds": 1e3 * seconds,
                "utilization_total": report["utilization_total"],
                "gops": 2e-9 * m * k * n / seconds,
                "dense_gops": 2e-9 * m * k * n * target.clock_hz / dense,
                "speedup_total": dense / report["total_cycles"],
            }
        )
    return rows
