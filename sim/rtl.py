"""The RTL engine: the generated Verilog of the whole accelerator with a memory, compiled by Verilator.

No Python runs per cycle: accelerator_harness.cpp clocks the machine and is its memory (axi_memory.h), and the
`Simulator` is a `driver.Port` to it.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Event, Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.files import check_outputs, naming
from sliceforge.gen.registers import register_map
from sliceforge.gen.verilog import generate_verilog
from sliceforge.sim import checks
from sliceforge.sim.core_engine import CoreRun, build_core, run_core
from sliceforge.sim.driver import BusError, Driver, RunResult, place
from sliceforge.sim.layer_image import LayerImage, least_bytes
from sliceforge.sim.verilated import Progress, build_library, load_library

__all__ = [
    "LayerRun", "Memory", "Simulator", "Trace", "build_accelerator", "build_core", "build_engine",
    "run_core", "run_layer", "run_layers",
]  # fmt: skip

_HARNESS = ("accelerator_harness.cpp", "axi_memory.h")
_CHUNK = 5_000  # cycles between two looks at the progress
_RUNNING, _INTERRUPT, _QUIET, _BROKEN = range(4)  # what accelerator_run returns
_FULL_BANDWIDTH = 1 << 32


@dataclass(frozen=True)
class Memory:
    """How fast the memory is. Both are checked: TypeError or ValueError.

    latency : cycles between the one that accepts a read's address, or the last beat of a write, and the one
        with the first beat, or the answer.
    bandwidth : beats a cycle, more than 0 and up to 1, in each direction.
    """

    latency: int = 100
    bandwidth: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "latency", checks.integer("memory_latency", self.latency, 0, 1_000_000))
        share = self.bandwidth
        if isinstance(share, (bool, np.bool_)) or not isinstance(
            share, (int, float, np.integer, np.floating)
        ):
            raise TypeError(f"memory_bandwidth must be a number above 0 and up to 1, not {share!r}")
        if not 0 < share <= 1:  # not so for NaN either
            raise ValueError(f"memory_bandwidth must be above 0 and up to 1, not {share}")
        object.__setattr__(self, "bandwidth", float(share))


@dataclass(frozen=True)
class Trace:
    """A waveform to be written: FST file ``path``, cycles ``first`` to ``last`` (None: the end), counted from
    the start of the run as the counter CYCLES does. Both are checked: TypeError or ValueError.
    """

    path: Path
    first: int = 0
    last: int | None = None

    def __post_init__(self) -> None:
        check_outputs({"trace": self.path}, {})
        if self.path.exists() and not self.path.is_file():
            raise ValueError(f"trace must be a regular file, not {str(self.path)!r}")
        object.__setattr__(self, "first", checks.integer("trace_from", self.first, 0))
        if self.last is not None:
            object.__setattr__(self, "last", checks.integer("trace_to", self.last, self.first))


class Simulator:
    """An accelerator in simulation, after reset, and its memory: ``memory_bytes`` bytes from ``base`` on.

    A `driver.Port`. Use it as a context manager. It raises RuntimeError when the RTL breaks a rule of AXI4.
    Accesses past the memory are answered DECERR and counted in `refused`.
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        *,
        memory_bytes: int,
        base: int = 0,
        memory: Memory | None = None,
        trace: Trace | None = None,
    ) -> None:
        memory = memory or Memory()
        self._library = _library(build_accelerator(config, traced=trace is not None))
        bandwidth = max(1, round(memory.bandwidth * _FULL_BANDWIDTH))
        self._base, self._bytes = base, memory_bytes
        self._trace, self._trace_file = trace, _open_trace(trace)
        self._origin: int | None = None  # cycle of the start
        self._machine = self._library.accelerator_new(base, memory_bytes, memory.latency, bandwidth)
        control = next(register for register in register_map(config) if register.name == "CONTROL")
        self._start = control.offset, control.field("START").mask
        # The array works off what it has without the bus: a tile of outputs has max_k positions, each of up
        # to six outer products.
        self._quiet = 20_000 + 8 * config.max_k

    def __enter__(self) -> Simulator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the simulation and its waveform, which is kept if one of its cycles was run."""
        if self._machine is None:
            return
        cycles = self.cycles
        self._library.accelerator_free(self._machine)
        self._machine = None
        if self._trace is not None and self._trace_file is not None:
            if cycles >= self._trace.first:
                _move_output("trace", self._trace_file, self._trace.path)
            else:
                self._trace_file.unlink()

    # The port.

    def read_register(self, offset: int) -> int:
        value = ctypes.c_uint32()
        response = self._library.accelerator_read(self._machine, offset, ctypes.byref(value))
        self._check("read", offset, response)
        return value.value

    def write_register(self, offset: int, value: int) -> None:
        if self._origin is None and offset == self._start[0] and value & self._start[1]:
            self._origin = self._cycle
            if self._trace is not None and self._trace_file is not None:
                last = (1 << 64) - 1 if self._trace.last is None else self._trace.last
                path = os.fsencode(self._trace_file)
                self._library.accelerator_trace(self._machine, path, self._trace.first, last)
        self._check("write", offset, self._library.accelerator_write(self._machine, offset, value))

    def read_memory(self, address: int, size: int) -> bytes:
        return self._span(address, size).tobytes()

    def write_memory(self, address: int, data: bytes) -> None:
        self._span(address, len(data))[:] = np.frombuffer(data, np.uint8)

    def wait_interrupt(self, progress: Callable[[], None] | None) -> None:
        """TimeoutError when nothing has moved on the bus for long, though the memory owes nothing."""
        while True:
            state = self._library.accelerator_run(self._machine, _CHUNK, self._quiet)
            if state == _BROKEN:
                raise RuntimeError(f"the RTL broke a rule of its bus: {self._broken_rule}")
            if state == _QUIET:
                raise TimeoutError(f"nothing has moved on the bus for {self._quiet:,} cycles")
            if progress is not None:
                progress()
            if state == _INTERRUPT:
                return

    # What a board would not tell.

    @property
    def memory(self) -> npt.NDArray[np.uint8]:
        """All of the memory, not a copy: not to be used after `close`."""
        pointer = self._library.accelerator_memory(self._machine)
        return np.ctypeslib.as_array(pointer, shape=(self._bytes,))

    @property
    def cycles(self) -> int:
        """Cycles since the first start of a run; negative before it."""
        return -1 if self._origin is None else self._cycle - self._origin

    @property
    def _cycle(self) -> int:
        return int(self._library.accelerator_cycle(self._machine))

    @property
    def bytes_read(self) -> int:
        return int(self._library.accelerator_bytes_read(self._machine))

    @property
    def bytes_written(self) -> int:
        return int(self._library.accelerator_bytes_written(self._machine))

    @property
    def refused(self) -> int:
        """Bursts that were answered DECERR."""
        return int(self._library.accelerator_refused(self._machine))

    @property
    def _broken_rule(self) -> str:
        return str(self._library.accelerator_broken_rule(self._machine).decode())

    def _check(self, access: str, offset: int, response: int) -> None:
        if self._broken_rule:
            raise RuntimeError(f"the RTL broke a rule of its bus: {self._broken_rule}")
        if response < 0:
            raise RuntimeError(f"the RTL did not answer the {access} of register {offset:#x}")
        if response:
            raise BusError(f"the {access} of register {offset:#x} was answered with error {response}")

    def _span(self, address: int, size: int) -> npt.NDArray[np.uint8]:
        first = address - self._base
        if not 0 <= first <= first + size <= self._bytes:
            raise ValueError(f"address and size must stay within the memory, not be {address:#x} and {size}")
        return self.memory[first : first + size]


def run_layers(
    images: Sequence[LayerImage],
    *,
    memory: Memory | None = None,
    trace: Trace | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Runs a chain of layers, all packed for one machine, through the driver.

    progress: called with the share that is done, from time to time.
    Raises RuntimeError if a layer fails, the machine stops answering, or breaks a rule of its bus.
    """
    config = images[0].config
    base = 1 << (config.address_bits - 1)  # not 0: a lost address bit must not go unnoticed
    size = place(images, base=base, memory_bytes=base).end - base
    least = [sum(counts) for counts in zip(*map(least_bytes, images), strict=True)]
    with Simulator(config, memory_bytes=size, base=base, memory=memory, trace=trace) as simulator:

        def report() -> None:
            # Results first come when a good part is done, so what was read counts a little.
            assert progress is not None
            read = min(1.0, simulator.bytes_read / least[0])
            written = simulator.bytes_written / max(1, least[1])
            progress(min(0.04 * read + 0.95 * written, 0.99))

        driver = Driver(simulator, config)
        driver.write("STALL_LIMIT", VALUE=0)  # a memory may be as slow as it was asked to be
        try:
            result = driver.run(images, base=base, memory_bytes=size, progress=report if progress else None)
        except TimeoutError as error:
            raise RuntimeError(str(error)) from error
        if simulator.refused:
            raise RuntimeError(f"the RTL reached past the memory in {simulator.refused} bursts")
        if trace is not None and trace.first > simulator.cycles:
            raise ValueError(f"trace_from must be in the run, 0..{simulator.cycles}, not {trace.first}")
    if progress is not None:
        progress(1.0)
    return result


