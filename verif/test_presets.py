"""Every preset as a whole on the RTL engine, and the core's bench with further seeds (`make regress`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sliceforge.gen import AcceleratorConfig
from sliceforge.sim import gemm
from sliceforge.sim.minilm import linear_layer
from sliceforge.sim.operands import random_operands
from sliceforge.sim.quantize import quantize_layer
from sliceforge.verif import bench_core
from sliceforge.verif.simulation import run_bench


@pytest.mark.long
@pytest.mark.parametrize("preset", AcceleratorConfig.presets())
@pytest.mark.parametrize("lo_bits", [4, 5, 6])
def test_a_real_layer(preset: str, lo_bits: int) -> None:
    """`gemm` compares every element with the golden model, and the golden model is compared here."""
    layer = quantize_layer(linear_layer("encoder.layer.3.output.dense", tokens=37), lo_bits=lo_bits)
    weights = layer.weights[:100]
    result = gemm(
        weights,
        layer.activations,
        config=preset,
        zero_point=layer.zero_point,
        lo_bits=lo_bits,
        bias=layer.bias[:100],
        engine="rtl",
    )
    drop = lo_bits - 4
    x_hat = (layer.activations.astype(np.int64) >> drop) << drop
    assert (
        result.output == weights.astype(np.int64) @ (x_hat - layer.zero_point) + layer.bias[:100, None]
    ).all()


@pytest.mark.long
@pytest.mark.parametrize("preset", AcceleratorConfig.presets())
def test_ragged_layers(preset: str) -> None:
    """Sizes around the preset's own tile, M, N and K all different."""
    config = AcceleratorConfig.preset(preset)
    rng = np.random.default_rng(1)
    sizes = [(-1, 1, 0), (1, 0, -1), (0, -1, 1), (3, 2, 5)]
    for dm, dk, dn in sizes:
        shape = (config.tile_m + dm, config.tile_k + dk, config.tile_n + dn)
        zero_point = int(rng.integers(0, 256))
        weights, activations = random_operands(
            rng, shape, vector=config.vector, weight_bits=7, lo_bits=4, zero_point=zero_point,
            weight_sparsity=0.7, activation_sparsity=0.7,
        )  # fmt: skip
        gemm(weights, activations, config=config, zero_point=zero_point, engine="rtl")


@pytest.mark.long
@pytest.mark.parametrize("seed", [2, 3, 4])
@pytest.mark.parametrize("case", range(len(bench_core.CASES)))
def test_core_with_other_seeds(case: int, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLICEFORGE_SEED", str(seed))
    parameters = bench_core.CASES[case]
    run_bench("bench_core", bench_core.component(parameters), parameters, tmp_path)
