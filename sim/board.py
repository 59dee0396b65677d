"""A board in simulation: the SoC's Verilog, compiled by Verilator, at the end of a pseudo-terminal."""

from __future__ import annotations

import ctypes
from contextlib import ExitStack
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.sdram import CHIPS, Sdram, sdram_identity
from sliceforge.gen.verilog import generate_soc_verilog, soc_module
from sliceforge.sim.pseudo_terminal import PseudoTerminal
from sliceforge.sim.sdram_chip import FAULTS, chip_parameters, chip_verilog
from sliceforge.sim.verilated import build_library, load_library

__all__ = ["BoardSimulation", "SimulatedSoc"]

CLOCKS_PER_BIT = 4
"""The fewest that the SoC's UART has: most of the simulated time goes by on the line."""
SDRAM = Sdram(CHIPS["ulx3s"], 50_000_000)
"""Its times are those of the board's clock, whatever clock the SoC is told to have (`clock_hz`)."""
_CYCLES = 1_000  # of an exchange, at least
_BITS_PER_BYTE = 10


class SimulatedSoc:
    """The SoC of ``config`` after reset, with ``memory_kib`` KiB on the FPGA, or if that is None with an
    SDRAM; a `pseudo_terminal.Machine`."""

    def __init__(self, config: AcceleratorConfig, *, memory_kib: int | None) -> None:
        self._library = _library(build_soc(config, memory_kib=memory_kib))
        self._soc = self._library.soc_new(CLOCKS_PER_BIT)

    def __enter__(self) -> SimulatedSoc:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.soc_free(self._soc)

    def exchange(self, data: bytes) -> bytes:
        """Sends ``data``, and returns what came meanwhile, in 1,000 cycles or as many as it takes.

        Raises RuntimeError if the SoC sends a byte without its stop bit, or breaks a rule of its SDRAM.
        """
        byte_cycles = _BITS_PER_BYTE * CLOCKS_PER_BIT
        room = 1 + max(_CYCLES, (len(data) + 1) * byte_cycles) // byte_cycles
        answer = ctypes.create_string_buffer(room)
        count = self._library.soc_exchange(self._soc, data, len(data), _CYCLES, answer)
        if count < 0:
            raise RuntimeError("the RTL sent a byte without its stop bit")
        fault = self._library.soc_fault(self._soc)
        if fault:
            raise RuntimeError(f"the SDRAM saw {FAULTS[fault]}")
        return answer.raw[:count]


class BoardSimulation:
    """The board of ``config`` with memory as `SimulatedSoc`'s, at the serial port ``device`` for as long as
    the context lasts. error_rate, seed: of the line, as of `pseudo_terminal.PseudoTerminal`.
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        *,
        memory_kib: int | None = 64,
        error_rate: float = 0.0,
        seed: int = 0,
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


def build_soc(config: AcceleratorConfig, *, memory_kib: int | None) -> Path:
    """The SoC as a shared library, built once and kept in the cache. Errors: as of `generate_soc_verilog`."""
    clock = clock_hz(config)
    baud = clock // CLOCKS_PER_BIT
    sdram = SDRAM if memory_kib is None else None

    def verilog() -> str:
        text = generate_soc_verilog(config, clock_hz=clock, baud=baud, memory_kib=memory_kib, sdram=sdram)
        return f"{_board(config, sdram)}\n{text}"

    if memory_kib is None:
        identity = repr((SDRAM, sdram_identity(), chip_verilog())).encode()
        memory = {"sdram": int(sha256(identity).hexdigest()[:12], 16)}
    else:
        memory = {"memory_kib": memory_kib}
    key = {"clock_hz": clock, "baud": baud, **memory}
    return build_library(config, "soc", verilog, ("soc_harness.cpp",), top="board", parameters=key)


def _board(config: AcceleratorConfig, sdram: Sdram | None) -> str:
    """Verilog of the SoC with what is at its pins besides the line: the SDRAM's chip."""
    ports = ["clk", "rst", "uart_rx", "uart_tx"]
    text, wires, chip = "", "", "    assign fault = 0;\n"
    if sdram is not None:
        pins = {
            "ras": 1, "cas": 1, "we": 1, "bank": 2, "address": sdram.chip.row_bits, "mask": 2,
            "write_data": 16, "write_enable": 1, "read_data": 16,
        }  # fmt: skip
        text = chip_verilog()
        wires = "".join(f"    wire [{width - 1}:0] sdram_{name};\n" for name, width in pins.items())
        ports += [f"sdram_{name}" for name in pins]
        values = ", ".join(f".{name}({value})" for name, value in chip_parameters(sdram).items())
        to_pins = ", ".join(f".{name}(sdram_{name})" for name in pins)
        chip = f"    sdram_chip #({values}) chip (.clk(clk), .fault(fault), {to_pins});\n"
    connections = ", ".join(f".{name}({name})" for name in ports)
    return (
        f"{text}module board(input clk, input rst, input uart_rx, output uart_tx, output [7:0] fault);\n"
        f"{wires}    {soc_module(config)} soc ({connections});\n{chip}endmodule\n"
    )


@lru_cache(maxsize=16)
def _library(path: Path) -> ctypes.CDLL:
    library = load_library(path)
    pointer, count = ctypes.c_void_p, ctypes.c_int
    library.soc_new.argtypes, library.soc_new.restype = [count], pointer
    library.soc_fault.argtypes, library.soc_fault.restype = [pointer], count
    library.soc_free.argtypes, library.soc_free.restype = [pointer], None
    library.soc_exchange.argtypes = [pointer, ctypes.c_char_p, count, ctypes.c_uint64, ctypes.c_char_p]
    library.soc_exchange.restype = count
    return library
