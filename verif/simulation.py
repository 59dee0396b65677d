"""Builds a block's Verilog for a simulator, once, and runs its cocotb bench on it.

A bench is a module ``bench_<block>`` with cocotb tests, a list ``CASES`` of parameter sets and a function
``component(parameters)`` that makes the block. ``more_verilog(parameters)`` may give modules that are none of
ours, ``MODULES`` name modules with more tests, and ``VISIBLE`` give (module, signal) of what the bench has to
see inside the block. `test_benches.py` runs all of them from pytest.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from cocotb_tools.runner import VerilatorControlFile, get_results, get_runner

from sliceforge.gen.verilog import block_verilog
from sliceforge.sim.toolchain import build_identity, cached_build, use_verilator

__all__ = ["SIMULATORS", "parameters", "run_bench", "seed"]

SIMULATORS = ("verilator", "icarus") if shutil.which("iverilog") else ("verilator",)

_BUILD_ARGS = {
    "verilator": [
        # Only the ports are visible: a bench knows a block by its ports, and the build is smaller.
        "--no-public-flat-rw", "--public-depth", "1", "--no-timing", "-O3", "--x-assign", "unique",
        "--x-initial", "unique",
        "-Wno-WIDTHEXPAND", "-Wno-WIDTHTRUNC", "-Wno-CASEINCOMPLETE",
    ],
    # As Verilog, not SystemVerilog: only then does Yosys' `always @*` run at the start, instead of leaving X.
    "icarus": ["-g2005"],
}  # fmt: skip

# One compilation of all generated code: for a block it takes a third of the time of many small ones. -O1
# takes half the time of Verilator's default, -Os, and the accelerator's bench runs as long as before: the
# model is a tenth of it. With -O0 it would run twice as long.
_MAKE_VARIABLES = ("VM_PARALLEL_BUILDS=0", "OPT_FAST=-O1")
# Of a netlist of gates: as one file with -O1, an operator was not compiled after 12 minutes; so it takes
# seconds.
_NETLIST_VARIABLES = ("VM_PARALLEL_BUILDS=1", "OPT_FAST=-O0", "OPT_SLOW=-O0")


def seed() -> int:
    """Seed of all random stimulus: 1, or SLICEFORGE_SEED."""
    return int(os.environ.get("SLICEFORGE_SEED", "1"))


def parameters() -> dict[str, Any]:
    """Inside a bench: the parameter set that it runs with."""
    return dict(json.loads(os.environ["SLICEFORGE_PARAMETERS"]))


def run_bench(
    bench: str,
    component: Any,
    parameters: dict[str, Any],
    folder: Path,
    *,
    simulator: str = "verilator",
    netlist: Callable[[str, str], str] | None = None,
) -> str:
    """Runs the cocotb tests of module ``sliceforge.verif.<bench>``; AssertionError if one fails.

    Returns the bench's coverage table, where it makes one.

    folder: takes results and the log; the build itself is in the cache, keyed by the Verilog.
    netlist: gives what is simulated for the block's Verilog and its top module, by default that Verilog.
    """
    module = f"dut_{bench.removeprefix('bench_')}"
    verilog = block_verilog(component, module)
    args, variables = list(_BUILD_ARGS[simulator]), _MAKE_VARIABLES
    if netlist is not None:
        variables = _NETLIST_VARIABLES
        verilog = netlist(verilog, module)
        args.append("-Wno-UNOPTFLAT")  # gates of one bit of a port may hang on another bit of it
    tests = import_module(f"sliceforge.verif.{bench}")
    if hasattr(tests, "more_verilog"):
        verilog += tests.more_verilog(parameters)
    names = [bench, *getattr(tests, "MODULES", ())]
    visible = "`verilator_config\n" + "".join(
        f'public_flat_rd -module "{module}_{block}" -var "{signal}"\n'
        for block, signal in getattr(tests, "VISIBLE", ())
    )

    def build(target: Path) -> None:
        (target / "dut.v").write_text(verilog, encoding="utf-8")
        sources: list[Any] = [target / "dut.v"]
        if simulator == "verilator":
            (target / "dut.vlt").write_text(visible, encoding="utf-8")
            sources.insert(0, VerilatorControlFile(target / "dut.vlt"))
        log = target / "build.log"
        try:
            get_runner(simulator).build(
                sources=sources, hdl_toplevel=module, build_dir=target, always=True,
                timescale=("1ns", "1ps"), build_args=args, log_file=log,
            )  # fmt: skip
        except RuntimeError as error:
            raise RuntimeError(
                f"{bench} does not build on {simulator}:\n{log.read_text()[-4000:]}"
            ) from error

    with use_verilator():
        os.environ["MAKEFLAGS"] = " ".join([os.environ.get("MAKEFLAGS", ""), *variables]).strip()
        key = [simulator, verilog, visible, *args, *variables, *build_identity()]
        build_dir = cached_build(key, build, f"{bench}-{simulator}")
        log = folder / f"{bench}.log"
        results, coverage = folder / "results.xml", folder / "coverage.txt"
        environment = {
            "SLICEFORGE_PARAMETERS": json.dumps(parameters),
            "SLICEFORGE_COVERAGE": str(coverage),
            "COCOTB_ANSI_OUTPUT": "0",
            # cocotb would have pytest rewrite the assertions of every module that is imported, of 400 for an
            # accelerator, which takes seconds.
            "COCOTB_REWRITE_ASSERTION_FILES": "verif/*.py",
        }
        with suppress(SystemExit):  # the runner exits where a test fails; the results tell more
            get_runner(simulator).test(
                hdl_toplevel=module, test_module=[f"sliceforge.verif.{name}" for name in names],
                build_dir=build_dir, test_dir=folder, results_xml=str(results), hdl_toplevel_lang="verilog",
                seed=seed(), log_file=log,
                extra_env=environment,
            )  # fmt: skip
    count, failures = get_results(results)
    text = log.read_text(encoding="utf-8", errors="replace")
    print(f"{bench} {parameters} on {simulator}, seed {seed()}: {count} tests, {failures} failures")
    assert count > 0 and failures == 0, f"{bench} {parameters} on {simulator}, seed {seed()}\n{text[-6000:]}"
    return coverage.read_text(encoding="utf-8") if coverage.exists() else ""
