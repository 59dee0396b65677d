"""The Python API `sliceforge.sim.gemm`: results of both engines, the report, and every refused argument."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sliceforge.gen import AcceleratorConfig
from sliceforge.sim import GemmResult, MismatchError, apsq, aqs_gemm, bit_slices, gemm, sbr_slices
from sliceforge.sim.core_engine import CoreRun, run_core
from sliceforge.sim.driver import RunResult
from sliceforge.sim.gemm import folded_bias
from sliceforge.sim.layer_image import pack_layer
from sliceforge.sim.rtl import LayerRun

Array = npt.NDArray[Any]

GEMM_MODULE = import_module("sliceforge.sim.gemm")  # the package's attribute of that name is the function

TINY = AcceleratorConfig.preset("tiny")
TINY3 = AcceleratorConfig.preset("tiny", weight_slices=3, name="tiny3", wmem_kib=8)
TILE = TINY.tile_m  # also its columns and less than a k-tile
REPORT_KEYS = [
    "config", "shape", "weight_bits", "lo_bits", "zero_point", "engine", "outer_products_done",
    "outer_products_full", "outer_products_filler", "weight_vector_sparsity", "activation_vector_sparsity",
    "operators", "cycles", "total_cycles", "cycle_bound", "utilization", "utilization_total",
    "dram_bytes_read", "dram_bytes_written",
]  # fmt: skip


def operands(
    m: int, k: int, n: int, *, bits: int = 7, zero_point: int = 128, spread: float = 6.0, seed: int = 1
) -> dict[str, Array]:
    """Weights and activations about as sparse as a network's, and a bias."""
    rng = np.random.default_rng([seed, m, k, n, bits, zero_point])
    top = 1 << (bits - 1)
    return {
        "weights": np.clip(np.rint(rng.normal(0, top / 12, (m, k))), -top, top - 1).astype(np.int16),
        "activations": np.clip(np.rint(rng.normal(zero_point, spread, (k, n))), 0, 255).astype(np.uint8),
        "bias": rng.integers(-100_000, 100_000, m).astype(np.int32),
    }


def plain(
    weights: Array, activations: Array, bias: Array | int = 0, *, zero_point: int, lo_bits: int = 4
) -> Array:
    """The result by its definition, in plain integers."""
    drop = lo_bits - 4
    x_hat = activations.astype(np.int64) >> drop << drop
    product: Array = weights.astype(np.int64) @ (x_hat - zero_point)
    return product + np.broadcast_to(bias, len(weights)).astype(np.int64)[:, None]