@dataclass(frozen=True, eq=False)
class LayerRun:
    """One layer on the whole ``system`` and on the ``core`` alone, on streams that never stall; None for a
    layer whose partial sums go to memory."""

    system: RunResult
    core: CoreRun | None


class _Stopped(Exception):
    """The other simulation failed."""


def run_layer(
    image: LayerImage,
    *,
    memory: Memory | None = None,
    trace: Trace | None = None,
    progress: Progress | None = None,
) -> LayerRun:
    """Runs both simulations of a layer side by side. Arguments and errors as of `run_layers`."""
    if not image.schedule.psums_resident:
        return LayerRun(run_layers([image], memory=memory, trace=trace, progress=progress), None)
    lock, stop = Lock(), Event()
    shares = {"core": 0.0, "system": 0.0}

    def part(name: str) -> Progress:
        def report(share: float) -> None:
            if stop.is_set():
                raise _Stopped
            with lock:
                shares[name] = share
                if progress is not None:
                    progress(min(shares.values()))

        return report

    with ThreadPoolExecutor(1) as pool:
        core = pool.submit(run_core, image, progress=part("core"))
        core.add_done_callback(lambda done: stop.set() if done.exception() else None)
        try:
            system = run_layers([image], memory=memory, trace=trace, progress=part("system"))
        except _Stopped:
            core.result()  # raises what stopped it
            raise
        except BaseException:
            stop.set()
            raise
        return LayerRun(system, core.result())


