"""The golden model of AQS-GEMM against the vectors, plain integers and slow definitions (sections 1 to 7)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sliceforge.sim.golden import aqs_gemm, aqs_product, exact_float
from sliceforge.sim.rle import rle_encode
from sliceforge.sim.slices import bit_slices, sbr_slices, sliced_activations
from sliceforge.sim.work import count_filler, count_work, kept_activation_vectors, kept_weight_vectors

DATA = Path(__file__).parent / "data"
CASES = json.loads((DATA / "aqs_gemm.json").read_text())
ARRAYS = np.load(DATA / "aqs_gemm.npz")
PARAMETERS = ("zero_point", "weight_bits", "lo_bits", "vector")

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_vectors(case: dict[str, Any]) -> None:
    name = case["case"]
    w, x, bias, y = (ARRAYS[f"{name}_{part}"] for part in ("w", "x", "bias", "y"))
    result = aqs_gemm(w, x, bias=bias, **{key: case[key] for key in PARAMETERS})
    assert result.output.dtype == np.int64
    np.testing.assert_array_equal(result.output, y)
    wanted = {key: value for key, value in case.items() if key not in ("case", "vector")}
    got = {key: result.report[key] for key in wanted}
    assert got == pytest.approx(wanted, rel=1e-12, abs=1e-15)
    for key in ("zero_point", "outer_products_done", "outer_products_full"):
        assert type(got[key]) is int


def plain(w: Array, x: Array, bias: Array, zero_point: int, lo_bits: int) -> Array:
    """Section 1, in integers, with nothing of slices but x_hat."""
    x_hat = sliced_activations(x, lo_bits).astype(np.int64)
    result: Array = w.astype(np.int64) @ (x_hat - zero_point) + bias.astype(np.int64)[:, None]
    return result


def operands(m: int, k: int, n: int, bits: int, zero_point: int, seed: int) -> tuple[Array, Array, Array]:
    """Random operands; sparse, dense, constant or extreme by the seed."""
    rng = np.random.default_rng(seed)
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    spread = rng.choice([0.0, 2.0, 6.0, 1000.0])
    w = np.clip(np.rint(rng.normal(0, spread, (m, k))), low, high).astype(np.int16)
    x_spread = rng.choice([0.0, 3.0, 12.0, 1000.0])
    x = np.clip(np.rint(rng.normal(zero_point, x_spread, (k, n))), 0, 255).astype(np.uint8)
    bias = rng.integers(-(1 << 31), 1 << 31, m).astype(np.int32)
    return w, x, bias


SHAPES = {
    "m": st.sampled_from([1, 2, 3, 4, 5, 7, 8, 11, 13, 16, 17]),
    "k": st.sampled_from([1, 2, 3, 7, 16, 31, 32, 37, 61]),
    "n": st.sampled_from([1, 2, 3, 4, 5, 7, 8, 11, 13, 16]),
}
FORMATS = {
    "bits": st.sampled_from([4, 7, 10]),
    "lo_bits": st.sampled_from([4, 5, 6]),
    "zero_point": st.one_of(st.sampled_from([0, 255]), st.integers(0, 255)),
    "vector": st.sampled_from([1, 2, 3, 4, 8]),
    "seed": st.integers(0, 1 << 20),
}


@settings(max_examples=300, deadline=None)
@given(**SHAPES, **FORMATS)
def test_equals_plain_integers(
    m: int, k: int, n: int, bits: int, lo_bits: int, zero_point: int, vector: int, seed: int
) -> None:
    w, x, bias = operands(m, k, n, bits, zero_point, seed)
    result = aqs_gemm(
        w, x, zero_point=zero_point, weight_bits=bits, lo_bits=lo_bits, bias=bias, vector=vector
    )
    np.testing.assert_array_equal(result.output, plain(w, x, bias, zero_point, lo_bits))


def slow_counts(
    w: Array, x: Array, zero_point: int, bits: int, lo_bits: int, vector: int, tile_k: int, run_bits: int
) -> tuple[dict[str, float], int]:
    """The table of section 5 walked product by product, over the data and with fillers kept too."""
    slices = sbr_slices(w, bits)
    high = bit_slices(x, lo_bits)[0]
    frequent = zero_point >> lo_bits
    row_groups = range(0, len(w), vector)
    column_groups = range(0, x.shape[1], vector)
    depth = len(x)

    def entries(vectors: Array, value: int) -> set[int]:
        """Positions along K of the entries of one group's streams."""
        found: set[int] = set()
        for start in range(0, depth, tile_k):
            stream = rle_encode(vectors[start : start + tile_k], value, run_bits)
            found |= {start + entry.position for entry in stream}
        return found

    kept_w = {(a, k): bool(slices[-1][a : a + vector, k].any()) for a in row_groups for k in range(depth)}
    kept_x = {
        (b, k): bool((high[k, b : b + vector] != frequent).any()) for b in column_groups for k in range(depth)
    }
    coded_w = {a: entries(slices[-1][a : a + vector].T, 0) for a in row_groups}
    coded_x = {b: entries(high[:, b : b + vector], frequent) for b in column_groups}
    done = full = filled = 0
    for a in row_groups:
        for b in column_groups:
            for k in range(depth):
                for i in range(len(slices)):
                    skippable = i == len(slices) - 1 and i > 0
                    full += 2
                    for weight, activation, fillers in (
                        (kept_w[a, k], kept_x[b, k], False),
                        (k in coded_w[a], k in coded_x[b], True),
                    ):
                        products = (not skippable or weight) * (1 + activation)
                        if fillers:
                            filled += products
                        else:
                            done += products
    compressed_w = 0.0 if len(slices) == 1 else 1 - sum(kept_w.values()) / len(kept_w)
    counts = {
        "outer_products_done": done,
        "outer_products_full": full,
        "weight_vector_sparsity": compressed_w,
        "activation_vector_sparsity": 1 - sum(kept_x.values()) / len(kept_x),
    }
    return counts, filled - done