class TestGolden:
    @pytest.mark.parametrize("zero_point", [0, 100, 255])
    @pytest.mark.parametrize("bits", [4, 7])
    def test_output(self, bits: int, zero_point: int) -> None:
        given = operands(13, 37, 11, bits=bits, zero_point=zero_point)
        result = gemm(**given, config="tiny", zero_point=zero_point, weight_bits=bits)
        assert isinstance(result, GemmResult)
        assert result.output.dtype == np.int64
        np.testing.assert_array_equal(result.output, plain(**given, zero_point=zero_point))

    def test_a_bias_of_none_is_zero(self) -> None:
        given = operands(5, 6, 7)
        del given["bias"]
        result = gemm(**given, config=TINY, zero_point=3)
        np.testing.assert_array_equal(result.output, plain(**given, zero_point=3))

    def test_takes_lists_and_numpy_integers(self) -> None:
        result = gemm(
            [[1, -2, 3]], [[1, 2], [3, 4], [5, 6]], config="tiny", zero_point=np.uint8(9),
            weight_bits=np.int64(7), lo_bits=np.int32(4), bias=[5],
        )  # fmt: skip
        assert result.output.tolist() == [[1 - 6 + 15 - 2 * 9 + 5, 2 - 8 + 18 - 2 * 9 + 5]]
        json.dumps(result.report)

    def test_leaves_its_arguments_alone(self) -> None:
        given = operands(9, 20, 9)
        before = {name: array.copy() for name, array in given.items()}
        gemm(**given, config=TINY, zero_point=100, lo_bits=6)
        for name, array in given.items():
            np.testing.assert_array_equal(array, before[name])

    def test_report(self) -> None:
        given = operands(10, 40, 9)
        report = gemm(**given, config=TINY, zero_point=128).report
        assert set(REPORT_KEYS) <= set(report)
        assert json.loads(json.dumps(report)) == report
        alone = aqs_gemm(**given, zero_point=128).report
        for key in REPORT_KEYS[6:8] + REPORT_KEYS[9:11]:
            assert report[key] == alone[key]
        wanted = {
            "config": "tiny", "shape": [10, 40, 9], "weight_bits": 7, "lo_bits": 4, "zero_point": 128,
            "engine": "golden", "operators": 4, "cycle_bound": -(-report["outer_products_done"] // 4),
        }  # fmt: skip
        assert {key: report[key] for key in wanted} == wanted
        # ceil(10 / 4) * ceil(9 / 4) * 40 * 2 * 2
        assert report["outer_products_full"] == 3 * 3 * 40 * 4
        unknown = (
            "cycles", "total_cycles", "utilization", "utilization_total", "dram_bytes_read",
            "dram_bytes_least", "memory_latency", "memory_bandwidth", "counters",
        )  # fmt: skip
        assert all(report[key] is None for key in unknown)

    def test_has_no_limit_on_k(self) -> None:
        given = operands(2, TINY.max_k + 1, 2)
        result = gemm(**given, config=TINY, zero_point=128)
        np.testing.assert_array_equal(result.output, plain(**given, zero_point=128))

    def test_results_beyond_32_bits(self) -> None:
        weights = np.full((1, 200_000), 63, np.int8)
        activations = np.full((200_000, 1), 255, np.uint8)
        result = gemm(weights, activations, config=TINY, zero_point=0, bias=[2**31 - 1])
        assert result.output.tolist() == [[63 * 255 * 200_000 + 2**31 - 1]]

    @pytest.mark.parametrize("group", [1, 2, 4, 9])
    @pytest.mark.parametrize("chunk", [None, 8, 50])
    def test_apsq(self, group: int, chunk: int | None) -> None:
        given = operands(6, 50, 5, zero_point=100)
        size = TINY.tile_k if chunk is None else chunk
        steps = [slice(start, start + size) for start in range(0, 50, size)]
        exponents = [4 + i % 3 for i in range(len(steps))]
        frequent = 100 >> 4 << 4
        centered = given["activations"].astype(np.int64) - frequent
        w = given["weights"].astype(np.int64)
        tiles = np.stack([w[:, step] @ centered[step] for step in steps])
        folded = given["bias"] - (100 - frequent) * w.sum(axis=1)
        result = gemm(
            **given, config=TINY, zero_point=100, psum_group=group, psum_chunk=chunk, psum_exponents=exponents
        )
        np.testing.assert_array_equal(result.output, apsq(tiles, exponents, group) + folded[:, None])
        assert set(REPORT_KEYS) <= set(result.report)


SIZES = [1, 2, 3, 5, TILE - 1, TILE, TILE + 1, 13, 2 * TILE, 17, 31]


def shapes() -> list[tuple[int, int, int]]:
    """Each size on each side, M != N != K wherever it can be; K also around the k-tile."""
    tile_k = TINY.tile_k
    depths = [1, 2, tile_k - 1, tile_k, tile_k + 1, 37, 2 * tile_k, 53, 5, 3 * tile_k - 1, 7]
    found = [(1, 1, 1)]
    found += [(m, depths[i], SIZES[-1 - i]) for i, m in enumerate(SIZES)]
    found += [(SIZES[-3 - i], depths[-1 - i], n) for i, n in enumerate(SIZES[:9])]
    return found


class TestRtl:
    def check(self, given: dict[str, Array], config: AcceleratorConfig = TINY, **parameters: Any) -> Any:
        """The RTL's result against the definition; `gemm` itself has compared it with golden."""
        result = gemm(**given, config=config, engine="rtl", **parameters)
        lo_bits, zero_point = parameters.get("lo_bits", 4), parameters["zero_point"]
        np.testing.assert_array_equal(result.output, plain(**given, zero_point=zero_point, lo_bits=lo_bits))
        return result.report

    @pytest.mark.parametrize("shape", shapes(), ids=lambda shape: "x".join(map(str, shape)))
    def test_shapes(self, shape: tuple[int, int, int]) -> None:
        self.check(operands(*shape), zero_point=128)

    @pytest.mark.parametrize("zero_point", [0, 1, 127, 136, 254, 255])
    @pytest.mark.parametrize("lo_bits", [4, 5, 6])
    @pytest.mark.parametrize("bits", [4, 7])
    def test_parameters(self, bits: int, lo_bits: int, zero_point: int) -> None:
        given = operands(13, 37, 11, bits=bits, zero_point=zero_point, spread=10 * 2 ** (lo_bits - 4))
        self.check(given, zero_point=zero_point, weight_bits=bits, lo_bits=lo_bits)

    @pytest.mark.parametrize("bits", [4, 7, 10])
    @pytest.mark.parametrize(("lo_bits", "zero_point"), [(4, 0), (5, 144), (6, 255)])
    def test_three_weight_slices(self, bits: int, lo_bits: int, zero_point: int) -> None:
        given = operands(9, 35, 19, bits=bits, zero_point=zero_point)
        self.check(given, TINY3, zero_point=zero_point, weight_bits=bits, lo_bits=lo_bits)

    @pytest.mark.parametrize(
        ("weight", "activation", "zero_point"),
        [(-64, 255, 0), (63, 255, 0), (-64, 0, 255), (63, 0, 255), (0, 255, 128), (-64, 128, 128)],
    )
    def test_extremes(self, weight: int, activation: int, zero_point: int) -> None:
        """All elements at one end of their range, over the largest K."""
        given = {
            "weights": np.full((3, TINY.max_k), weight, np.int8),
            "activations": np.full((TINY.max_k, 5), activation, np.uint8),
            "bias": np.array([0, 1 << 29, -(1 << 29)], np.int32),
        }
        self.check(given, zero_point=zero_point)

    def test_operands_that_do_not_stay_in_their_memories(self) -> None:
        """More k-tiles than slots: both operands are loaded again for each pass."""
        k = (TINY.weight_slots + 1) * TINY.tile_k
        self.check(operands(2 * TILE + 1, k, TILE + 3), zero_point=128)

    def test_dense_operands(self) -> None:
        rng = np.random.default_rng(3)
        given = {
            "weights": rng.integers(-64, 64, (11, 50)).astype(np.int8),
            "activations": rng.integers(0, 256, (50, 14)).astype(np.uint8),
            "bias": rng.integers(-(1 << 20), 1 << 20, 11).astype(np.int32),
        }
        self.check(given, zero_point=77)

    def test_layers_do_not_depend_on_each_other(self) -> None:
        given = operands(17, 40, 9)
        first = self.check(given, zero_point=128)
        self.check(operands(3, 80, 21, zero_point=5), zero_point=5, lo_bits=6)
        assert self.check(given, zero_point=128) == first

    def test_report(self) -> None:
        given = operands(16, 64, 16)
        golden = gemm(**given, config=TINY, zero_point=128).report
        report = self.check(given, zero_point=128)
        assert set(REPORT_KEYS) <= set(report)
        assert json.loads(json.dumps(report)) == report
        for key in REPORT_KEYS[:12]:
            assert report[key] == ("rtl" if key == "engine" else golden[key])
        assert 0 < report["cycle_bound"] <= report["cycles"] < report["total_cycles"]
        assert report["utilization"] == report["cycle_bound"] / report["cycles"]
        assert report["utilization_total"] == report["cycle_bound"] / report["total_cycles"]
        dense = report["outer_products_full"] / report["operators"]
        assert report["speedup_over_dense"] == dense / report["cycles"]
        assert (report["memory_latency"], report["memory_bandwidth"]) == (100, 1.0)
        counters = report["counters"]
        assert report["total_cycles"] == counters["CYCLES"]
        # Whole tiles only, so nothing is done for padding.
        assert counters["OUTER_PRODUCTS"] == report["outer_products_done"] + report["outer_products_filler"]
        # Both operands stay in their memories, so nothing is read twice.
        moved = [report["dram_bytes_read"], report["dram_bytes_written"]]
        assert moved == report["dram_bytes_least"]
        assert moved == [counters["BYTES_READ"], counters["BYTES_WRITTEN"]]
        assert moved[1] == 4 * 16 * 16

    def test_memory_options(self) -> None:
        given = operands(9, 40, 11)
        fast = self.check(given, zero_point=128, memory_latency=0)
        slow = self.check(
            given, zero_point=128, memory_latency=np.int64(300), memory_bandwidth=np.float32(0.25)
        )
        assert (slow["memory_latency"], slow["memory_bandwidth"]) == (300, 0.25)
        assert json.loads(json.dumps(slow)) == slow
        assert slow["cycles"] == fast["cycles"]  # on streams that never stall
        assert slow["total_cycles"] > fast["total_cycles"] + 600  # descriptor, then operands
        assert slow["dram_bytes_read"] == fast["dram_bytes_read"]

    def test_progress_rises_to_one(self) -> None:
        shares: list[float] = []
        gemm(**operands(64, 400, 64), config=TINY, zero_point=128, engine="rtl", progress=shares.append)
        assert len(shares) > 1
        assert shares == sorted(shares)
        assert shares[-1] == 1.0


def entries(kept: Array, tile_k: int, run_bits: int) -> Array:
    """Where a run-length coded stream has an entry, for one row of ``kept``, by walking along it."""
    result = np.zeros_like(kept)
    for start in range(0, len(kept), tile_k):
        run = 0
        fillers: list[int] = []
        for k in range(start, min(start + tile_k, len(kept))):
            if kept[k]:
                result[[*fillers, k]] = True
                run, fillers = 0, []
            elif run == 2**run_bits - 1:
                fillers.append(k)
                run = 0
            else:
                run += 1
    return result


def core_products(
    weights: Array, activations: Array, config: AcceleratorConfig, *, bits: int, zero_point: int, lo_bits: int
) -> int:
    """Outer products that the machine issues, padding and fillers included, vector by vector."""
    v = config.vector
    (m, k), n = weights.shape, activations.shape[1]
    w = np.zeros((-(-m // config.tile_m) * config.tile_m, k), np.int64)
    w[:m] = weights
    x = np.full((k, -(-n // config.tile_n) * config.tile_n), zero_point, np.int64)
    x[:, :n] = activations
    slices = sbr_slices(w, bits)
    high = bit_slices(x, lo_bits)[0]
    weight_vectors = []  # slices stored at each k
    for row in range(0, len(w), v):
        kept = slices[-1][row : row + v].any(axis=0) & (len(slices) > 1)
        weight_vectors.append(max(1, len(slices) - 1) + entries(kept, config.tile_k, config.run_bits))
    activation_vectors = []
    for column in range(0, x.shape[1], v):
        kept = (high[:, column : column + v] != zero_point >> lo_bits).any(axis=1)
        activation_vectors.append(1 + entries(kept, config.tile_k, config.run_bits))
    return sum(int(a @ b) for a in weight_vectors for b in activation_vectors)


class TestProductsCounter:
    """The core issues exactly the products of the specification: done, fillers and padding, no other."""

    @pytest.mark.parametrize(
        ("config", "bits", "lo_bits", "zero_point", "shape"),
        [
            (TINY, 7, 4, 128, (16, 64, 16)),
            (TINY, 7, 4, 128, (13, 37, 11)),
            (TINY, 7, 6, 200, (9, 50, 3)),
            (TINY, 4, 5, 40, (7, 33, 17)),
            (TINY3, 10, 4, 128, (11, 45, 9)),
            (TINY3, 7, 4, 0, (5, 48, 20)),
        ],
    )
    def test_counter(
        self,
        config: AcceleratorConfig,
        bits: int,
        lo_bits: int,
        zero_point: int,
        shape: tuple[int, int, int],
    ) -> None:
        given = operands(*shape, bits=bits, zero_point=zero_point, spread=4.0)
        weights, activations, bias = given["weights"], given["activations"], given["bias"].astype(np.int64)
        parameters = {"zero_point": zero_point, "lo_bits": lo_bits}
        image = pack_layer(
            weights,
            activations,
            folded_bias(weights, bias, zero_point, lo_bits),
            weight_bits=bits,
            config=config,
            **parameters,
        )
        run = run_core(image)
        np.testing.assert_array_equal(run.output, plain(**given, **parameters))
        assert run.products == core_products(weights, activations, config, bits=bits, **parameters)
        report = gemm(**given, config=config, weight_bits=bits, **parameters).report
        work = report["outer_products_done"] + report["outer_products_filler"]
        whole = shape[0] % config.tile_m == 0 and shape[2] % config.tile_n == 0
        assert run.products == work if whole else run.products > work

    def test_fillers(self) -> None:
        """Kept vectors far apart, on both sides. With a skip of one bit, fillers stand between them."""
        config = AcceleratorConfig.preset("tiny", run_bits=1, name="tiny_runs")
        weights = np.zeros((8, 40), np.int8)
        weights[:, [9, 31]] = 63
        activations = np.full((40, 8), 128, np.uint8)
        activations[[0, 14, 39]] = 255
        bias = np.zeros(8, np.int64)
        report = gemm(weights, activations, config=config, zero_point=128).report
        # Weights: 1, 3, 5, 7 before 9; 17, .. 29 before 31. Activations: 2, .. 12 between 0 and 14; 33, .. 37
        # before 39. Each entry costs a product with each vector at its k on the other side.
        weight_entries = [1, 3, 5, 7, 9, 17, 19, 21, 23, 25, 27, 29, 31]
        activation_entries = [0, 2, 4, 6, 8, 10, 12, 14, 33, 35, 37, 39]
        with_fillers = sum(
            2 * (1 + (k in weight_entries)) * 2 * (1 + (k in activation_entries)) for k in range(40)
        )
        assert report["outer_products_done"] == 4 * (40 + 2 + 3)
        assert report["outer_products_filler"] == with_fillers - 4 * 45
        image = pack_layer(
            weights, activations, folded_bias(weights, bias, 128, 4),
            zero_point=128, weight_bits=7, lo_bits=4, config=config,
        )  # fmt: skip
        run = run_core(image)
        assert run.products == with_fillers
        np.testing.assert_array_equal(run.output, plain(weights, activations, zero_point=128))


class TestRefused:
    """Every wrong argument, with its sentence; the command line prints the same."""

    W = np.zeros((2, 3), np.int8)
    X = np.zeros((3, 4), np.uint8)

    def error(self, **changes: Any) -> tuple[type[Exception], str]:
        given: dict[str, Any] = {"weights": self.W, "activations": self.X, "config": TINY, "zero_point": 0}
        with pytest.raises((TypeError, ValueError)) as found:
            gemm(**{**given, **changes})
        assert "\n" not in str(found.value)
        return found.type, str(found.value)

    @pytest.mark.parametrize("engine", ["golden", "rtl"])
    @pytest.mark.parametrize(
        ("changes", "error", "sentence"),
        [
            (
                {"weights": np.zeros((2, 3))},
                TypeError,
                "weights must be an array of integers -64..63, not of float64",
            ),
            (
                {"weights": np.zeros((2, 3), bool)},
                TypeError,
                "weights must be an array of integers -64..63, not of bool",
            ),
            (
                {"weights": "W.npy"},
                TypeError,
                "weights must be an array of integers -64..63, not of <U5",
            ),
            (
                {"weights": [[1, 2], [3]]},
                ValueError,
                "weights must be an array of integers -64..63, not ragged",
            ),
            ({"weights": W + 64}, ValueError, "weights must have all elements in -64..63, not 64"),
            ({"weights": W - 65}, ValueError, "weights must have all elements in -64..63, not -65"),
            (
                {"weights": W + 8, "weight_bits": 4},
                ValueError,
                "weights must have all elements in -8..7, not 8",
            ),
            (
                {"weights": W[0]},
                ValueError,
                "weights must be a 2-D array (M, K) with no side 0, not of shape (3,)",
            ),
            (
                {"weights": W[:0]},
                ValueError,
                "weights must be a 2-D array (M, K) with no side 0, not of shape (0, 3)",
            ),
            (
                {"activations": X.astype(float)},
                TypeError,
                "activations must be an array of integers 0..255, not of float64",
            ),
            (
                {"activations": X.astype(int) - 1},
                ValueError,
                "activations must have all elements in 0..255, not -1",
            ),
            (
                {"activations": X.astype(int) + 256},
                ValueError,
                "activations must have all elements in 0..255, not 256",
            ),
            (
                {"activations": X[None]},
                ValueError,
                "activations must be a 2-D array (K, N) with no side 0, not of shape (1, 3, 4)",
            ),
            (
                {"activations": X.T},
                ValueError,
                "activations must have K = 3 rows as weights have columns, not 4",
            ),
            (
                {"bias": [0.5, 1.0]},
                TypeError,
                "bias must be an array of integers -2147483648..2147483647, not of float64",
            ),
            (
                {"bias": [0, 2**31]},
                ValueError,
                "bias must have all elements in -2147483648..2147483647, not 2147483648",
            ),
            (
                {"bias": [0, 0, 0]},
                ValueError,
                "bias must have shape (M,) = (2,) as weights have rows, not (3,)",
            ),
            ({"zero_point": 300}, ValueError, "zero_point must be 0..255, not 300"),
            ({"zero_point": -1}, ValueError, "zero_point must be 0..255, not -1"),
            ({"zero_point": 1.0}, TypeError, "zero_point must be an integer 0..255, not 1.0"),
            ({"zero_point": True}, TypeError, "zero_point must be an integer 0..255, not True"),
            ({"zero_point": None}, TypeError, "zero_point must be an integer 0..255, not None"),
            ({"weight_bits": 8}, ValueError, "weight_bits must be one of 4, 7, 10, not 8"),
            (
                {"weight_bits": "7"},
                TypeError,
                "weight_bits must be an integer and one of 4, 7, 10, not '7'",
            ),
            (
                {"weight_bits": 10},
                ValueError,
                "weight_bits must be at most 7 on config 'tiny' (weight_slices = 2), not 10",
            ),
            ({"lo_bits": 3}, ValueError, "lo_bits must be one of 4, 5, 6, not 3"),
            ({"lo_bits": 7}, ValueError, "lo_bits must be one of 4, 5, 6, not 7"),
            ({"lo_bits": 4.0}, TypeError, "lo_bits must be an integer and one of 4, 5, 6, not 4.0"),
            (
                {"config": "huge"},
                ValueError,
                "config must be one of the presets panacea, edge, tiny, not 'huge'",
            ),
            ({"config": 4}, TypeError, "config must be an AcceleratorConfig or a preset's name, not 4"),
            ({"psum_exponents": 5}, ValueError, "psum_exponents must come with psum_group, not alone as 5"),
            (
                {"psum_group": 2},
                ValueError,
                "psum_exponents must be given with psum_group = 2: one integer 0..31, or one a step, "
                "not None",
            ),
        ],
    )  # fmt: skip
    def test_by_every_engine(
        self, engine: str, changes: dict[str, Any], error: type[Exception], sentence: str
    ) -> None:
        assert self.error(engine=engine, **changes) == (error, sentence)

    def test_a_chunk_alone_with_golden(self) -> None:
        message = "psum_chunk must come with psum_group, not alone as 8"
        assert self.error(psum_chunk=8) == (ValueError, message)

    @pytest.mark.parametrize("engine", ["model", "RTL", "", None])
    def test_engine(self, engine: Any) -> None:
        message = f"engine must be one of golden, rtl, uart://DEVICE, not {engine!r}"
        assert self.error(engine=engine) == (ValueError, message)

    @pytest.mark.parametrize(
        ("changes", "error", "sentence"),
        [
            ({"psum_group": 0}, ValueError, "psum_group must be 1 or more, not 0"),
            ({"psum_group": 1.5}, TypeError, "psum_group must be an integer 1 or more, not 1.5"),
            ({"psum_chunk": 0}, ValueError, "psum_chunk must be 1 or more, not 0"),
            ({"psum_exponents": 32}, ValueError, "psum_exponents must have all elements in 0..31, not 32"),
            (
                {"psum_exponents": [1, 2]},
                ValueError,
                "psum_exponents must be one integer 0..31 or p = 1 of them, one a step, not of shape (2,)",
            ),
            (
                {"psum_exponents": 5.5},
                TypeError,
                "psum_exponents must be an array of integers 0..31, not of float64",
            ),
            (
                {"engine": "rtl", "psum_group": 5},
                ValueError,
                "psum_group must be 1..4 in hardware, not 5",
            ),
        ],
    )  # fmt: skip
    def test_psum(self, changes: dict[str, Any], error: type[Exception], sentence: str) -> None:
        psum = {"psum_group": 2, "psum_chunk": 16, "psum_exponents": 5}
        assert self.error(**{**psum, **changes}) == (error, sentence)

    @pytest.mark.parametrize(
        ("changes", "error", "sentence"),
        [
            ({"memory_latency": -1}, ValueError, "memory_latency must be 0..1000000, not -1"),
            ({"memory_latency": 1.0}, TypeError, "memory_latency must be an integer 0..1000000, not 1.0"),
            ({"memory_bandwidth": 0}, ValueError, "memory_bandwidth must be above 0 and up to 1, not 0"),
            ({"memory_bandwidth": 1.1}, ValueError, "memory_bandwidth must be above 0 and up to 1, not 1.1"),
            (
                {"memory_bandwidth": float("nan")},
                ValueError,
                "memory_bandwidth must be above 0 and up to 1, not nan",
            ),
            (
                {"memory_bandwidth": True},
                TypeError,
                "memory_bandwidth must be a number above 0 and up to 1, not True",
            ),
            (
                {"memory_bandwidth": "1"},
                TypeError,
                "memory_bandwidth must be a number above 0 and up to 1, not '1'",
            ),
            ({"trace": 5}, TypeError, "trace must be the name of a file, not 5"),
            ({"trace": ""}, ValueError, "trace must be a file in an existing folder, not '.'"),
            ({"trace": "/dev/null"}, ValueError, "trace must be a regular file, not '/dev/null'"),
            ({"trace": "w.fst", "trace_from": -1}, ValueError, "trace_from must be 0 or more, not -1"),
            (
                {"trace": "w.fst", "trace_from": 9, "trace_to": 8},
                ValueError,
                "trace_to must be 9 or more, not 8",
            ),
            ({"trace_from": 0}, ValueError, "trace_from must come with trace, not alone as 0"),
            ({"trace_to": 7}, ValueError, "trace_to must come with trace, not alone as 7"),
        ],
    )  # fmt: skip
    def test_options_of_rtl(self, changes: dict[str, Any], error: type[Exception], sentence: str) -> None:
        assert self.error(engine="rtl", **changes) == (error, sentence)

    @pytest.mark.parametrize(
        "changes", [{"memory_latency": 100}, {"memory_bandwidth": 1}, {"trace": "w.fst"}, {"trace_to": 5}]
    )
    def test_options_of_rtl_with_golden(self, changes: dict[str, Any]) -> None:
        name = next(iter(changes))
        assert self.error(**changes) == (ValueError, f"{name} needs engine rtl, not 'golden'")

    def test_k_beyond_max_k(self) -> None:
        k = TINY.max_k + 1
        changes = {"weights": np.zeros((1, k), np.int8), "activations": np.zeros((k, 1), np.uint8)}
        message = f"weights must have at most max_k = {TINY.max_k} columns in hardware, not {k}"
        assert self.error(engine="rtl", **changes) == (ValueError, message)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_results_beyond_32_bits(self, sign: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Refused before anything runs, whatever the activations are; one less is fine."""
        reach = 3 * 63 * 255
        changes = {"weights": self.W + 63, "bias": [0, sign * (2**31 - reach)]}
        monkeypatch.setattr(GEMM_MODULE, "run_layer", None)
        error, message = self.error(engine="rtl", **changes)
        assert error is ValueError
        assert message == (
            "bias must keep every result and folded bias within 32 bits in hardware: "
            "with these weights they may reach 2147483648"
        )
        monkeypatch.undo()
        changes["bias"] = [0, sign * (2**31 - reach - 1)]
        given = {**changes, "activations": self.X + 255, "zero_point": 0}
        result = gemm(**given, config=TINY, engine="rtl")
        assert result.output[1, 0] == 3 * 63 * 255 + sign * (2**31 - reach - 1)


@pytest.mark.parametrize("part", ["RTL", "RTL of the core alone"])
def test_a_mismatch_names_the_first_differing_element(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = operands(5, 20, 6)
    correct = plain(**given, zero_point=128)
    wrong = correct.copy()
    wrong[2, 4] += 1
    wrong[3, 0] -= 7

    def wrong_layer(*_: Any, **__: Any) -> LayerRun:
        system, core = (wrong, correct) if part == "RTL" else (correct, wrong)
        return LayerRun(RunResult([system], {}, 1), CoreRun(core, 1, 1, 1))

    monkeypatch.setattr(GEMM_MODULE, "run_layer", wrong_layer)
    with pytest.raises(MismatchError) as found:
        gemm(**given, config=TINY, zero_point=128, engine="rtl")
    assert str(found.value) == (
        f"{part} and golden model differ in 2 of 30 elements, first in Y[2, 4]: "
        f"RTL {correct[2, 4] + 1}, golden {correct[2, 4]}"
    )
