"""The golden model of layers that chain, and the feed-forward block of MiniLM as such a chain.

A layer's result is requantized to 8 bits (arithmetic.md section 9), mapped by a table where there is one, and
is the next layer's input as it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sliceforge.sim import checks
from sliceforge.sim.activation_table import Function, activation_function, activation_table
from sliceforge.sim.apsq import apsq_gemm
from sliceforge.sim.golden import aqs_gemm
from sliceforge.sim.minilm import LinearLayer, linear_layer
from sliceforge.sim.quantize import asymmetric_range, quantize_layer
from sliceforge.sim.requantize import requantize, requantize_parameters

__all__ = ["ChainLayer", "Requantize", "check_link", "feed_forward", "requantized", "run_chain"]


@dataclass(frozen=True, eq=False)
class Requantize:
    """How a layer's result becomes the next layer's activations; the first five as for `requantize`.

    table: 256 values of 8 bits that the requantized value is mapped by, or None. With a table the value
    before it is a plain 8-bit value, and the table itself contains the offset for the next layer's DBS grid
    (`activation_table`); without one, requantizing adds it.
    """

    multiplier: npt.ArrayLike
    shift: npt.ArrayLike
    zero_point_out: int
    relu: bool = False
    next_lo_bits: int = 4
    table: npt.ArrayLike | None = None


@dataclass(frozen=True, eq=False)
class ChainLayer:
    """Operands and format of one GEMM, as for `aqs_gemm`, and what becomes of its result.

    weights (M, K), zero_point and lo_bits of its input, bias (M,) or None; with psum_group also
    psum_exponents and psum_chunk (32), as for `apsq_gemm`. output: None leaves the result in int64, last
    layer only.
    """

    weights: npt.NDArray[Any] = field(repr=False)
    zero_point: int
    bias: npt.NDArray[Any] | None = field(default=None, repr=False)
    lo_bits: int = 4
    weight_bits: int = 7
    psum_group: int | None = None
    psum_chunk: int | None = None
    psum_exponents: npt.ArrayLike | None = None
    output: Requantize | None = None


def run_chain(layers: Sequence[ChainLayer], activations: npt.ArrayLike) -> list[npt.NDArray[Any]]:
    """The output of each layer, (M, N): uint8, or int64 where ``output`` is None.

    activations: integers (K, N) of the first layer, 0..255. A layer's M is the next one's K. Raises TypeError
    or ValueError that names the layer, also where its result does not fit 32 bits and is to be requantized,
    and where ``next_lo_bits`` is not the next layer's ``lo_bits``.
    """
    if not layers:
        raise ValueError("layers must be one or more, not none")
    outputs: list[npt.NDArray[Any]] = []
    for i, layer in enumerate(layers):
        try:
            check_link(layer, layers[i + 1] if i + 1 < len(layers) else None)
            result = _gemm(layer, outputs[-1] if outputs else activations)
            outputs.append(result if layer.output is None else requantized(result, layer.output))
        except (TypeError, ValueError) as error:
            raise type(error)(f"layers[{i}]: {error}") from None
    return outputs


def requantized(y: npt.ArrayLike, output: Requantize) -> npt.NDArray[np.uint8]:
    """``table[requantize(y, ...)]``, or without the table; y as for `requantize`."""
    plain = output.table is not None
    values = requantize(
        y,
        output.multiplier,
        output.shift,
        output.zero_point_out,
        output.relu,
        next_lo_bits=4 if plain else output.next_lo_bits,
    )
    if output.table is None:
        return values
    table = checks.activations("table", output.table)
    if table.shape != (256,):
        raise ValueError(f"table must have 256 entries, not shape {table.shape}")
    return table[values]


def check_link(layer: ChainLayer, following: ChainLayer | None) -> None:
    """TypeError or ValueError for what cannot be said of a result that is the next layer's input, if any."""
    if layer.output is not None:
        requantized(np.zeros((len(layer.weights), 1), np.int64), layer.output)
    if layer.psum_group is None:
        for name, value in {"psum_chunk": layer.psum_chunk, "psum_exponents": layer.psum_exponents}.items():
            if value is not None:
                raise ValueError(f"{name} must come with psum_group, not alone as {value!r}")
    else:
        checks.integer("psum_group", layer.psum_group, 1)
        checks.integer("psum_chunk", 32 if layer.psum_chunk is None else layer.psum_chunk, 1)
    if following is None:
        return
    if layer.output is None:
        raise ValueError("output must be a Requantize but in the last layer, not None")
    if layer.output.next_lo_bits != following.lo_bits:
        raise ValueError(
            f"next_lo_bits must be the next layer's lo_bits = {following.lo_bits}, "
            f"not {layer.output.next_lo_bits}"
        )


