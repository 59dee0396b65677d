"""The core alone in simulation: a layer on streams that never stall, for the report's ``cycles``.

Python prepares the streams of a whole layer; a small C++ harness (core_harness.cpp) plays them, so no
Python runs per cycle. Results are taken at once (arithmetic.md section 7: array cycles).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.errors import ErrorCode
from sliceforge.gen.verilog import block_verilog, core
from sliceforge.hw.payloads import layer_layout, nest_layout, result_layout, status_layout
from sliceforge.sim.layer_image import LayerImage, descriptor_fields
from sliceforge.sim.verilated import Progress, build_library, load_library

__all__ = ["CoreRun", "build_core", "run_core"]

Words = npt.NDArray[np.uint32]

STALL_LIMIT = 200_000
"""Cycles without a result or a beat after which a simulation is given up: it would be an RTL bug."""

_CHUNK = 5_000  # cycles between two looks at the progress


@dataclass(frozen=True, eq=False)
class CoreRun:
    """What the core made of a layer: ``output`` int64 (M, N) and its own counters."""

    output: npt.NDArray[np.int64]
    cycles: int
    total_cycles: int
    products: int


def run_core(image: LayerImage, *, progress: Progress | None = None) -> CoreRun:
    """Runs one layer. ``progress`` is called with the share that is done.

    Raises RuntimeError if the core reports an error or stops answering.
    """
    config, schedule = image.config, image.schedule
    if not schedule.psums_resident:
        raise ValueError("image must keep its partial sums on chip: the core alone has no memory")
    sums = config.result_sums
    beats = sum(
        (rows.stop - rows.start) * -(-(columns.stop - columns.start) // sums)
        for rows, columns in schedule.output_tiles()
    )
    results = np.zeros((beats, _words(result_layout(sums).size)), np.uint32)
    status = np.zeros((1, _words(status_layout().size)), np.uint32)
    bias = np.concatenate([image.bias[rows] for rows in schedule.parameter_rows()])
    with _Simulation(build_core(config)) as simulation:
        simulation.inputs(
            layers=_layer(image),
            weights=_beats(
                image.weights, image.weights_length, schedule.weight_loads, config.load_beat_bytes
            ),
            activations=_beats(
                image.activations, image.activations_length, schedule.activation_loads, config.load_beat_bytes
            ),
            biases=bias.view(np.uint32).reshape(-1, 1),
            exponents=_exponents(image),
        )
        simulation.outputs(results=results, status=status)
        given = simulation.run(beats, progress)
    report = status_layout().from_bits(int.from_bytes(status.tobytes(), "little"))
    error = ErrorCode(report.error)
    if error is not ErrorCode.NONE or given != beats:
        raise RuntimeError(f"the core stopped with {error.name} after {given} of {beats} result beats")

    output = np.empty((schedule.m, schedule.n), np.int64)
    first = 0
    for rows, columns in schedule.output_tiles():
        shape = rows.stop - rows.start, columns.stop - columns.start
        count = shape[0] * -(-shape[1] // sums)
        values = results[first : first + count, :sums].view(np.int32)
        output[rows, columns] = values.reshape(shape[0], -1)[:, : shape[1]]
        first += count
    return CoreRun(output, report.cycles, report.total_cycles, report.products)


@lru_cache(maxsize=16)
def build_core(config: AcceleratorConfig) -> Path:
    """The core of ``config`` as a shared library, built once and kept in the cache."""
    return build_library(
        config, "core", lambda: block_verilog(core(config), config.module), ("core_harness.cpp",)
    )


def _words(bits: int) -> int:
    """32-bit words of a Verilated port of ``bits`` bits."""
    return 2 if 32 < bits <= 64 else -(-bits // 32)


def _layer(image: LayerImage) -> Words:
    """The payload of a layer's descriptor on stream ``layers``."""
    layout = layer_layout(image.config.weight_slices)
    fields = descriptor_fields(image)
    loops: dict[str, Any] = {
        name: fields[{"chunk": "K_CHUNK"}.get(name, name.upper())] for name, _ in nest_layout()
    }
    loops["dataflow"] = image.schedule.dataflow
    values = {name: fields[name.upper()] for name, _ in layout if name != "loops"}
    value = int(layout.const({"loops": loops, **values}).as_value().value)
    words = _words(layout.size)
    return np.frombuffer(value.to_bytes(4 * words, "little"), np.uint32).reshape(1, words)


