"""Cell counts by block (sliceforge.sim.cells)."""

from __future__ import annotations

import re

import pytest

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.verilog import generate_verilog
from sliceforge.sim import bench, blocks
from sliceforge.sim.cells import TRANSISTORS, Cells, count_cells
from sliceforge.sim.toolchain import ToolError

TINY = AcceleratorConfig.preset("tiny")

# `leaf` is there five times: in `top`, and twice in each of two `pair`.
HIERARCHY = """
module leaf(input clk, input [2:0] a, b, output reg [2:0] q);
  always @(posedge clk) q <= ~(a & b);
endmodule
module pair(input clk, input [2:0] a, b, output [2:0] q, r);
  leaf one(.clk(clk), .a(a), .b(b), .q(q));
  leaf two(.clk(clk), .a(q), .b(b), .q(r));
endmodule
module unused(input a, output b);
  assign b = !a;
endmodule
module top(input clk, input [2:0] a, b, output [2:0] q, r, s, t, u, output v);
  pair pair_0(.clk(clk), .a(a), .b(b), .q(q), .r(r));
  leaf leaf_0(.clk(clk), .a(a), .b(b), .q(s));
  pair pair_1(.clk(clk), .a(a), .b(b), .q(t), .r(u));
  assign v = a[0] ^ b[1];
endmodule
"""


def of_module(ports: str, body: str) -> Cells:
    return count_cells(f"module top({ports}); {body} endmodule", "top")["top"].total


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2)])
def test_hierarchy(order: tuple[int, ...]) -> None:
    """In any order of the text: Yosys's own order of modules follows it."""
    modules = re.findall(r"module .*?endmodule\n", HIERARCHY, re.DOTALL)
    blocks = count_cells("".join(modules[place] for place in order), "top")
    assert list(blocks) == ["top", "pair", "leaf"]  # a block before the blocks in it; no `unused`
    leaf = Cells({"NAND": 3, "DFF_P": 3})
    assert blocks["leaf"].own == blocks["leaf"].total == leaf
    assert (blocks["pair"].own, blocks["pair"].total, blocks["pair"].all) == (Cells(), leaf * 2, leaf * 4)
    assert blocks["top"].own == Cells({"XOR": 1})
    assert blocks["top"].total == blocks["top"].all == Cells({"NAND": 15, "DFF_P": 15, "XOR": 1})


def test_figures_of_cells() -> None:
    counted = Cells({"NAND": 3, "XOR": 2, "DFF_P": 5}, memory_bits=7)
    assert (counted.cells, counted.gates, counted.flip_flops) == (10, 5, 5)
    assert counted.nand2 == 3 + 2 * 12 / 4 + 5 * 16 / 4
    assert (Cells().cells, Cells().nand2) == (0, 0)


@pytest.mark.parametrize(
    ("ports", "body", "types"),
    [
        ("input a, b, output y", "assign y = a & b;", {"AND": 1}),
        ("input a, b, output y", "assign y = ~(a | b);", {"NOR": 1}),
        ("input a, b, c, output y", "assign y = ~((a & b) | c);", {"AOI3": 1}),
        ("input a, b, c, output y", "assign y = c ? a : b;", {"MUX": 1}),
        ("input a, output y", "assign y = !a;", {"NOT": 1}),
        ("input a, output y", "assign y = a;", {}),
        ("input c, e, d, output reg q", "always @(posedge c) if (e) q <= d;", {"MUX": 1, "DFF_P": 1}),
        ("input c, d, output reg q = 1", "always @(posedge c) q <= d;", {"DFF_P": 1}),
    ],
)  # fmt: skip
def test_known_gates(ports: str, body: str, types: dict[str, int]) -> None:
    assert of_module(ports, body) == Cells(types)


def test_reset_is_one_gate() -> None:
    counted = of_module("input c, r, d, output reg q", "always @(posedge c) if (r) q <= 0; else q <= d;")
    assert counted.flip_flops == 1
    assert counted.gates - counted.types.get("NOT", 0) == 1


def test_memory_is_bits() -> None:
    counted = of_module(
        "input c, w, input [3:0] a, input [6:0] d, output reg [6:0] q",
        "reg [6:0] m [0:15]; always @(posedge c) begin if (w) m[a] <= d; q <= m[a]; end",
    )
    assert (counted.memory_bits, counted.cells) == (16 * 7, 0)


@pytest.mark.parametrize(
    ("ports", "body", "error"),
    [
        ("input e, d, output reg q", "always @* if (e) q = d;", "DLATCH"),
        ("input c, r, d, output reg q", "always @(posedge c, posedge r) if (r) q <= 0; else q <= d;", "DFF"),
        ("input c, d", 'always @(posedge c) $display("%b", d);', "print"),
        ("input a, output y", "assign y = ;", "syntax error"),
        ("input a, output y", "absent i(a, y);", "absent"),
    ],
)
def test_refused(ports: str, body: str, error: str) -> None:
    with pytest.raises(RuntimeError, match=error):
        of_module(ports, body)


def test_preset_tiny() -> None:
    verilog = generate_verilog(TINY)
    blocks = count_cells(verilog, TINY.module)
    declared = re.findall(r"^module (\w+)", verilog, re.MULTILINE)
    assert sorted(blocks) == sorted(declared)

    whole = blocks[TINY.module]
    assert whole.instances == 1
    assert sum((block.own * block.instances for block in blocks.values()), Cells()) == whole.total
    for name, block in blocks.items():
        assert block.own.cells <= block.total.cells <= block.all.cells <= whole.total.cells, name
        assert set(block.own.types) <= set(TRANSISTORS), name
        assert 0 not in block.own.types.values(), name

    named = {name.removeprefix(f"{TINY.module}_"): block for name, block in blocks.items()}
    assert named["pea"].instances == TINY.pea_count
    assert named["lane"].instances == named["lane__operator"].instances == TINY.operators
    assert named["lane__operator"].total.flip_flops >= TINY.vector**2 * TINY.accumulator_bits
    outputs = named["output_bank"].all.memory_bits + named["psum_memory"].all.memory_bits
    assert outputs == TINY.omem_kib * 8192

    rows = {row["block"]: row for row in bench.area("tiny", least=0)}  # the same Verilog
    assert next(iter(rows)) == "accelerator"
    assert rows["accelerator"]["percent"] == 100
    for name, row in rows.items():
        block = whole if name == "accelerator" else named[name]
        assert row["instances"] == block.instances, name
        assert (row["gates"], row["flip_flops"]) == (block.all.gates, block.all.flip_flops), name
        assert 0 <= row["percent"] <= 100, name
    assert len(rows) == len(blocks)


def test_counts_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    before = count_cells(HIERARCHY, "top")
    monkeypatch.setattr(blocks.subprocess, "run", None)
    assert count_cells(HIERARCHY, "top") == before


def test_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolError, match="pyosys is missing"):
        count_cells(HIERARCHY, "top")
