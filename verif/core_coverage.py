"""Functional coverage of the core's bench: which bins there are, and when each is sampled.

Sampled only after a layer's results, or its error code, were found right, so a bin that is hit is a bin that
was checked; but for back-pressure, which is sampled at the ports while layers run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly
from cocotb_coverage.coverage import CoverCross, CoverPoint

from sliceforge.gen.dataflow import Dataflow
from sliceforge.gen.errors import ErrorCode
from sliceforge.verif.layers import Layer
from sliceforge.verif.simulation import parameters

__all__ = ["CHUNK_CLASSES", "CorePorts", "sample_errors", "sample_layer"]

STREAMS = ("layers", "weights", "activations", "biases", "exponents", "fills", "results", "status")


def _point(name: str, bins: list[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return CoverPoint(f"core.{name}", xf=lambda value: value, bins=bins)


# The four kinds of products of arithmetic.md section 5: done somewhere, skipped somewhere.
@_point("product", ["LxL done"] + [f"{p} {d}" for p in ("HxL", "LxH", "HxH") for d in ("done", "skipped")])
def _product(value: str) -> None: ...


@_point("vectors", [f"{o} {s}" for o in ("weights", "activations") for s in ("all kept", "all skipped")])
def _vectors(value: str) -> None: ...


@_point("filler", ["weights", "activations"])
def _filler(value: str) -> None: ...


@CoverPoint("core.lo_bits", xf=lambda lo_bits, frequent: lo_bits, bins=[4, 5, 6])
@CoverPoint(
    "core.frequent", xf=lambda lo_bits, frequent: frequent, bins=["r = 0", "r between", "r = maximum"]
)
@CoverCross("core.lo_bits x frequent", items=["core.lo_bits", "core.frequent"])
def _slicing(lo_bits: int, frequent: str) -> None: ...


# Only a simulation knows its machine; pytest imports this, too.
_SLICES = parameters().get("weight_slices", 2) if "SLICEFORGE_PARAMETERS" in os.environ else 2


@_point("weight_bits", [3 * n + 4 for n in range(_SLICES)])
def _weight_bits(value: int) -> None: ...


@_point("size", [f"{d} {s}" for d in "MNK" for s in ("1", "tile - 1", "tile", "tile + 1", "tiles")])
def _size(value: str) -> None: ...


# Both sides of double buffering: every ring of slots is filled past its end while it is read.
@_point(
    "buffers", ["WMEM wraps", "AMEM wraps", "OMEM wraps", "ring of partial sums wraps", "both bias halves"]
)
def _buffers(value: str) -> None: ...


FLOWS = [flow.name.lower().replace("_", " ") for flow in Dataflow]
_KEPT = [f"{o} {s}" for o in ("weights", "activations") for s in ("resident", "loaded again")]


@_point("dataflow x residency", [f"{flow}: {kept}" for flow in FLOWS for kept in _KEPT])
def _residency(value: str) -> None: ...


@_point(
    "dataflow x blocks",
    [f"{flow}: {how}" for flow in FLOWS[1:] for how in ("shared", "loaded again")]
    + [f"{flow}: activations in parts" for flow in FLOWS],
)
def _blocks(value: str) -> None: ...


CHUNK_CLASSES = ("1 chunk", "fewer than a group", "a group", "up to two groups", "many")


def chunk_class(group: int, steps: int) -> str:
    """How many K-chunks there are; without APSQ as in groups of one, of which one chunk is not a class."""
    size = max(1, group)
    classes = (steps == 1, steps < size, steps == size, steps <= 2 * size, True)
    return CHUNK_CLASSES[classes.index(True)]


@_point(
    "dataflow x group x chunks",
    [
        f"{flow}: group {group}, {chunks}"
        for flow in FLOWS
        for group in range(5)
        for chunks in sorted({chunk_class(group, steps) for steps in range(1, 10)})
    ],
)
def _chunks(value: str) -> None: ...


@_point(
    "dataflow x partial sums",
    [
        f"{flow}: {bits} bits {where}"
        for flow in FLOWS
        for bits in (32, 8)
        for where in ("on chip", "in memory")
    ],
)
def _psums(value: str) -> None: ...


@_point("back-pressure", list(STREAMS))
def _back_pressure(value: str) -> None: ...


# Codes from 24 on, and those of the descriptor's format, are the system's.
_SYSTEM = {ErrorCode.NONE, ErrorCode.ILLEGAL_FORMAT, ErrorCode.ILLEGAL_STRIDE, ErrorCode.ILLEGAL_LENGTH}


@_point("error", [code.name for code in ErrorCode if code.value < 24 and code not in _SYSTEM])
def _error(value: str) -> None: ...


def sample_errors(code: ErrorCode) -> None:
    """A layer ended with ``code``, as it had to."""
    _error(code.name)


def sample_layer(layer: Layer) -> None:
    """A layer whose results were all right."""
    weight, activation = layer.kept()
    if layer.weight_bits > 4:
        _product("LxL done")
        both = weight[:, None, :] & activation[None, :, :]
        for name, kept in (("HxL", weight), ("LxH", activation), ("HxH", both)):
            for done in np.unique(kept):
                _product(f"{name} {'done' if done else 'skipped'}")
    for name, kept in (("weights", weight), ("activations", activation)):
        if name == "weights" and layer.weight_bits == 4:
            continue  # one dense slice
        if kept.size > 1 and (kept.all() or not kept.any()):
            _vectors(f"{name} all {'kept' if kept.all() else 'skipped'}")
        if (layer.entries(kept) != kept).any():
            _filler(name)
    top = (256 >> layer.lo_bits) - 1
    _slicing(layer.lo_bits, {0: "r = 0", top: "r = maximum"}.get(layer.frequent, "r between"))
    _weight_bits(layer.weight_bits)
    _sample_geometry(layer)


def _sample_geometry(layer: Layer) -> None:
    c, s = layer.config, layer.schedule
    m, k, n = s.m, s.k, s.n
    for name, size, tile in (("M", m, c.tile_m), ("N", n, c.tile_n), ("K", k, c.tile_k)):
        sizes = {1: "1", tile - 1: "tile - 1", tile: "tile", tile + 1: "tile + 1"}
        _size(f"{name} {sizes.get(size, 'tiles')}")
    flow = s.dataflow.name.lower().replace("_", " ")
    for name, tiles, resident in (
        ("weights", s.columns, s.weights_resident),
        ("activations", s.rows, s.activations_resident),
    ):
        if tiles > 1:
            _residency(f"{flow}: {name} {'resident' if resident else 'loaded again'}")
    blocks = len(s.row_blocks) * len(s.column_blocks)
    if blocks > 1:
        _blocks(f"{flow}: {'shared' if s.blocks_share else 'loaded again'}")
    if s.span is not None and len(layer.schedule.activation_regions()) > 1:
        _blocks(f"{flow}: activations in parts")
    _chunks(f"{flow}: group {s.psum_group}, {chunk_class(s.psum_group, s.steps)}")
    if s.steps > 1:
        where = "on chip" if s.psums_resident else "in memory"
        _psums(f"{flow}: {'8 bits' if s.psum_group else '32 bits'} {where}")
    (weights, passes), (activations, again) = s.weight_loads, s.activation_loads
    tiles = s.rows * s.columns * s.steps
    for bin_, used, slots in (
        ("WMEM wraps", s.rows * s.images * weights * passes, c.weight_slots),
        ("AMEM wraps", s.columns * s.images * activations * again, c.activation_slots),
        ("OMEM wraps", tiles, c.transit_slots),
        ("ring of partial sums wraps", 0 if s.psums_resident else tiles - s.rows * s.columns, c.psum_slots),
    ):
        if used > slots:
            _buffers(bin_)
    if s.rows > 1:
        _buffers("both bias halves")


class CorePorts:
    """Watches the ports: a stream on which valid meets no ready was pushed back."""

    def __init__(self, dut: Any) -> None:
        self._dut = dut
        self._task = cocotb.start_soon(self._run())

    def stop(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        left = set(STREAMS)
        while left:
            await FallingEdge(self._dut.clk)
            await ReadOnly()
            for name in list(left):
                valid = getattr(self._dut, f"{name}__valid").value
                if valid == 1 and getattr(self._dut, f"{name}__ready").value == 0:
                    _back_pressure(name)
                    left.discard(name)