def _exponents(image: LayerImage) -> Words:
    """Payloads of stream ``exponents``: words, and ``last`` above them."""
    words = np.zeros((len(image.exponent_words), 2), np.uint32)
    words[:, 0] = image.exponent_words
    words[-1:, 1] = 1
    return words


def _beats(regions: npt.NDArray[np.uint8], length: int, loads: tuple[int, int], beat_bytes: int) -> Words:
    """Payloads of a load stream: the beats of each region without its header, ``loads`` = (rounds over all
    regions, passes over each), and ``last`` above them at the end of each pass.
    """
    beats = regions.reshape(-1, beat_bytes)
    rounds, passes = loads
    spans, first = [], 0
    while length:
        spans += [slice(first + 1, first + length)] * passes
        first, length = first + length, int.from_bytes(beats[first, :4].tobytes(), "little")
    spans *= rounds
    payloads = np.zeros((sum(s.stop - s.start for s in spans), 4 * _words(8 * beat_bytes + 1)), np.uint8)
    end = 0
    for span in spans:
        start, end = end, end + span.stop - span.start
        payloads[start:end, :beat_bytes] = beats[span]
        payloads[end - 1, beat_bytes] = 1
    return payloads.view(np.uint32)


@lru_cache(maxsize=16)
def _library(path: Path) -> ctypes.CDLL:
    library = load_library(path)
    pointer, size = ctypes.c_void_p, ctypes.c_uint64
    library.core_new.restype = pointer
    library.core_free.argtypes = [pointer]
    library.core_input.argtypes = [pointer, ctypes.c_int, pointer, size]
    library.core_output.argtypes = [pointer, ctypes.c_int, pointer, size]
    library.core_taken.argtypes = library.core_given.argtypes = [pointer, ctypes.c_int]
    library.core_run.argtypes = [pointer, size]
    library.core_taken.restype = library.core_given.restype = library.core_run.restype = size
    return library


class _Simulation:
    """One core in simulation; its streams by name, in the harness's order."""

    INPUTS = ("layers", "weights", "activations", "biases", "exponents")
    OUTPUTS = ("results", "status")

    def __init__(self, path: Path) -> None:
        self._library = _library(path)
        self._core = self._library.core_new()
        self._arrays: list[Words] = []  # the harness only keeps pointers

    def __enter__(self) -> _Simulation:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.core_free(self._core)

    def inputs(self, **streams: Words) -> None:
        for name, array in streams.items():
            data = np.ascontiguousarray(array)
            self._arrays.append(data)
            self._library.core_input(self._core, self.INPUTS.index(name), data.ctypes.data, len(data))

    def outputs(self, **streams: Words) -> None:
        for name, array in streams.items():
            self._arrays.append(array)
            self._library.core_output(self._core, self.OUTPUTS.index(name), array.ctypes.data, len(array))

    def run(self, beats: int, progress: Progress | None) -> int:
        """Runs until the status; returns the number of result beats that came out."""
        quiet, before = 0, -1
        while not self._library.core_given(self._core, 1):
            quiet += self._library.core_run(self._core, _CHUNK)
            given = int(self._library.core_given(self._core, 0))
            moved = given + sum(self._library.core_taken(self._core, i) for i in range(len(self.INPUTS)))
            if moved != before:
                quiet, before = 0, moved
            elif quiet > STALL_LIMIT:
                raise RuntimeError(f"the core stopped answering after {given} of {beats} result beats")
            if progress is not None:
                progress(given / beats)
        return int(self._library.core_given(self._core, 0))
