"""Layers that feed each other on the RTL, fast engine: random chains, and MiniLM's feed-forward block."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.dataflow import Dataflow
from sliceforge.sim.calibrate import calibrate_exponents
from sliceforge.sim.chain import ChainLayer, feed_forward, run_chain
from sliceforge.sim.chain_image import pack_chain
from sliceforge.sim.layer_image import LayerImage
from sliceforge.sim.rtl import Memory, run_layers
from sliceforge.sim.slices import sliced_activations
from sliceforge.verif.accelerator_queues import random_queue

TINY = AcceleratorConfig.preset("tiny")
# As in test_rtl.py, so that it is built once.
WIDE = AcceleratorConfig.preset(
    "tiny", bus_bits=512, address_bits=64, weight_slices=3, pea_count=1, lanes=4, wmem_kib=8, name="wide"
)
PANACEA = AcceleratorConfig.preset("panacea")
TOKENS = 16


def check(images: list[LayerImage], expected: list[np.ndarray], memory: Memory) -> None:
    """Every element; requantized results as the next layer slices them."""
    result = run_layers(images, memory=memory)
    assert result.layers_done == len(images)
    for image, output, wanted in zip(images, result.outputs, expected, strict=True):
        if image.output is not None:
            wanted = sliced_activations(wanted, image.output.lo_bits)
        np.testing.assert_array_equal(output, wanted)


@pytest.mark.parametrize("config", [TINY, WIDE], ids=lambda config: config.name)
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 8))])
def test_random_queues(config: AcceleratorConfig, seed: int) -> None:
    """All dataflows back to back, with and without APSQ, chained or not; memories of all speeds."""
    rng = random.Random(seed)
    for _ in range(60):
        layers = random_queue(rng, config, rng.choice([1, 2, 3, 4]))
        memory = Memory(latency=rng.choice([0, 5, 100]), bandwidth=rng.choice([1, 0.5, 0.1]))
        check([layer.image for layer in layers], [layer.result for layer in layers], memory)


@pytest.fixture(scope="module")
def block() -> tuple[list[ChainLayer], list[ChainLayer], np.ndarray]:
    """MiniLM's feed-forward block with GELU: without APSQ and with it, and the first layer's activations."""
    layers, x = feed_forward(3, tokens=TOKENS, lo_bits=(4, 5))
    grouped: list[ChainLayer] = []
    inputs = x
    for layer, group in zip(layers, (2, 3), strict=True):
        formats = {"zero_point": layer.zero_point, "lo_bits": layer.lo_bits}
        chunk = PANACEA.tile_m
        exponents = calibrate_exponents(
            layer.weights, inputs, **formats, psum_group=group, psum_chunk=chunk, per="step"
        )
        layer = replace(layer, psum_group=group, psum_chunk=chunk, psum_exponents=exponents)
        grouped.append(layer)
        if layer.output is not None:
            (inputs,) = run_chain([layer], x)
    return layers, grouped, x


@pytest.mark.parametrize("flow", list(Dataflow), ids=lambda flow: flow.name.lower())
@pytest.mark.parametrize("apsq", [False, True], ids=["full", "apsq"])
def test_feed_forward(
    block: tuple[list[ChainLayer], list[ChainLayer], np.ndarray], flow: Dataflow, apsq: bool
) -> None:
    """Both layers of the block with all of their intermediate activations, bit by bit."""
    layers, x = block[apsq], block[2]
    chunk = None if apsq or flow == Dataflow.OUTPUT_STATIONARY else 4 * PANACEA.tile_m
    check(pack_chain(layers, x, config=PANACEA, dataflow=flow, chunk=chunk), run_chain(layers, x), Memory())
