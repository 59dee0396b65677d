"""The benchmarks of `make bench`: every figure that README.md and docs/ claim, measured in one run.

Utilization, speed-up and cycles are cycle counts of the RTL and the same on every machine; seconds are not.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from sliceforge.gen.cli import progress_bar
from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.verilog import generate_verilog
from sliceforge.sim.gemm import gemm
from sliceforge.sim.golden import aqs_gemm
from sliceforge.sim.minilm import linear_layer
from sliceforge.sim.operands import random_operands
from sliceforge.sim.quantize import quantize_layer
from sliceforge.sim.rtl import build_core

__all__ = ["generator", "golden", "grid", "main", "minilm"]

LAYERS = ("encoder.layer.3.attention.self.query", "encoder.layer.3.intermediate.dense")
TOKENS = 128
GRID = (0.0, 0.5, 0.9)
GRID_SHAPE = (128, 768, 128)
GOLDEN_SHAPE = (4096, 4096, 128)
SEED = 1

_FIGURES = (
    "weight_vector_sparsity",
    "activation_vector_sparsity",
    "cycle_bound",
    "cycles",
    "utilization",
    "utilization_total",
    "speedup_over_dense",
    "speedup_bound",
    "outer_products_filler",
)


def minilm(preset: str = "panacea") -> list[dict[str, Any]]:
    """The RTL on two layers of MiniLM, 128 tokens of the repository's text, each lo_bits."""
    rows = []
    for name in LAYERS:
        for lo_bits in (4, 5, 6):
            layer = quantize_layer(linear_layer(name, tokens=TOKENS), lo_bits=lo_bits)
            rows.append(
                {
                    "layer": name,
                    "lo_bits": lo_bits,
                    **_run(
                        preset,
                        layer.weights,
                        layer.activations,
                        zero_point=layer.zero_point,
                        lo_bits=lo_bits,
                        bias=layer.bias,
                    ),
                }
            )
    return rows


def grid(preset: str = "panacea") -> list[dict[str, Any]]:
    """The RTL on random operands, M = 128, K = 768, N = 128, over both sparsities."""
    rows = []
    for weight_sparsity in GRID:
        for activation_sparsity in GRID:
            weights, activations = random_operands(
                np.random.default_rng(SEED),
                GRID_SHAPE,
                vector=AcceleratorConfig.preset(preset).vector,
                weight_bits=7,
                lo_bits=4,
                zero_point=136,
                weight_sparsity=weight_sparsity,
                activation_sparsity=activation_sparsity,
            )
            rows.append(_run(preset, weights, activations, zero_point=136))
    return rows


def generator() -> list[dict[str, Any]]:
    """Seconds to generate the Verilog of each preset, its size, and seconds to compile its core."""
    rows = []
    for preset in AcceleratorConfig.presets():
        config = AcceleratorConfig.preset(preset)
        start = time.perf_counter()
        verilog = generate_verilog(config)
        rows.append({"preset": preset, "seconds": time.perf_counter() - start, "verilog_bytes": len(verilog)})
    return rows


def golden() -> dict[str, float]:
    """The golden model with its counts against one float64 product of the same operands, in one process
    of its own: seconds, their ratio, and the memory that it takes beyond the operands (MiB)."""
    done = subprocess.run(
        [sys.executable, "-m", "sliceforge.sim.bench", "--golden"], check=True, capture_output=True, text=True
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _golden_here() -> dict[str, float]:
    m, k, n = GOLDEN_SHAPE
    rng = np.random.default_rng(SEED)
    weights = np.empty((m, k), np.int16)
    for row in weights:  # one at a time, so that the peak of memory is not set here
        row[:] = np.clip(np.rint(rng.standard_normal(k) * 6), -64, 63)
    activations = np.clip(np.rint(rng.standard_normal((k, n)) * 6 + 136), 0, 255).astype(np.uint8)

    before = _peak_mib()
    aqs_gemm(weights, activations, zero_point=136)
    memory = _peak_mib() - before

    def seconds(action: Any) -> float:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            action()
            times.append(time.perf_counter() - start)
        return min(times)

    product = seconds(lambda: weights.astype(float) @ activations.astype(float))
    model = seconds(lambda: aqs_gemm(weights, activations, zero_point=136))
    return {
        "float64_product_seconds": product,
        "aqs_gemm_seconds": model,
        "ratio": model / product,
        "memory_mib": memory,
    }


def _peak_mib() -> float:
    """Most memory that this process has had (Linux: VmHWM; getrusage would include the parent's)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _run(preset: str, weights: Any, activations: Any, **operands: Any) -> dict[str, Any]:
    start = time.perf_counter()
    with progress_bar(f"rtl on {preset}") as progress:
        report = gemm(weights, activations, config=preset, engine="rtl", progress=progress, **operands).report
    seconds = time.perf_counter() - start
    figures = {"shape": report["shape"], **{name: report[name] for name in _FIGURES}}
    return {**figures, "cycles_per_second": report["total_cycles"] / seconds}


def main(folder: str = "build") -> None:
    """Measures, prints tables, and stores all figures in ``folder``/bench.json."""
    console = Console(width=150)
    console.print("compiling preset panacea (kept for the next time) ...")
    build_core(AcceleratorConfig.preset("panacea"))
    figures: dict[str, Any] = {}
    for name, measure in (("minilm", minilm), ("grid", grid), ("generator", generator)):
        figures[name] = rows = measure()
        table = Table(title=name, box=None, title_justify="left")
        for key in rows[0]:
            table.add_column(key.replace("_", "\n"), justify="right")
        for row in rows:
            table.add_row(*(_text(key, value) for key, value in row.items()))
        console.print(table)
    figures["golden"] = golden()
    console.print("golden model, W 4096 x 4096, X 4096 x 128:")
    for key, value in figures["golden"].items():
        console.print(f"  {key.replace('_', ' ')}: {value:.3f}")
    target = Path(folder) / "bench.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    console.print(f"stored in {target}")


def _text(key: str, value: Any) -> str:
    if key == "cycles_per_second":
        return f"{value:,.0f}"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value).removeprefix("encoder.") if isinstance(value, str) else f"{value}"


if __name__ == "__main__":
    if sys.argv[1:] == ["--golden"]:
        print(json.dumps(_golden_here()))
    else:
        main()
