"""The cells of gen/ecp5_cells.py do what the blocks do that they replace: proved by Yosys, for all states."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sliceforge.gen.ecp5_cells import ecp5_accumulators
from sliceforge.gen.verilog import block_verilog
from sliceforge.hw.accumulator import Accumulator
from sliceforge.verif.yosys_script import run_yosys

_PROOF = """\
read_verilog block.v
prep -top {module}
design -stash block
read_verilog cells.v
read_verilog -overwrite +/ecp5/cells_sim.v
prep -flatten -top {module}
design -stash cells
design -copy-from block -as block {module}
design -copy-from cells -as cells {module}
equiv_make block cells both
hierarchy -top both
equiv_simple
equiv_induct
equiv_status -assert
"""


def prove(
    folder: Path, block: Accumulator, *, spoil: tuple[str, str] = ("", "")
) -> subprocess.CompletedProcess[str]:
    module = f"sliceforge_{block.block}"
    verilog = block_verilog(block, module)
    cells = ecp5_accumulators(verilog)
    assert f"module {module}(" in cells
    (folder / "block.v").write_text(verilog, encoding="utf-8")
    (folder / "cells.v").write_text(cells.replace(*spoil), encoding="utf-8")
    return run_yosys(folder, _PROOF.format(module=module))


@pytest.mark.parametrize(("bits", "addend_bits"), [(27, 15), (19, 7), (20, 15), (8, 4)])
def test_accumulator(bits: int, addend_bits: int, tmp_path: Path) -> None:
    done = prove(tmp_path, Accumulator(bits=bits, addend_bits=addend_bits))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert "Equivalence successfully proven!" in done.stdout


@pytest.mark.parametrize("spoil", [("DE12", "DE10"), ("DE12", "DA12"), (".A0(carry)", ".A0(1'b0)")])
def test_the_proof_fails_for_other_cells(spoil: tuple[str, str], tmp_path: Path) -> None:
    done = prove(tmp_path, Accumulator(bits=8, addend_bits=4), spoil=spoil)
    assert done.returncode != 0
    assert "unproven $equiv cells" in done.stdout + done.stderr
