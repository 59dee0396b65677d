"""Lints the Verilog of every preset, and of the SoC of tiny with each kind of memory, with all of Verilator's
warnings. Exit status 1 if one warns."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.host_link import DEFAULT_BAUD
from sliceforge.gen.sdram import CHIPS, Sdram
from sliceforge.gen.verilog import generate_soc_verilog, generate_verilog, soc_module
from sliceforge.sim.toolchain import verilator_env

WAIVERS = Path(__file__).resolve().parent.parent / "gen" / "verilator.vlt"


def lint(module: str, verilog: Callable[[], str], env: dict[str, str]) -> str:
    """Verilator's messages, "" if there is nothing to say."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"{module}.v"
        source.write_text(verilog(), encoding="utf-8")
        command = ["verilator", "--lint-only", "-Wall", "--top-module", module, WAIVERS, source]
        done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False)
    messages = done.stdout + done.stderr
    return messages or f"verilator exited with status {done.returncode}\n" if done.returncode else ""


def main() -> int:
    env = verilator_env()
    presets = [AcceleratorConfig.preset(name) for name in AcceleratorConfig.presets()]
    tiny = AcceleratorConfig.preset("tiny")
    sdram = Sdram(CHIPS["ulx3s"], 50_000_000)
    designs: list[tuple[str, Callable[[], str]]] = [
        *((config.module, partial(generate_verilog, config)) for config in presets),
        (
            soc_module(tiny),
            partial(generate_soc_verilog, tiny, clock_hz=25_000_000, baud=DEFAULT_BAUD, memory_kib=64),
        ),
        (
            soc_module(tiny),
            partial(generate_soc_verilog, tiny, clock_hz=50_000_000, baud=DEFAULT_BAUD, sdram=sdram),
        ),
    ]
    failed = False
    # Two at a time, in processes: Amaranth's part is Python. The largest comes first and takes longest.
    with ProcessPoolExecutor(2) as pool:
        runs = [(module, pool.submit(lint, module, verilog, env)) for module, verilog in designs]
    for module, run in runs:
        messages = run.result()
        print(f"verilator --lint-only {module}: {'warnings' if messages else 'clean'}", flush=True)
        if messages:
            print(messages, file=sys.stderr, end="", flush=True)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
