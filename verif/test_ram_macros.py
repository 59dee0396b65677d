"""RAMs replaced by macros, as docs/integration.md says, by the manifest; they promise less than ours."""

from __future__ import annotations

import json
import random
import re
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.manifest import manifest
from sliceforge.gen.verilog import generate_verilog
from sliceforge.sim.rtl import Memory, run_layers
from sliceforge.sim.slices import sliced_activations
from sliceforge.sim.toolchain import verilator_env
from sliceforge.verif.accelerator_queues import random_queue

MACROS = AcceleratorConfig.preset("tiny", name="macros")

# Words hold anything at first; a word that is written while it is read comes out wrong where it is written.
MACRO = """
module {module}(clk, rst, write, write_address, write_data, read, read_address, read_data);
  input clk, rst, read;
  input [{parts}-1:0] write;
  input [{address_bits}-1:0] write_address, read_address;
  input [{width}-1:0] write_data;
  output reg [{width}-1:0] read_data;
  reg [{width}-1:0] words [0:{depth}-1];
  reg [{width}-1:0] mask;
  integer i;
  initial for (i = 0; i < {depth}; i = i + 1) words[i] = {{{width}{{i[0]}}}} ^ i;
  always @(*) for (i = 0; i < {parts}; i = i + 1) mask[i*{part_bits} +: {part_bits}] = {{{part_bits}{{write[i]}}}};
  always @(posedge clk) begin
    words[write_address] <= words[write_address] & ~mask | write_data & mask;
    if (read)
      read_data <= words[read_address] ^ (read_address == write_address ? mask : {width}'d0);
  end
endmodule
"""  # noqa: E501


@pytest.fixture(scope="module")
def verilog() -> str:
    return generate_verilog(MACROS)


@pytest.fixture(scope="module")
def rams(verilog: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(manifest(MACROS, verilog))["rams"]
    return listed


def without_rams(verilog: str, rams: list[dict[str, Any]]) -> str:
    return "".join(f"`define {ram['module'].upper()}_MACRO\n" for ram in rams) + verilog


def test_the_manifest_lists_them(verilog: str, rams: list[dict[str, Any]]) -> None:
    """The largest ones by hand: banks of WMEM and AMEM are the same RAM, one for each PEA and lane."""
    entries = {(ram["depth"], ram["width"], ram["part_bits"]): ram["instances"] for ram in rams}
    layout = MACROS.weight_layout
    assert entries[MACROS.weight_slots * layout.slot_granules, layout.granule_bits, 64] == 2 + 2
    assert entries[256, 8, 8] == 4  # activation tables, one for each requantized result a cycle
    assert all(count > 0 for count in entries.values())
    assert len(entries) == len(rams) == verilog.count("_MACRO\n")


def test_each_can_be_left_out(verilog: str, rams: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "top.v").write_text(without_rams(verilog, rams))
    done = subprocess.run(
        ["verilator", "--lint-only", "-Wno-lint", "--top-module", MACROS.module, "top.v"],
        cwd=tmp_path, env=verilator_env(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    missing = set(re.findall(r"Cannot find file containing module: '(\w+)'", done.stderr))
    assert missing == {ram["module"] for ram in rams}


def test_no_block_relies_on_what_macros_do_not_give(
    verilog: str, rams: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random queues of layers, bit by bit: all dataflows, with and without APSQ, requantized or not."""
    macros = "".join(
        MACRO.format(
            **ram, parts=ram["width"] // ram["part_bits"], address_bits=(ram["depth"] - 1).bit_length()
        )
        for ram in rams
    )
    identity = import_module("sliceforge.gen.verilog").generator_identity()
    monkeypatch.setattr("sliceforge.sim.rtl.generate_verilog", lambda _: without_rams(verilog, rams) + macros)
    monkeypatch.setattr("sliceforge.sim.verilated.generator_identity", lambda: (*identity, macros))
    rng = random.Random(1)
    for _ in range(40):
        layers = random_queue(rng, MACROS, rng.choice([1, 2, 3, 4]))
        memory = Memory(latency=rng.choice([0, 5, 100]), bandwidth=rng.choice([1, 0.5, 0.1]))
        outputs = run_layers([layer.image for layer in layers], memory=memory).outputs
        for layer, output in zip(layers, outputs, strict=True):
            written = layer.image.output
            expected = layer.result if written is None else sliced_activations(layer.result, written.lo_bits)
            np.testing.assert_array_equal(output, expected)
