"""Netlists of gates on the benches of the blocks that they were made of: bit-exact after synthesis."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.synthesis import GATES
from sliceforge.sim.blocks import block_counts, netlist, synthesize
from sliceforge.sim.cells import Cells
from sliceforge.verif import bench_core
from sliceforge.verif.simulation import run_bench


def gates(verilog: str, top: str) -> str:
    """The netlist of gates, flip-flops of a bit, and memories as arrays; RuntimeError for any other cell."""
    folders = synthesize(verilog, top, GATES)
    block_counts(folders, top, GATES, Cells)  # counts no other cells
    return netlist(folders, top, GATES)


def test_refuses_what_is_no_gate() -> None:
    """Without techmap, adders stay as they are."""
    commands = tuple(command for command in GATES.commands if command not in ("alumacc", "techmap"))
    verilog = """
module top(input clk, input [3:0] a, input [3:0] b, output reg [3:0] sum);
  always @(posedge clk) sum <= a + b;
endmodule
"""
    unmapped = replace(GATES, commands=commands)
    folders = synthesize(verilog, "top", unmapped)
    with pytest.raises(RuntimeError, match=r"module top has 1 cells of type \$add"):
        block_counts(folders, "top", unmapped, Cells)
    block_counts(synthesize(verilog, "top", GATES), "top", GATES, Cells)


PRESET: dict[str, Any] = AcceleratorConfig.preset("tiny").parameters()


@pytest.mark.parametrize("block", ["rle_decoder", pytest.param("operator", marks=pytest.mark.long)])
def test_block_of_gates(block: str, tmp_path: Path) -> None:
    bench = import_module(f"sliceforge.verif.bench_{block}")
    parameters = bench.CASES[0]
    run_bench(f"bench_{block}", bench.component(parameters), parameters, tmp_path, netlist=gates)


@pytest.mark.long
@pytest.mark.parametrize("parameters", [bench_core.CASES[0], PRESET], ids=["small", "preset"])
def test_core_of_gates(parameters: dict[str, Any], tmp_path: Path) -> None:
    """Preset tiny, and the same with the smaller memories of the bench."""
    run_bench("bench_core", bench_core.component(parameters), parameters, tmp_path, netlist=gates)
