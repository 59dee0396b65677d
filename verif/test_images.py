"""Tile images: round trip through `unpack_image`, and bit for bit against the plain packer of the benches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sliceforge.gen.config import AcceleratorConfig, TileLayout
from sliceforge.sim import bit_slices, rle_decode, rle_encode, sbr_slices
from sliceforge.sim.images import OperandImages, activation_images, unpack_image, weight_images
from sliceforge.sim.rle import RleEntries
from sliceforge.verif.tiles import Tile, image, join

Array = np.ndarray[Any, Any]


@st.composite
def configs(draw: st.DrawFn) -> AcceleratorConfig:
    """Any layout; 1 to 16 ways, so often more than the 1 to 6 banks."""
    return AcceleratorConfig(
        name="images",
        pea_count=draw(st.integers(1, 6)),
        lanes=draw(st.integers(1, 6)),
        vector=draw(st.sampled_from([2, 4, 8])),
        weight_slices=draw(st.integers(1, 3)),
        run_bits=draw(st.integers(1, 6)),
        tile_k=draw(st.sampled_from([4, 8, 16, 64])),
        bus_bits=draw(st.sampled_from([32, 64, 128, 256, 512])),
        max_k=256,
    )


def sparse(rng: np.random.Generator, shape: tuple[int, int], low: int, high: int, common: int) -> Array:
    """Random integers of low..high; in a random share of places, along K too, close to ``common``."""
    values = rng.integers(low, high, shape, endpoint=True)
    near = np.clip(common + rng.integers(-4, 5, shape), low, high)
    where = rng.random(shape) < rng.choice([0.0, 0.9, 1.0])
    where |= (rng.random((1, shape[1])) if rng.integers(2) else rng.random((shape[0], 1))) < rng.random()
    return np.where(where, near, values)


def groups(slices: Array, vector: int, pad: int, tile: int) -> Array:
    """(rows, K) slices as nibbles (tiles, banks, K, vector), padded to whole tiles."""
    rows, k = slices.shape
    padded = np.full((-(-rows // tile) * tile, k), pad)
    padded[:rows] = slices
    return padded.reshape(-1, tile // vector, vector, k).transpose(0, 1, 3, 2) & 15


def check(
    operand: OperandImages, lo: list[Array], hi: Array, frequent: int, ways: int, layout: TileLayout
) -> None:
    """lo, hi: slices (tiles, banks, K, vector)."""
    k = hi.shape[2]
    assert len(operand.images) == len(hi)
    for t, row in enumerate(operand.images):
        assert len(row) == -(-k // layout.tile_k)
        for kt, packed in enumerate(row):
            span = slice(kt * layout.tile_k, min(k, (kt + 1) * layout.tile_k))
            lo_here = np.stack([s[t, :, span] for s in lo], axis=2)  # (banks, length, dense, vector)
            check_image(packed, lo_here, hi[t, :, span], frequent, ways, layout)
    assert operand.nbytes == sum(packed.size for row in operand.images for packed in row)


def check_image(packed: Array, lo: Array, hi: Array, frequent: int, ways: int, layout: TileLayout) -> None:
    banks, length, dense, vector = lo.shape
    found = unpack_image(packed, banks=banks, ways=ways, length=length, dense=dense, layout=layout)
    for b, (lo_found, skips, data) in enumerate(found):
        np.testing.assert_array_equal(lo_found, lo[b])
        assert (
            len(skips) == len(data) == len(rle_encode(hi[b], frequent, layout.run_bits))
        )  # the header's count
        entries = RleEntries(skips, data, (data == frequent).all(axis=1))
        np.testing.assert_array_equal(rle_decode(entries, length, frequent, layout.run_bits), hi[b])

    def bits(slices: Array) -> int:
        return join(map(int, slices), 4)

    tiles = [
        Tile(
            layout,
            [[bits(part) for part in position] for position in lo[b]],
            [bits(part) for part in hi[b]],
            bits(np.full(vector, frequent)),
        )
        for b in range(banks)
    ]
    plain = [
        b"".join(granule.to_bytes(2 * vector, "little") for granule in beat["granules"])
        for beat in image(tiles, ways)
    ]
    assert [bytes(beat) for beat in packed] == plain


@settings(deadline=None)
@given(
    config=configs(),
    n=st.integers(0, 2),
    m=st.integers(1, 60),
    k=st.integers(1, 150),
    seed=st.integers(0, 999),
)
def test_weights(config: AcceleratorConfig, n: int, m: int, k: int, seed: int) -> None:
    n = min(n, config.weight_slices - 1)
    limit = 1 << (3 * n + 3)
    weights = sparse(np.random.default_rng(seed), (m, k), -limit, limit - 1, 0)
    operand = weight_images(weights, weight_bits=3 * n + 4, config=config)
    slices = [groups(s, config.vector, 0, config.tile_m) for s in sbr_slices(weights, 3 * n + 4)]
    lo, hi = (slices[:-1], slices[-1]) if n else (slices, np.zeros_like(slices[0]))
    check(operand, lo, hi, 0, config.load_ways, config.weight_layout)


@settings(deadline=None)
@given(
    config=configs(), n=st.integers(1, 60), k=st.integers(1, 150), lo_bits=st.integers(4, 6),
    zero_point=st.integers(0, 255), seed=st.integers(0, 999),
)  # fmt: skip
def test_activations(
    config: AcceleratorConfig, n: int, k: int, lo_bits: int, zero_point: int, seed: int
) -> None:
    activations = sparse(np.random.default_rng(seed), (k, n), 0, 255, zero_point)
    operand = activation_images(activations, zero_point=zero_point, lo_bits=lo_bits, config=config)
    frequent = zero_point >> lo_bits
    pads = int(frequent), zero_point >> (lo_bits - 4) & 15
    hi, lo = (
        groups(s.T, config.vector, pad, config.tile_n)
        for s, pad in zip(bit_slices(activations, lo_bits), pads, strict=True)
    )
    check(operand, [lo], hi, frequent, config.load_ways, config.activation_layout)


@pytest.mark.parametrize("change", [-1, 1])
def test_an_image_of_the_wrong_length_is_refused(change: int) -> None:
    config = AcceleratorConfig.preset("tiny")
    weights = np.full((8, 16), 63)
    packed = weight_images(weights, weight_bits=7, config=config).images[0][0]
    beats = len(packed)
    packed = np.concatenate([packed, packed[:1]])[: beats + change]
    with pytest.raises(
        ValueError, match=f"image must have {beats} beats by its header, not {beats + change}"
    ):
        unpack_image(packed, banks=2, ways=1, length=16, dense=1, layout=config.weight_layout)
