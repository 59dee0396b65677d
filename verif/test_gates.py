"""The core as a netlist of gates, on the core's bench: what synthesis makes computes the same."""

from __future__ import annotations

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
    """The netlist; AssertionError if it has anything but gates, flip-flops of one bit and memories."""
    folders = synthesize(verilog, top, GATES)
    block_counts(folders, top, GATES, Cells)  # refuses cells of any other type
    return netlist(folders, top, GATES)


SMALL = bench_core.CASES[0]
TINY: dict[str, Any] = AcceleratorConfig.preset("tiny").parameters()


@pytest.mark.parametrize("parameters", [SMALL, pytest.param(TINY, marks=pytest.mark.long)])
def test_core_of_gates(parameters: dict[str, Any], tmp_path: Path) -> None:
    run_bench("bench_core", bench_core.component(parameters), parameters, tmp_path, netlist=gates)
