"""Quantization of float tensors to the operands of arithmetic.md: symmetric weights, asymmetric activations.

Sources: Panacea (HPCA 2025) for zero-point manipulation (ZPM) and distribution-based bit-slicing (DBS).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sliceforge.sim.minilm import LinearLayer
from sliceforge.sim.slices import zero_point_manipulation

__all__ = [
    "QuantizedActivations",
    "QuantizedLayer",
    "QuantizedWeights",
    "asymmetric_range",
    "quantize_activations",
    "quantize_layer",
    "quantize_weights",
]


@dataclass(frozen=True)
class QuantizedWeights:
    """``weights ~ values * scale[:, None]``: values int16 (M, K), scale (M,), zero point 0."""

    values: npt.NDArray[np.int16]
    scale: npt.NDArray[np.float64]


@dataclass(frozen=True)
class QuantizedActivations:
    """``activations ~ (values - zero_point) * scale``: values uint8 (K, N), one scale a tensor."""

    values: npt.NDArray[np.uint8]
    scale: float
    zero_point: int


def quantize_weights(weights: npt.ArrayLike, weight_bits: int = 7) -> QuantizedWeights:
    """Symmetric, a scale a row: ``scale = max|row| / (2^(b-1) - 1)``, rounded to nearest."""
    w = np.asarray(weights, dtype=np.float64)
    top = 2 ** (weight_bits - 1) - 1
    scale = np.maximum(np.abs(w).max(axis=1), np.finfo(np.float64).tiny) / top
    values = np.clip(np.rint(w / scale[:, None]), -top - 1, top)
    return QuantizedWeights(values.astype(np.int16), scale)


def asymmetric_range(values: npt.ArrayLike) -> tuple[float, int]:
    """``(scale, zero_point)`` of 8 bits for min..max of ``values``, made to include 0; without ZPM."""
    x = np.asarray(values, dtype=np.float64)
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    span = high - low or 1.0
    return span / 255, int(np.clip(np.rint(-low / span * 255), 0, 255))


def quantize_activations(activations: npt.ArrayLike, lo_bits: int = 4) -> QuantizedActivations:
    """Asymmetric with ZPM (arithmetic.md section 4), rounded onto the grid of step ``2^(lo_bits - 4)``.

    The range min..max (which always includes 0) gives the zero point; ZPM moves it to the middle of
    its bucket, and the scale is chosen again so that the range still fits. Rounding on the DBS grid
    loses nothing when the hardware drops the lowest ``lo_bits - 4`` bits.
    """
    x = np.asarray(activations, dtype=np.float64)
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    zero_point = zero_point_manipulation(asymmetric_range(x)[1], lo_bits)
    scale = max(-low / zero_point, high / (255 - zero_point)) or 1.0
    step = 2 ** (lo_bits - 4)
    values = np.clip(np.rint((x / scale + zero_point) / step) * step, 0, 256 - step)
    return QuantizedActivations(values.astype(np.uint8), scale, zero_point)


@dataclass(frozen=True)
class QuantizedLayer:
    """A linear layer's operands in integers: ``W @ (x_hat - zero_point) + bias`` approximates it, row by row
    in units of ``weight_scale * activation_scale``; weight_scale is (M,)."""

    weights: npt.NDArray[np.int16]
    activations: npt.NDArray[np.uint8]
    bias: npt.NDArray[np.int32]
    zero_point: int
    weight_scale: npt.NDArray[np.float64]
    activation_scale: float


def quantize_layer(layer: LinearLayer, *, weight_bits: int = 7, lo_bits: int = 4) -> QuantizedLayer:
    """Weights symmetric a row, activations asymmetric with ZPM, the bias in the accumulator's units."""
    weights = quantize_weights(layer.weight, weight_bits)
    activations = quantize_activations(layer.activations, lo_bits)
    bias = np.rint(layer.bias / (weights.scale * activations.scale))
    limit = 2**31 - 1
    return QuantizedLayer(
        weights.values,
        activations.values,
        np.clip(bias, -limit, limit).astype(np.int32),
        activations.zero_point,
        weights.scale,
        activations.scale,
    )
