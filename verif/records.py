"""Records of the lanes' streams, made from whole weights and activations, and what must become of them.

A layer is a dict: ``slices`` of its weights, ``lo_bits`` and the ``frequent`` HO slice of its activations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from amaranth.lib import data

from sliceforge.sim import bit_slices, sbr_slices
from sliceforge.verif.streams import to_int

__all__ = [
    "accumulator_bits",
    "activation_records",
    "compensated",
    "outer_products",
    "pack",
    "random_activations",
    "random_layer",
    "random_weights",
    "weight_records",
]


def pack(slices: Any) -> int:
    """Slices as the bits of a vector, the first lowest; signed ones in two's complement."""
    return to_int(data.ArrayLayout(4, len(slices)), list(slices))


def accumulator_bits(p: dict[str, Any]) -> int:
    """The narrowest that holds ``sum over max_k of W * x_hat``: at least -2^(3S) * 255 * max_k."""
    return (((255 << 3 * p["weight_slices"]) * p["max_k"]) - 1).bit_length() + 1


def random_weights(rng: np.random.Generator, slices: int, shape: tuple[int, int], sparsity: float) -> Any:
    """(v, K) weights; at a share ``sparsity`` of the k the HO slices of all are 0."""
    limit = 1 << 3 * slices
    weights = rng.integers(-limit, limit, shape)
    weights[rng.random(shape) < 0.1] = -limit
    low, high = {1: (-8, 8), 2: (-8, 8), 3: (-72, 64)}[slices]
    compressed = rng.random(shape[1]) < sparsity
    weights[:, compressed] = rng.integers(low, high, shape)[:, compressed]
    return weights


def random_activations(
    rng: np.random.Generator, layer: dict[str, int], shape: tuple[int, int], sparsity: float
) -> Any:
    """(K, v) activations; at a share ``sparsity`` of the k the HO slices of all are the frequent one."""
    activations = rng.integers(0, 256, shape)
    lo_bits = layer["lo_bits"]
    compressed = rng.random(shape[0]) < sparsity
    low = rng.integers(0, 1 << lo_bits, shape)
    activations[compressed] = (layer["frequent"] << lo_bits) + low[compressed]
    return activations


def records(
    rng: np.random.Generator, slices: list[Any], kept: Any, dense: int, high: bool
) -> list[dict[str, Any]]:
    """A record for each k; what a lane must not look at is random. slices: (K, v) each, low first."""
    garbage = 1 << 4 * slices[0].shape[1]
    result = []
    for k in range(len(kept)):
        lo = [pack(slice_[k]) for slice_ in (slices[:-1] if high else slices)]
        lo += rng.integers(garbage, size=dense - len(lo)).tolist()
        hi = pack(slices[-1][k]) if kept[k] else int(rng.integers(garbage))
        result.append({"lo": lo, "hi": hi, "kept": int(kept[k]), "last": int(k == len(kept) - 1)})
    return result


def weight_records(rng: Any, weights: Any, slices: int, dense: int, fillers: float) -> tuple[Any, Any]:
    """Records and kept map of (v, K) weights; a share of the compressed vectors is kept, as fillers are."""
    parts = [part.T for part in sbr_slices(weights, 3 * slices + 1)]
    kept = ((parts[-1] != 0).any(axis=1) | (rng.random(weights.shape[1]) < fillers)) & (slices > 1)
    return records(rng, parts, kept, dense, slices > 1), kept


def activation_records(rng: Any, activations: Any, layer: dict[str, int], fillers: float) -> tuple[Any, Any]:
    """Records and kept map of (K, v) activations."""
    high, low = bit_slices(activations, layer["lo_bits"])
    kept = (high != layer["frequent"]).any(axis=1) | (rng.random(len(activations)) < fillers)
    return records(rng, [low, high], kept, 1, True), kept


def outer_products(slices: int, weight_kept: Any, activation_kept: Any) -> int:
    """``sum_k (LO slices + kept weight vector) * (1 + kept activation vector)``."""
    return int(((max(1, slices - 1) + weight_kept) * (1 + activation_kept.astype(int))).sum())


def compensated(weights: Any, activations: Any, layer: dict[str, int]) -> Any:
    """``W @ (x_hat - 2^l r)``, (v, v)."""
    high, low = (part.astype(np.int64) for part in bit_slices(activations, layer["lo_bits"]))
    l = layer["lo_bits"]
    return weights.astype(np.int64) @ ((high << l) + (low << (l - 4)) - (layer["frequent"] << l))


def random_layer(rng: np.random.Generator, slices: int) -> dict[str, int]:
    lo_bits = int(rng.integers(4, 7))
    return {"slices": slices, "lo_bits": lo_bits, "frequent": int(rng.integers(1 << 8 - lo_bits))}
