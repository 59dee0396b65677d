"""All linear layers of a real network on the RTL of preset panacea, on its buses: every element is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sliceforge.gen import AcceleratorConfig
from sliceforge.sim.gemm import folded_bias
from sliceforge.sim.layer_image import pack_layer
from sliceforge.sim.minilm import layer_names, linear_layer
from sliceforge.sim.quantize import quantize_layer
from sliceforge.sim.rtl import run_layers

CONFIG = AcceleratorConfig.preset("panacea")
LAYERS = 6


def encoder_layer(number: int) -> Any:
    """A case for `make test`, or for `make regress` alone."""
    return pytest.param(number, marks=[] if number == 3 else [pytest.mark.long])


@pytest.mark.parametrize("number", [encoder_layer(number) for number in range(LAYERS)])
def test_encoder_layer(number: int) -> None:
    """The six products of an encoder layer, 128 tokens, as one chain; each lo_bits in turn."""
    images, expected = [], []
    names = [name for name in layer_names() if name.startswith(f"encoder.layer.{number}.")]
    assert len(names) == 6
    for i, name in enumerate(names):
        lo_bits = 4 + i % 3
        layer = quantize_layer(linear_layer(name, tokens=128), lo_bits=lo_bits)
        weights = layer.weights.astype(np.int64)
        images.append(
            pack_layer(
                layer.weights,
                layer.activations,
                folded_bias(layer.weights, layer.bias.astype(np.int64), layer.zero_point, lo_bits),
                zero_point=layer.zero_point,
                weight_bits=7,
                lo_bits=lo_bits,
                config=CONFIG,
            )
        )
        drop = lo_bits - 4
        x_hat = (layer.activations.astype(np.int64) >> drop) << drop
        expected.append(weights @ (x_hat - layer.zero_point) + layer.bias[:, None])
    result = run_layers(images)
    assert result.layers_done == len(images)
    for output, wanted in zip(result.outputs, expected, strict=True):
        assert np.array_equal(output, wanted)