@settings(max_examples=60, deadline=None)
@given(
    **{**SHAPES, "m": st.integers(1, 9), "n": st.integers(1, 9)},
    **FORMATS,
    tile_k=st.sampled_from([4, 16, 32]),
    run_bits=st.integers(1, 4),
)
def test_counts_equal_the_definition(
    m: int,
    k: int,
    n: int,
    bits: int,
    lo_bits: int,
    zero_point: int,
    vector: int,
    seed: int,
    tile_k: int,
    run_bits: int,
) -> None:
    w, x, _ = operands(m, k, n, bits, zero_point, seed)
    expected, filler = slow_counts(w, x, zero_point, bits, lo_bits, vector, tile_k, run_bits)
    got = aqs_gemm(w, x, zero_point=zero_point, weight_bits=bits, lo_bits=lo_bits, vector=vector).report
    assert {key: got[key] for key in expected} == pytest.approx(expected)
    w_kept = kept_weight_vectors(w, bits, vector)
    x_kept = kept_activation_vectors(x, zero_point, lo_bits, vector)
    assert count_filler(w_kept, x_kept, bits, tile_k=tile_k, run_bits=run_bits) == filler


def test_fillers_by_hand() -> None:
    # 17 compressed vectors and a kept one: one filler with 4 run bits, at k = 15.
    w = np.zeros((4, 18), np.int8)
    w[2, 17] = 8
    x = np.full((18, 4), 100, np.uint8)
    x[17, 0] = 0
    kept = kept_weight_vectors(w), kept_activation_vectors(x, 100)
    assert count_work(*kept).done == 17 * 1 + 4
    assert count_filler(*kept, tile_k=32, run_bits=4) == 3
    assert count_filler(*kept, tile_k=16, run_bits=4) == 0
    one_slice = kept_weight_vectors(np.zeros((4, 18), np.int8), 4), kept[1]
    assert count_filler(*one_slice, weight_bits=4, tile_k=32, run_bits=4) == 1


def test_maps_are_the_same_from_the_product_and_from_the_operands() -> None:
    w, x, _ = operands(70, 50, 30, 7, 93, seed=5)
    product = aqs_product(w, x, zero_point=93, lo_bits=5, vector=8)
    np.testing.assert_array_equal(product.weight_kept, kept_weight_vectors(w, 7, 8))
    np.testing.assert_array_equal(product.activation_kept, kept_activation_vectors(x, 93, 5, 8))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_several_blocks_of_rows(dtype: type) -> None:
    w, x, bias = operands(1030, 2050, 5, 7, 137, seed=8)
    w = w.astype(dtype)
    before = w.copy(), x.copy()
    result = aqs_gemm(w, x, zero_point=137, lo_bits=5, bias=bias, vector=4)
    np.testing.assert_array_equal(result.output, plain(w, x, bias, 137, 5))
    kept = kept_weight_vectors(w)
    high = np.zeros((1032, 2050), bool)
    high[:1030] = (w < -8) | (w > 7)
    np.testing.assert_array_equal(kept, high.reshape(258, 4, 2050).any(axis=1))
    np.testing.assert_array_equal(w, before[0])
    np.testing.assert_array_equal(x, before[1])


def test_long_sums_are_exact() -> None:
    depth = 150_001  # beyond what float32 holds
    assert exact_float(120 * depth) is np.float64
    assert exact_float((1 << 24) - 1) is np.float32
    w = np.full((2, depth), -512, np.int16)
    w[1] = 511
    x = np.full((depth, 1), 255, np.uint8)
    result = aqs_gemm(w, x, zero_point=0, weight_bits=10)
    assert result.output[:, 0].tolist() == [-512 * 255 * depth, 511 * 255 * depth]


