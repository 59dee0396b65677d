"""A board in simulation: the SoC's Verilog, compiled by Verilator, at the end of a pseudo-terminal."""

from __future__ import annotations

import ctypes
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.verilog import generate_soc_verilog, soc_module
from sliceforge.sim.pseudo_terminal import PseudoTerminal
from sliceforge.sim.verilated import build_library, load_library

__all__ = ["BoardSimulation", "SimulatedSoc"]

CLOCKS_PER_BIT = 4
"""The fewest that the SoC's UART has: most of the simulated time goes by on the line."""
_CYCLES = 1_000  # of an exchange, at least
_BITS_PER_BYTE = 10


class SimulatedSoc:
    """The SoC of ``config`` after reset, with ``memory_kib`` KiB; a `pseudo_terminal.Machine`."""

    def __init__(self, config: AcceleratorConfig, *, memory_kib: int) -> None:
        self._library = _library(build_soc(config, memory_kib=memory_kib))
        self._soc = self._library.soc_new(CLOCKS_PER_BIT)

    def __enter__(self) -> SimulatedSoc:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.soc_free(self._soc)

    def exchange(self, data: bytes) -> bytes:
        """Sends ``data``, and returns what came meanwhile, in 1,000 cycles or as many as it takes.

        Raises RuntimeError if the SoC sends a byte without its stop bit.
        """
        byte_cycles = _BITS_PER_BYTE * CLOCKS_PER_BIT
        room = 1 + max(_CYCLES, (len(data) + 1) * byte_cycles) // byte_cycles
        answer = ctypes.create_string_buffer(room)
        count = self._library.soc_exchange(self._soc, data, len(data), _CYCLES, answer)
        if count < 0:
            raise RuntimeError("the RTL sent a byte without its stop bit")
        return answer.raw[:count]


class BoardSimulation:
    """The board of ``config`` with ``memory_kib`` KiB of memory, at the serial port ``device`` for as long as
    the context lasts. error_rate, seed: of the line, as of `pseudo_terminal.PseudoTerminal`.
    """

    def __init__(
        self, config: AcceleratorConfig, *, memory_kib: int = 64, error_rate: float = 0.0, seed: int = 0
    ) -> None:
        self._stack = ExitStack()
        soc = self._stack.enter_context(SimulatedSoc(config, memory_kib=memory_kib))
        self._terminal = self._stack.enter_context(PseudoTerminal(soc, error_rate=error_rate, seed=seed))
        self.device = self._terminal.device

    def __enter__(self) -> BoardSimulation:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def wait(self) -> None:
        """Goes on until the simulation fails, and raises what stopped it."""
        self._terminal.wait()


def clock_hz(config: AcceleratorConfig) -> int:
    """The clock that the SoC is told to have: a quarter to half of the cycles a second that a processor core
    simulates (measured: tiny 366,000, edge 150,000, panacea 24,500). From it follows the baud rate that the
    SoC tells the host, and from that how long the host waits for answers.
    """
    return 3_000_000 // (32 + config.operators)


def build_soc(config: AcceleratorConfig, *, memory_kib: int) -> Path:
    """The SoC as a shared library, built once and kept in the cache. Errors: as of `generate_soc_verilog`."""
    clock = clock_hz(config)
    parameters = {"clock_hz": clock, "baud": clock // CLOCKS_PER_BIT, "memory_kib": memory_kib}
    verilog = lambda: generate_soc_verilog(config, **parameters)  # noqa: E731
    return build_library(
        config, "soc", verilog, ("soc_harness.cpp",), top=soc_module(config), parameters=parameters
    )


@lru_cache(maxsize=16)
def _library(path: Path) -> ctypes.CDLL:
    library = load_library(path)
    pointer, count = ctypes.c_void_p, ctypes.c_int
    library.soc_new.argtypes, library.soc_new.restype = [count], pointer
    library.soc_free.argtypes, library.soc_free.restype = [pointer], None
    library.soc_exchange.argtypes = [pointer, ctypes.c_char_p, count, ctypes.c_uint64, ctypes.c_char_p]
    library.soc_exchange.restype = count
    return library
