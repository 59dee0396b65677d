"""The RTL engine: the generated Verilog of the core, compiled by Verilator, cycle by cycle.

Python prepares the streams of a whole layer; a small C++ harness (core_harness.cpp) plays them, so no
Python runs per cycle. Load streams never stall, results are taken at once.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.errors import ErrorCode
from sliceforge.gen.verilog import generate_verilog, generator_identity
from sliceforge.hw.payloads import COUNTER_BITS, layer_layout
from sliceforge.sim.images import OperandImages, activation_images, weight_images
from sliceforge.sim.schedule import Schedule
from sliceforge.sim.toolchain import build_identity, cached_build, verilator_env

__all__ = ["CoreRun", "build_core", "run_core"]

Words = npt.NDArray[np.uint32]
Progress = Callable[[float], None]

STALL_LIMIT = 200_000
"""Cycles without a result or a beat after which a simulation is given up: it would be an RTL bug."""

_CHUNK = 20_000  # cycles between two looks at the progress

_FLAGS = [
    "-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert", "--no-timing",
    "--output-split", "5000", "--output-split-cfuncs", "500",
    "-Wno-WIDTHEXPAND", "-Wno-WIDTHTRUNC", "-Wno-CASEINCOMPLETE",
]  # fmt: skip

# From this many PEAs on they share one compiled PEA, else the code of all of them outgrows the caches.
# Measured on panacea: compiles in 40 s instead of 140 s, and simulates as fast.
_SHARED_PEAS = 8


@dataclass(frozen=True)
class CoreRun:
    """What the RTL made of a layer: ``output`` int64 (M, N) and its own counters."""

    output: npt.NDArray[np.int64]
    cycles: int
    total_cycles: int
    products: int


def run_core(
    weights: npt.NDArray[Any],
    activations: npt.NDArray[Any],
    folded_bias: npt.NDArray[np.int64],
    *,
    zero_point: int,
    weight_bits: int,
    lo_bits: int,
    config: AcceleratorConfig,
    progress: Progress | None = None,
) -> CoreRun:
    """Runs one layer, already checked, on the RTL. ``progress`` is called with the share that is done.

    Raises RuntimeError if the core reports an error or stops answering.
    """
    (m, k), n = weights.shape, activations.shape[1]
    schedule = Schedule(config, m, k, n)
    weight_tiles = weight_images(weights, weight_bits=weight_bits, config=config)
    activation_tiles = activation_images(activations, zero_point=zero_point, lo_bits=lo_bits, config=config)
    layer = {
        "m": m,
        "n": n,
        "k": k,
        "weight_slices": (weight_bits - 1) // 3,
        "lo_bits": lo_bits,
        "frequent": zero_point >> lo_bits,
        "weights_resident": schedule.weights_resident,
        "activations_resident": schedule.activations_resident,
    }
    sums = config.vector * config.result_lanes
    beats = sum(
        (rows.stop - rows.start) * -(-(columns.stop - columns.start) // sums)
        for rows, columns in schedule.output_tiles()
    )
    results = np.zeros((beats, _words(32 * sums + sums.bit_length() + 2)), np.uint32)
    status = np.zeros((1, _words(5 + 3 * COUNTER_BITS)), np.uint32)
    with _Simulation(build_core(config)) as simulation:
        simulation.inputs(
            layers=_layer_payload(layer, config),
            weights=_beats(weight_tiles, schedule.weight_tiles()),
            activations=_beats(activation_tiles, schedule.activation_tiles()),
            biases=folded_bias.astype(np.int32).view(np.uint32).reshape(-1, 1),
        )
        simulation.outputs(results=results, status=status)
        given = simulation.run(beats, progress)
    counters = _integer(status[0])
    error = ErrorCode(counters & 31)
    if error is not ErrorCode.NONE or given != beats:
        raise RuntimeError(f"the core stopped with {error.name} after {given} of {beats} result beats")

    output = np.empty((m, n), np.int64)
    first = 0
    for rows, columns in schedule.output_tiles():
        shape = rows.stop - rows.start, columns.stop - columns.start
        count = shape[0] * -(-shape[1] // sums)
        values = results[first : first + count, :sums].astype(np.int64)
        values -= (values >> 31) << 32
        output[rows, columns] = values.reshape(shape[0], -1)[:, : shape[1]]
        first += count
    cycles, total, products = (
        counters >> (5 + i * COUNTER_BITS) & ((1 << COUNTER_BITS) - 1) for i in range(3)
    )
    return CoreRun(output, cycles, total, products)


@lru_cache(maxsize=16)
def build_core(config: AcceleratorConfig) -> Path:
    """The core of ``config`` as a shared library, built once and kept in the cache."""
    harness = files("sliceforge.sim").joinpath("core_harness.cpp").read_text(encoding="utf-8")

    def build(folder: Path) -> None:
        (folder / "core.v").write_text(generate_verilog(config), encoding="utf-8")
        (folder / "core_harness.cpp").write_text(harness, encoding="utf-8")
        shared = []
        if config.pea_count >= _SHARED_PEAS:
            block = f'`verilator_config\nhier_block -module "{config.module}_pea"\n'
            (folder / "hierarchy.vlt").write_text(block, encoding="utf-8")
            shared = ["--hierarchical", "-Wno-UNOPTFLAT", "hierarchy.vlt"]
        command = [
            "verilator", "--cc", "--exe", "--build", "-j", "2", "--prefix", "Vcore",
            "--top-module", config.module, *_FLAGS, "-CFLAGS", "-fPIC", "-LDFLAGS", "-shared",
            "-o", "libcore.so", "--Mdir", "obj", *shared, "core.v", "../core_harness.cpp",
        ]  # fmt: skip
        env = verilator_env()
        env["MAKEFLAGS"] = f"{env.get('MAKEFLAGS', '')} OPT_FAST=-O2".strip()
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"Verilator failed on the core of {config.name}:\n{done.stderr[-4000:]}")

    # Not the Verilog itself: making it takes longer than looking the library up.
    key = [repr(config), *generator_identity(), harness, *_FLAGS, str(_SHARED_PEAS), *build_identity()]
    return cached_build(key, build, f"core-{config.name}") / "obj" / "libcore.so"


def _words(bits: int) -> int:
    """32-bit words of a Verilated port of ``bits`` bits."""
    return 2 if 32 < bits <= 64 else -(-bits // 32)


def _integer(words: Words) -> int:
    return int.from_bytes(words.tobytes(), "little")


def _payload(value: int, bits: int) -> Words:
    words = _words(bits)
    return np.frombuffer(value.to_bytes(4 * words, "little"), np.uint32).reshape(1, words)


def _layer_payload(layer: dict[str, int], config: AcceleratorConfig) -> Words:
    layout = layer_layout(config.weight_slices)
    return _payload(int(layout.const(layer).as_value().value), layout.size)


def _beats(operand: OperandImages, order: Any) -> Words:
    """Payloads of a load stream: the granules of each beat, and ``last`` above them."""
    images = [operand.images[tile][kt] for tile, kt in order]
    width = images[0].shape[1]
    payloads = np.zeros((sum(len(image) for image in images), 4 * _words(8 * width + 1)), np.uint8)
    payloads[:, :width] = np.concatenate(images)
    payloads[np.cumsum([len(image) for image in images]) - 1, width] = 1
    return payloads.view(np.uint32)


@lru_cache(maxsize=4)
def _library(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
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

    INPUTS = ("layers", "weights", "activations", "biases")
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
            moved = given + sum(self._library.core_taken(self._core, i) for i in range(4))
            if moved != before:
                quiet, before = 0, moved
            elif quiet > STALL_LIMIT:
                raise RuntimeError(f"the core stopped answering after {given} of {beats} result beats")
            if progress is not None:
                progress(given / beats)
        return int(self._library.core_given(self._core, 0))