def _gemm(layer: ChainLayer, activations: npt.ArrayLike) -> npt.NDArray[np.int64]:
    formats: dict[str, Any] = {
        "zero_point": layer.zero_point,
        "weight_bits": layer.weight_bits,
        "lo_bits": layer.lo_bits,
        "bias": layer.bias,
    }
    if layer.psum_group is None:
        return aqs_gemm(layer.weights, activations, **formats).output
    if layer.psum_exponents is None:
        raise ValueError(f"psum_exponents must be given with psum_group = {layer.psum_group}, not None")
    return apsq_gemm(
        layer.weights,
        activations,
        psum_group=layer.psum_group,
        psum_chunk=32 if layer.psum_chunk is None else layer.psum_chunk,
        psum_exponents=layer.psum_exponents,
        **formats,
    ).output


def feed_forward(
    layer_index: int,
    *,
    tokens: int = 128,
    lo_bits: tuple[int, int] = (4, 4),
    function: str | Function = "gelu",
) -> tuple[list[ChainLayer], npt.NDArray[np.uint8]]:
    """The feed-forward block of MiniLM's encoder layer: intermediate.dense, function, output.dense.

    Two layers and the first one's activations (384, tokens); the last output is int64 in units of weight
    scale * activation scale. Weights of 7 bits, a scale a row, so the multipliers are per row; both inputs
    asymmetric with ZPM (`quantize_layer`), calibrated on the same tokens. "relu" and "identity" need no
    table; for another function (see `activation_table`) the value before the table is of 8 bits over its
    calibrated range. The network was trained with "gelu"; another function gives a block of the same shape.
    lo_bits: of the two layers. Errors as of `linear_layer` and `activation_table`.
    """
    part = f"encoder.layer.{layer_index}"
    dense = linear_layer(f"{part}.intermediate.dense", tokens=tokens)
    f = activation_function(function)
    before = dense.weight.astype(np.float64) @ dense.activations + dense.bias[:, None].astype(np.float64)
    after = linear_layer(f"{part}.output.dense", tokens=tokens)
    after = LinearLayer(after.name, after.weight, after.bias, f(before).astype(np.float32))
    first, second = (
        quantize_layer(layer, lo_bits=l) for layer, l in zip((dense, after), lo_bits, strict=True)
    )

    table = None
    if function in ("relu", "identity"):
        scale, zero = second.activation_scale, second.zero_point
    else:
        scale, zero = asymmetric_range(before)
        table = activation_table(
            f,
            scale_in=scale,
            zero_in=zero,
            scale_out=second.activation_scale,
            zero_out=second.zero_point,
            next_lo_bits=lo_bits[1],
        )
    multiplier, shift = requantize_parameters(first.weight_scale * first.activation_scale / scale)
    output = Requantize(multiplier, shift, zero, function == "relu", lo_bits[1], table)
    layers = [
        ChainLayer(first.weights, first.zero_point, first.bias, lo_bits[0], output=output),
        ChainLayer(second.weights, second.zero_point, second.bias, lo_bits[1]),
    ]
    return layers, first.activations