@lru_cache(maxsize=16)
def build_accelerator(config: AcceleratorConfig, *, traced: bool) -> Path:
    """The accelerator of ``config`` as a shared library, built once and kept in the cache."""
    verilog = lambda: generate_verilog(config)  # noqa: E731
    return build_library(config, "accelerator", verilog, _HARNESS, traced=traced)


def build_engine(config: AcceleratorConfig) -> None:
    """Builds all that engine ``rtl`` needs, both parts side by side."""
    with ThreadPoolExecutor(1) as pool:
        core = pool.submit(build_core, config)
        build_accelerator(config, traced=False)
        core.result()


@lru_cache(maxsize=16)
def _library(path: Path) -> ctypes.CDLL:
    library = load_library(path)
    pointer, long, word = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "new": (pointer, [long, long, long, long]),
        "free": (None, [pointer]),
        "memory": (ctypes.POINTER(ctypes.c_uint8), [pointer]),
        "write": (ctypes.c_int, [pointer, word, word]),
        "read": (ctypes.c_int, [pointer, word, ctypes.POINTER(word)]),
        "run": (ctypes.c_int, [pointer, long, long]),
        "cycle": (long, [pointer]),
        "bytes_read": (long, [pointer]),
        "bytes_written": (long, [pointer]),
        "refused": (long, [pointer]),
        "broken_rule": (ctypes.c_char_p, [pointer]),
    }
    if hasattr(library, "accelerator_trace"):
        signatures["trace"] = (None, [pointer, ctypes.c_char_p, long, long])
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"accelerator_{name}")
        function.restype, function.argtypes = result, arguments
    return library


def _open_trace(trace: Trace | None) -> Path | None:
    """An empty file beside the waveform's place, which takes it over when complete."""
    if trace is None:
        return None
    with naming("trace", trace.path, "written"):
        with tempfile.NamedTemporaryFile(dir=trace.path.parent, prefix=".sliceforge-", delete=False) as file:
            return Path(file.name)


def _move_output(name: str, file: Path, target: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    with naming(name, target, "written"):
        os.chmod(file, 0o666 & ~umask)
        os.replace(file, target)
