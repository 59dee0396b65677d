"""The demonstration: generates the Verilog of preset panacea and runs a layer of MiniLM on it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from sliceforge.gen.cli import print_report
from sliceforge.gen.cli_parts import progress_bar
from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.manifest import manifest
from sliceforge.gen.verilog import generate_verilog
from sliceforge.sim.gemm import gemm
from sliceforge.sim.minilm import linear_layer
from sliceforge.sim.quantize import quantize_layer
from sliceforge.sim.rtl import build_engine

LAYER = "encoder.layer.3.intermediate.dense"
TOKENS = 128


def main(folder: str = "build/demo", preset: str = "panacea") -> None:
    """Leaves the Verilog, the manifest and the layer's operands in ``folder``."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    config = AcceleratorConfig.preset(preset)

    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {text}", flush=True)

    verilog = generate_verilog(config)
    (out / f"{preset}.v").write_text(verilog, encoding="utf-8")
    (out / f"{preset}.json").write_text(manifest(config, verilog), encoding="utf-8")
    say(f"generated {out / preset}.v: {config.operators} operators, {config.multipliers} multipliers")

    layer = quantize_layer(linear_layer(LAYER, tokens=TOKENS))
    for name, array in (
        ("weights", layer.weights),
        ("activations", layer.activations),
        ("bias", layer.bias),
    ):
        np.save(out / f"{name}.npy", array)
    (m, k), n = layer.weights.shape, layer.activations.shape[1]
    say(f"all-MiniLM-L6-v2, {LAYER}, {TOKENS} tokens: W {m} x {k}, X {k} x {n}, quantized with ZPM")

    say("compiling the Verilog with Verilator (kept for the next time) ...")
    build_engine(config)
    say("simulating ...")
    with progress_bar(f"rtl on {preset}") as progress:
        result = gemm(
            layer.weights,
            layer.activations,
            config=config,
            zero_point=layer.zero_point,
            bias=layer.bias,
            engine="rtl",
            progress=progress,
        )
    report = result.report
    say(f"RTL equals the golden model on all {result.output.size:,} results")
    print()
    print_report(report)
    print(
        f"\n{report['speedup_over_dense']:.2f} x as fast as a dense array with as many multipliers\n\n"
        f"The same by hand:\n"
        f"  .venv/bin/sliceforge gemm --config {preset} --weights {out}/weights.npy "
        f"--activations {out}/activations.npy \\\n"
        f"      --bias {out}/bias.npy --zero-point {layer.zero_point} --engine rtl"
    )
