"""The benchmarks of `make bench`: every figure that README.md and docs/ claim, measured in one run.

Utilization, speed-up and cycles are cycle counts of the RTL and the same on every machine; seconds are not.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from sliceforge.gen.cli_parts import progress_bar
from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.verilog import generate_verilog
from sliceforge.sim.bench_board import board_speed
from sliceforge.sim.bench_psums import apsq_cells, chains, dataflows, lost_cycles, psum_bytes, psum_errors
from sliceforge.sim.cells import cell_counts
from sliceforge.sim.gemm import MismatchError, folded_bias, gemm
from sliceforge.sim.golden import aqs_gemm
from sliceforge.sim.layer_image import least_bytes, pack_layer
from sliceforge.sim.minilm import linear_layer
from sliceforge.sim.operands import random_operands
from sliceforge.sim.quantize import quantize_layer
from sliceforge.sim.rtl import Memory, build_accelerator, build_engine, run_layers

__all__ = ["area", "buses", "generator", "golden", "grid", "main", "minilm", "rates"]

LAYERS = ("encoder.layer.3.attention.self.query", "encoder.layer.3.intermediate.dense")
TOKENS = 128
BUSES = (256, 128, 64)
LATENCY = 100
RATE_SHAPES = {"panacea": (256, 768, 128), "edge": (128, 768, 128), "tiny": (64, 768, 64)}
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


def buses() -> list[dict[str, Any]]:
    """Preset panacea with buses of 256, 128 and 64 bits, 100 cycles of latency: from start to interrupt, and
    bytes against the least possible (each compressed operand, bias and descriptor once, each result once)."""
    rows = []
    for bus_bits in BUSES:
        config = AcceleratorConfig.preset("panacea", bus_bits=bus_bits)
        for name in LAYERS:
            layer = quantize_layer(linear_layer(name, tokens=TOKENS), lo_bits=4)
            zero_point, bias = layer.zero_point, layer.bias.astype(np.int64)
            golden = aqs_gemm(layer.weights, layer.activations, zero_point=zero_point, bias=bias)
            image = pack_layer(
                layer.weights,
                layer.activations,
                folded_bias(layer.weights, bias, zero_point, 4),
                zero_point=zero_point,
                weight_bits=7,
                lo_bits=4,
                config=config,
            )
            result = run_layers([image], memory=Memory(latency=LATENCY))
            if not np.array_equal(result.outputs[0], golden.output):
                raise MismatchError(f"RTL and golden model differ on {name}")
            counters = result.counters
            bound = -(-int(golden.report["outer_products_done"]) // config.operators)
            least_read, least_written = least_bytes(image)
            rows.append(
                {
                    "layer": name,
                    "bus_bits": bus_bits,
                    "cycle_bound": bound,
                    "total_cycles": counters["CYCLES"],
                    "utilization_total": bound / counters["CYCLES"],
                    "bytes_read": counters["BYTES_READ"],
                    "least_read": least_read,
                    "bytes_written": counters["BYTES_WRITTEN"],
                    "least_written": least_written,
                }
            )
    return rows


def rates() -> list[dict[str, Any]]:
    """Simulated cycles a second of the whole accelerator on busy layers, set-up apart: the engine on each
    preset, and the cocotb bench on preset tiny."""
    rows: list[dict[str, Any]] = []
    for preset, shape in RATE_SHAPES.items():
        config = AcceleratorConfig.preset(preset)
        weights, activations = random_operands(
            np.random.default_rng(SEED),
            shape,
            vector=config.vector,
            weight_bits=7,
            lo_bits=4,
            zero_point=136,
            weight_sparsity=0.1,
            activation_sparsity=0.5,
        )
        bias = folded_bias(weights, np.zeros(shape[0], np.int64), 136, 4)
        image = pack_layer(
            weights, activations, bias, zero_point=136, weight_bits=7, lo_bits=4, config=config
        )
        build_accelerator(config, traced=False)
        start = time.perf_counter()
        counters = run_layers([image]).counters
        seconds = time.perf_counter() - start
        rows.append(_rate(preset, "engine rtl", counters["CYCLES"], seconds))

    from sliceforge.verif import rate_accelerator
    from sliceforge.verif.simulation import run_bench

    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        case = rate_accelerator.CASE
        text = run_bench("rate_accelerator", rate_accelerator.component(case), case, Path(folder))
    cocotb_cycles, cocotb_seconds = text.split()
    rows.append(_rate("tiny", "cocotb bench", int(cocotb_cycles), float(cocotb_seconds)))
    return rows


def _rate(preset: str, what: str, cycles: int, seconds: float) -> dict[str, Any]:
    return {"preset": preset, "simulation": what, "cycles": cycles, "cycles_per_second": cycles / seconds}


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


def area(preset: str = "panacea", *, least: float = 0.1) -> list[dict[str, Any]]:
    """Cells by block (`sliceforge.sim.cells`), largest first: of all instances, with the blocks in them, that
    are listed too. percent: of the whole's NAND2 equivalents, at least ``least``."""
    blocks = cell_counts(AcceleratorConfig.preset(preset))
    whole = blocks["accelerator"].total.nand2
    rows = []
    for name, block in sorted(blocks.items(), key=lambda item: -item[1].all.nand2):
        figures: dict[str, Any] = {"preset": preset, "block": name, "instances": block.instances}
        for figure in ("gates", "flip_flops", "memory_bits", "nand2"):
            figures[figure] = round(getattr(block.all, figure))
        rows.append({**figures, "percent": 100 * block.all.nand2 / whole})
    return [row for row in rows if row["percent"] >= least]


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
    with progress_bar(f"rtl on {preset}") as progress:
        report = gemm(weights, activations, config=preset, engine="rtl", progress=progress, **operands).report
    return {"shape": report["shape"], **{name: report[name] for name in _FIGURES}}


def main(folder: str = "build") -> None:
    """Measures, prints tables, and stores all figures in ``folder``/bench.json."""
    console = Console(width=150)
    console.print("compiling preset panacea (kept for the next time) ...")
    build_engine(AcceleratorConfig.preset("panacea"))
    figures: dict[str, Any] = {}
    for name, measure in (
        ("minilm", minilm),
        ("buses", buses),
        ("grid", grid),
        ("rates", rates),
        ("generator", generator),
        ("area", area),
        ("APSQ cells", apsq_cells),
        ("partial sum bytes", psum_bytes),
        ("APSQ errors", psum_errors),
        ("dataflows", dataflows),
        ("lost cycles", lost_cycles),
        ("feed-forward chain", chains),
        ("ulx3s-85f", board_speed),
    ):
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
