"""Loop orders and APSQ of one GEMM on the RTL: `gemm` with dataflow and partial sums, and what it reports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.registers import DESCRIPTOR_BYTES
from sliceforge.sim import apsq, gemm
from sliceforge.sim.gemm import DATAFLOWS
from sliceforge.sim.limits import check_psums

TINY = AcceleratorConfig.preset("tiny")
FLOWS = [name for name, flow in DATAFLOWS.items() if flow is not None]
SEED = 41


def operands(m: int, k: int, n: int) -> dict[str, Any]:
    rng = np.random.default_rng([SEED, m, k, n])
    weights = rng.integers(-64, 64, (m, k)) * (rng.random((m, k)) < 0.6)
    activations = np.clip(rng.normal(100, 20, (k, n)), 0, 255).astype(np.uint8)
    return {
        "weights": weights,
        "activations": activations,
        "zero_point": 100,
        "bias": rng.integers(-99, 99, m),
    }


def exact(given: dict[str, Any]) -> np.ndarray:
    w, x = given["weights"].astype(np.int64), given["activations"].astype(np.int64)
    return w @ (x - given["zero_point"]) + given["bias"][:, None]


def with_apsq(given: dict[str, Any], group: int, chunk: int, exponents: list[int]) -> np.ndarray:
    """arithmetic.md section 8 with lo_bits 4."""
    w, x = given["weights"].astype(np.int64), given["activations"].astype(np.int64)
    frequent = given["zero_point"] >> 4 << 4
    steps = [slice(start, start + chunk) for start in range(0, w.shape[1], chunk)]
    tiles = np.stack([w[:, step] @ (x[step] - frequent) for step in steps])
    folded = given["bias"] - (given["zero_point"] - frequent) * w.sum(axis=1)
    return apsq(tiles, exponents, group) + folded[:, None]


@pytest.mark.parametrize("dataflow", FLOWS)
@pytest.mark.parametrize("chunk", [1, 16, 23, 61])
def test_full_partial_sums_are_exact(dataflow: str, chunk: int) -> None:
    given = operands(17, 60, 19)
    result = gemm(**given, config=TINY, engine="rtl", dataflow=dataflow, psum_chunk=chunk)
    np.testing.assert_array_equal(result.output, exact(given))
    assert result.report["dataflow"] == dataflow


@pytest.mark.parametrize("dataflow", FLOWS)
@pytest.mark.parametrize("group", [1, 2, 3, 4])
@pytest.mark.parametrize("chunk", [None, 7])
def test_apsq(dataflow: str, group: int, chunk: int | None) -> None:
    given = operands(11, 75, 21)
    size = chunk or TINY.tile_k
    exponents = [(3 * i) % 10 for i in range(-(-75 // size))]
    result = gemm(
        **given, config=TINY, engine="rtl", dataflow=dataflow,
        psum_group=group, psum_chunk=chunk, psum_exponents=exponents,
    )  # fmt: skip
    np.testing.assert_array_equal(result.output, with_apsq(given, group, size, exponents))


@pytest.mark.parametrize("exponent", [0, 1, 15, 24])
def test_both_ends_of_exponents_and_sums(exponent: int) -> None:
    given = operands(8, 64, 8)
    given["weights"] = np.where(np.arange(8)[:, None] % 2, 63, -64) * np.ones((8, 64), np.int64)
    given["activations"] = np.where(np.arange(8) % 2, 255, 0) * np.ones((64, 8), np.uint8)
    result = gemm(
        **given,
        config=TINY,
        engine="rtl",
        dataflow="ws",
        psum_group=2,
        psum_chunk=16,
        psum_exponents=exponent,
    )
    np.testing.assert_array_equal(result.output, with_apsq(given, 2, 16, [exponent] * 4))


@pytest.mark.parametrize("chunk", [None, 24])
@pytest.mark.parametrize("shape", [(8, 60, 70), (70, 60, 8), (20, 16, 20), (40, 150, 60)])
def test_auto_takes_the_least_estimate(shape: tuple[int, int, int], chunk: int | None) -> None:
    given = operands(*shape)
    report = gemm(**given, config=TINY, engine="rtl", dataflow="auto", psum_chunk=chunk).report
    estimates = report["dataflow_estimates"]
    assert set(estimates) == set(FLOWS)
    assert estimates[report["dataflow"]] == min(estimates.values())
    assert sum(t["dram_bytes"] for t in report["accesses"].values()) == min(estimates.values())


@pytest.mark.parametrize("dataflow", FLOWS)
def test_accesses_are_what_the_bus_moved(dataflow: str) -> None:
    given = operands(24, 64, 24)
    report = gemm(
        **given, config=TINY, engine="rtl", dataflow=dataflow,
        psum_group=1, psum_chunk=16, psum_exponents=6,
    ).report  # fmt: skip
    moved = report["dram_bytes_read"] + report["dram_bytes_written"]
    known = sum(tensor["dram_bytes"] for tensor in report["accesses"].values())
    # Besides there are the descriptor and a word of exponents, and biases come in beats of 8 bytes, a row of
    # tiles at a time, again for each column of tiles if input stationary.
    assert DESCRIPTOR_BYTES < moved - known <= DESCRIPTOR_BYTES + 8 + 8 * 3 * 3


def test_partial_sums_of_8_bits_are_a_quarter() -> None:
    given = operands(24, 64, 24)
    moved = []
    for psum in ({}, {"psum_group": 3, "psum_exponents": 8}):
        report = gemm(**given, config=TINY, engine="rtl", dataflow="ws", psum_chunk=16, **psum).report
        moved.append(report["accesses"]["partial_sums"]["chip_bytes"])
    assert moved[0] == 4 * moved[1] == 9 * 3 * 2 * 64 * 4


def test_golden_ignores_the_dataflow() -> None:
    given = operands(5, 20, 6)
    result = gemm(**given, config=TINY, dataflow="auto")
    np.testing.assert_array_equal(result.output, exact(given))
    assert result.report["dataflow"] is None


@pytest.mark.parametrize("dataflow", ["OS", "", None, 1])
def test_unknown_dataflow(dataflow: Any) -> None:
    with pytest.raises(ValueError, match="dataflow must be one of os, ws, is, auto, not"):
        gemm(**operands(2, 3, 4), config=TINY, dataflow=dataflow)


def test_sums_beyond_32_bits_are_refused() -> None:
    w = np.full((2, 64), 63, np.int64)
    bias = np.zeros(2, np.int64)
    check_psums(w, bias, 128, 4, group=4, chunk=16, exponents=[16] * 4)
    with pytest.raises(ValueError, match="psum_exponents must keep every sum within 32 bits"):
        check_psums(w, bias + (1 << 31) - 100, 128, 4, group=1, chunk=16, exponents=[4] * 4)
