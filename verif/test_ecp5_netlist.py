"""A netlist of ECP5's cells does the same after `tidy`, and has what `tidy` is for: proved by Yosys."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from sliceforge.gen.ecp5_cells import ecp5_accumulators
from sliceforge.gen.ecp5_netlist import tidy
from sliceforge.gen.verilog import block_verilog
from sliceforge.hw.accumulator import Accumulator
from sliceforge.verif.yosys_script import run_yosys

# Adders with and without a constant carry in and a carry out that is read; a chain that ends in the middle of
# a cell; constants among the operands.
_ADDERS = """\
module top(input clk, input [6:0] a, b, input c, output [6:0] plain, less, output [7:0] wide,
           output [6:0] odd, output over);
  assign plain = a + b, less = a - b, wide = a + b + c;
  assign odd = {a[6:2], 2'b01} + 7'b0110100;
  wire [7:0] total = {a[6:1], 1'b0} + {1'b0, b[5:0]};
  assign over = total[7];
endmodule
"""
# Memories of 4 and 8 words in LUT RAMs of 16.
_MEMORIES = """\
module top(input clk, input write, input [2:0] to, from, input [3:0] data, output [3:0] of8, of4);
  reg [3:0] eight [0:7];
  reg [3:0] four [0:3];
  integer i;
  initial for (i = 0; i < 8; i = i + 1) begin eight[i] = 0; four[i & 3] = 0; end
  always @(posedge clk) if (write) begin eight[to] <= data; four[to[1:0]] <= ~data; end
  assign of8 = eight[from], of4 = four[from[1:0]];
endmodule
"""
_SYNTHESIS = """\
read_verilog design.v
synth_ecp5 -nodsp -nowidelut -noiopad -top top -run :map_cells
synth_ecp5 -nodsp -nowidelut -noiopad -top top -run map_cells:check
blackbox =A:whitebox
write_json before.json
"""
_READ = """\
read_json {name}.json
read_verilog -overwrite +/ecp5/cells_sim.v
prep -flatten -top top
memory_map
rename top {name}
design -stash {name}
"""
_PROOF = f"""\
{_READ.format(name="before")}
{_READ.format(name="after")}
design -copy-from before before
design -copy-from after after
miter -equiv -make_assert -flatten before after both
hierarchy -top both
opt
sat -verify -set-init-zero -prove-asserts {{bound}} both
"""


def netlist(folder: Path, design: str) -> dict[str, Any]:
    (folder / "design.v").write_text(design, encoding="utf-8")
    done = run_yosys(folder, _SYNTHESIS)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    made = json.loads((folder / "before.json").read_text("utf-8"))
    made["modules"] = {"top": made["modules"]["top"]}  # of the cells, the proof takes Yosys's models
    (folder / "before.json").write_text(json.dumps(made), encoding="utf-8")
    return made


def same(folder: Path, after: dict[str, Any], bound: str) -> bool:
    """Whatever the carry is that comes into a chain without a net."""
    runs = []
    for carry in "01":
        closed = copy.deepcopy(after)
        for cell in cells(closed, "CCU2C"):
            connections = cell["connections"]
            if connections["CIN"] == ["x"]:
                connections["CIN"] = [carry]
            if connections["COUT"] == ["x"]:
                del connections["COUT"], cell["port_directions"]["COUT"]
        (folder / "after.json").write_text(json.dumps(closed), encoding="utf-8")
        runs.append(run_yosys(folder, _PROOF.format(bound=bound)))
        proved = "SUCCESS!" in runs[-1].stdout, "Called with -verify and proof did fail" in runs[-1].stderr
        assert proved == (runs[-1].returncode == 0, runs[-1].returncode != 0), runs[-1].stdout[-2000:]
    return all(run.returncode == 0 for run in runs)


def cells(netlist: dict[str, Any], cell_type: str) -> list[dict[str, Any]]:
    return [cell for cell in netlist["modules"]["top"]["cells"].values() if cell["type"] == cell_type]


def accumulator() -> str:
    block = Accumulator(bits=11, addend_bits=5)
    module = f"sliceforge_{block.block}"
    cells = ecp5_accumulators(block_verilog(block, module))
    return cells.replace(f"module {module}(", "module top(")


@pytest.mark.parametrize("design", [_ADDERS, accumulator()], ids=["adders", "accumulator"])
def test_carry_chains(design: str, tmp_path: Path) -> None:
    before = netlist(tmp_path, design)
    after = copy.deepcopy(before)
    tidy(after, "top")
    assert same(tmp_path, after, "-tempinduct")
    carries = cells(after, "CCU2C")
    read = {bit for cell in carries for bit in cell["connections"]["CIN"]}
    for cell in carries:
        connections = cell["connections"]
        assert not any(connections[f"{pin}{half}"] == ["0"] for pin in "ABCD" for half in "01")
        assert connections["CIN"] != ["0"] and connections["CIN"] != ["1"]
        assert connections["COUT"] == ["x"] or set(connections["COUT"]) <= read
    firsts = len(carries) - len(cells(before, "CCU2C"))
    assert firsts == (4 if design == _ADDERS else 0)


def test_memories(tmp_path: Path) -> None:
    before = netlist(tmp_path, _MEMORIES)
    after = copy.deepcopy(before)
    tidy(after, "top")
    memories = cells(after, "TRELLIS_DPR16X4")
    assert len(memories) == 2
    for memory in memories:
        write, read = memory["connections"]["WAD"], memory["connections"]["RAD"]
        assert (write[3], read[3]) == (write[0], read[0]) and "0" not in write + read
    assert same(tmp_path, after, "-seq 5")
    memories[0]["connections"]["RAD"][3] = "0"
    assert not same(tmp_path, after, "-seq 5")


def test_the_proof_fails_for_other_tables(tmp_path: Path) -> None:
    after = netlist(tmp_path, _ADDERS)
    tidy(after, "top")
    first = next(cell for name, cell in after["modules"]["top"]["cells"].items() if name.endswith("$first"))
    first["parameters"]["INIT1"] = f"{8 ^ int(first['parameters']['INIT1'], 2):016b}"
    assert not same(tmp_path, after, "-tempinduct")