def test_strided_operands_lists_and_a_vector_longer_than_the_matrix() -> None:
    w, x, bias = operands(12, 20, 10, 7, 40, seed=3)
    expected = plain(w, x, bias, 40, 4)
    lists = aqs_gemm(w.tolist(), x.tolist(), zero_point=40, bias=bias.tolist())
    np.testing.assert_array_equal(lists.output, expected)
    strided = aqs_gemm(np.asfortranarray(w), x[::-1][::-1], zero_point=40, bias=bias, vector=10**12)
    np.testing.assert_array_equal(strided.output, expected)
    unbiased = expected - bias[:, None].astype(np.int64)
    np.testing.assert_array_equal(aqs_gemm(w, x, zero_point=40).output, unbiased)


def test_report_has_every_key_and_only_json_values() -> None:
    w, x, _ = operands(3, 5, 2, 7, 9, seed=1)
    zero_point: Any = np.uint8(9)
    report = aqs_gemm(w, x, zero_point=zero_point).report
    assert list(report) == [
        "config",
        "shape",
        "weight_bits",
        "lo_bits",
        "zero_point",
        "engine",
        "outer_products_done",
        "outer_products_full",
        "outer_products_filler",
        "weight_vector_sparsity",
        "activation_vector_sparsity",
        "operators",
        "cycles",
        "total_cycles",
        "cycle_bound",
        "utilization",
        "utilization_total",
        "dram_bytes_read",
        "dram_bytes_written",
    ]
    assert json.loads(json.dumps(report)) == report
    assert report["shape"] == [3, 5, 2] and report["engine"] == "golden" and report["zero_point"] == 9
    assert all(report[key] is None for key in ("config", "outer_products_filler", "cycles", "operators"))


W = np.ones((2, 3), np.int8)
X = np.ones((3, 2), np.uint8)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weights": W[0]}, ValueError, r"weights must be a 2-D array \(M, K\) .* not of shape \(3,\)"),
        ({"weights": W[:0]}, ValueError, r"weights must be a 2-D array \(M, K\) .* not of shape \(0, 3\)"),
        ({"weights": W * 64}, ValueError, r"weights must have all elements in -64\.\.63, not 64"),
        ({"weights": W * -65}, ValueError, r"weights must have all elements in -64\.\.63, not -65"),
        ({"weights": W * 1.0}, TypeError, r"weights must be an array of integers .* not of float64"),
        ({"weights": W > 0}, TypeError, r"weights must be an array of integers -64\.\.63, not of bool"),
        ({"weights": None}, TypeError, r"weights must be an array of integers -64\.\.63, not of object"),
        ({"activations": X[:2]}, ValueError, r"activations must have K = 3 rows .* not 2"),
        ({"activations": X[:, :0]}, ValueError, r"activations must be a 2-D .* not of shape \(3, 0\)"),
        ({"activations": X[:, 0]}, ValueError, r"activations must be a 2-D array \(K, N\) .* \(3,\)"),
        ({"activations": X * np.int64(256)}, ValueError, r"activations must .* in 0\.\.255, not 256"),
        ({"zero_point": 256}, ValueError, r"zero_point must be 0\.\.255, not 256"),
        ({"zero_point": -1}, ValueError, r"zero_point must be 0\.\.255, not -1"),
        ({"zero_point": 1.5}, TypeError, r"zero_point must be an integer 0\.\.255, not 1\.5"),
        ({"weight_bits": 8}, ValueError, r"weight_bits must be one of 4, 7, 10, not 8"),
        ({"lo_bits": 7}, ValueError, r"lo_bits must be one of 4, 5, 6, not 7"),
        ({"lo_bits": "4"}, TypeError, r"lo_bits must be an integer and one of 4, 5, 6, not '4'"),
        ({"vector": 0}, ValueError, r"vector must be 1 or more, not 0"),
        ({"bias": [1]}, ValueError, r"bias must have shape \(M,\) = \(2,\) .* not \(1,\)"),
        ({"bias": [[1, 2]]}, ValueError, r"bias must have shape \(M,\) = \(2,\) .* not \(1, 2\)"),
        ({"bias": [0, 1 << 31]}, ValueError, r"bias must have all .*\.\.2147483647, not 2147483648"),
        ({"bias": [0.0, 1.0]}, TypeError, r"bias must be an array of integers .* not of float64"),
    ],
)
def test_wrong_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"weights": W, "activations": X, "zero_point": 7, **change}
    with pytest.raises(error, match=f"^{message}$"):
        aqs_gemm(**arguments)
