"""The command ``sliceforge simulate-board``: a board in simulation, for the engine ``uart://``."""

from __future__ import annotations

import shlex
import signal
from contextlib import suppress

import click
from rich.console import Console

from sliceforge.gen.cli_parts import config_option, set_option
from sliceforge.gen.config import AcceleratorConfig

__all__ = ["simulate_board"]


@click.command("simulate-board")
@config_option
@set_option
@click.option("--memory-kib", type=int, help="Memory of the board, on its FPGA, 1 to 4096.  [default: 64]")
@click.option("--sdram", is_flag=True, help="An SDRAM of 32 MiB instead, as the ULX3S has it.")
@click.option(
    "--errors",
    type=float,
    default=0.0,
    metavar="RATE",
    help="Share of bytes on the line to be altered, lost, doubled or put behind garbage.  [default: 0]",
)
@click.option("--seed", type=int, metavar="S", help="Which ones.  [default: 0]")
def simulate_board(
    source: str,
    settings: tuple[str, ...],
    memory_kib: int | None,
    sdram: bool,
    errors: float,
    seed: int | None,
) -> None:
    """A board without a board: its Verilog in simulation behind a pseudo-terminal, until Ctrl-C.

    Accelerator, memory, bridge and UART run as on an FPGA, bit by bit on the line. Prints the serial port
    and the command that runs a GEMM there.

    \b
    Examples:
      sliceforge simulate-board --config tiny
      sliceforge simulate-board --config tiny --sdram --errors 0.001 --seed 3
    """
    config = AcceleratorConfig.load(source, settings)
    if not 0 <= errors <= 1:  # not so for NaN either
        raise ValueError(f"errors must be 0 to 1, not {errors}")
    if seed is not None and not errors:
        raise ValueError(f"seed must come with errors, not alone as {seed}")
    if sdram and memory_kib is not None:
        raise ValueError(f"memory_kib must not be given with an SDRAM, not {memory_kib}")
    if not sdram and memory_kib is None:
        memory_kib = 64
    from sliceforge.sim.board import BoardSimulation, build_soc

    with Console(stderr=True).status(f"building the board of {config.name}"):
        build_soc(config, memory_kib=memory_kib)
    board = BoardSimulation(config, memory_kib=memory_kib, error_rate=errors, seed=seed or 0)
    # A script's background job starts with the signal ignored, and would never end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(KeyboardInterrupt), board:
        machine = shlex.join(["--config", source, *(f"--set={setting}" for setting in settings)])
        memory = "32 MiB of SDRAM" if sdram else f"{memory_kib} KiB of memory"
        print(f"{config.name} with {memory} is at {board.device} until Ctrl-C. To use it:")
        print(
            f"  sliceforge gemm {machine} --weights W.npy --activations X.npy --zero-point 128 "
            f"--engine uart://{board.device}",
            flush=True,
        )
        board.wait()
