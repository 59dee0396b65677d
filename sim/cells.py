"""Cells of the generated Verilog, block by block: what Yosys makes of it in simple gates and flip-flops.

Each module is synthesized once and by itself, and counted as often as it is there. So nothing is optimized
across the boundaries of blocks: a port that its parent ties to a constant costs its gates all the same.

- Gates: what Yosys and its ABC choose from inverters, AND, NAND, OR, NOR, XOR and XNOR of two inputs,
  multiplexers of two, AND-OR-inverts and OR-AND-inverts of three. No cell library, no timing, no buffers.
- Flip-flops: of one kind, D and clock. An enable is a multiplexer before it, a synchronous reset an AND.
- Memories: kept as they are and counted in bits, not cells, with the output register of a synchronous read
  port. That goes for the RAMs and for the FIFOs' storage alike.
- NAND2 equivalents: transistors of the static CMOS cell over the 4 of a NAND of two inputs. The transistors
  are those of Yosys 0.70, ``kernel/cost.h``, "Estimated CMOS transistor counts"; ABC minimizes the same.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.verilog import generate_verilog
from sliceforge.sim.toolchain import ToolError, cached_build

__all__ = ["TRANSISTORS", "Block", "Cells", "cell_counts", "count_cells"]

TRANSISTORS = {
    "NOT": 2, "NAND": 4, "NOR": 4, "AND": 6, "OR": 6, "AOI3": 6, "OAI3": 6, "XOR": 12, "XNOR": 12, "MUX": 12,
    "DFF_P": 16,
}  # fmt: skip
"""Transistors of each type of cell, by Yosys's names without ``$_`` and ``_``."""

_FLIP_FLOP = "DFF_P"

# As Yosys's own `synth`, but memories stay (a ROM made of a case statement does not become one), and
# what enables and resets flip-flops is made of gates before ABC sees it; `opt` with opt_dff would undo it.
# `cmos3` makes ABC count area in the transistors above. Its script is Yosys's default one without the SAT
# sweeping (&fraig, scorr), which takes minutes on a multiplier of 32 x 31 bits and makes a lane 1 % smaller.
_SCRIPT = """
read_verilog design.v
hierarchy -check -top {top}
proc -norom
opt -nodffe -nosdff
wreduce
peepopt
opt_clean
alumacc
share
opt
memory_dff
opt_clean
opt -fast -full
techmap
opt -fast
dfflegalize -cell $_DFF_P_ 01
opt_expr
opt_merge
opt_clean
abc -g cmos3,AND,OR,XOR,XNOR,MUX -script +strash;dc2;&get,-n;&dch,-f;&nf;&put
opt_clean
tee -q -o stat.json stat -json
"""
_RUN = "from pyosys import libyosys; libyosys.run_pass('script cells.ys', libyosys.Design())"


@dataclass(frozen=True)
class Cells:
    """Numbers of cells by type (keys of TRANSISTORS), and bits of memory beside them."""

    types: Mapping[str, int] = field(default_factory=dict)
    memory_bits: int = 0

    def __add__(self, other: Cells) -> Cells:
        return Cells(Counter(self.types) + Counter(other.types), self.memory_bits + other.memory_bits)

    def __mul__(self, times: int) -> Cells:
        return Cells({name: times * count for name, count in self.types.items()}, times * self.memory_bits)

    @property
    def cells(self) -> int:
        """Gates and flip-flops."""
        return sum(self.types.values())

    @property
    def flip_flops(self) -> int:
        return self.types.get(_FLIP_FLOP, 0)

    @property
    def gates(self) -> int:
        return self.cells - self.flip_flops

    @property
    def nand2(self) -> float:
        """NAND2 equivalents of gates and flip-flops."""
        return sum(TRANSISTORS[name] * count for name, count in self.types.items()) / TRANSISTORS["NAND"]


@dataclass(frozen=True)
class Block:
    """One module of the Verilog."""

    instances: int
    """How often it is there in the whole."""
    own: Cells
    """One instance's, without the blocks in it."""
    total: Cells
    """One instance's, with the blocks in it."""

    @property
    def all(self) -> Cells:
        """All instances', with the blocks in them."""
        return self.total * self.instances


def cell_counts(config: AcceleratorConfig) -> dict[str, Block]:
    """Each module of ``config``'s Verilog, from the whole down: a block before the blocks in it.

    The keys are the modules' names without ``config.module``, as ``lane__operator`` for the operator that is
    elaborated within the lane; the whole is ``accelerator``. Shares of the whole are ``block.all`` over
    ``blocks["accelerator"].total``. Preset panacea takes a minute the first time; the counts are kept.
    Raises ToolError if pyosys is missing.
    """
    blocks = count_cells(generate_verilog(config), config.module)
    return {
        name.removeprefix(f"{config.module}_") if name != config.module else "accelerator": block
        for name, block in blocks.items()
    }


def count_cells(verilog: str, top: str) -> dict[str, Block]:
    """Each module of ``verilog`` by name, from ``top`` down; what ``top`` does not need is left out.

    Raises ToolError if pyosys is missing, RuntimeError for Verilog that Yosys refuses and for cells that have
    no count here (a latch, a flip-flop with an asynchronous reset).
    """
    modules = {name.removeprefix("\\"): stat for name, stat in _statistics(verilog, top).items()}
    own: dict[str, Cells] = {}
    inside: dict[str, dict[str, int]] = {}
    for name, stat in modules.items():
        cells = {key.removeprefix("\\"): count for key, count in stat["num_cells_by_type"].items()}
        inside[name] = {key: cells.pop(key) for key in list(cells) if key in modules}
        own[name] = Cells(_gate_types(name, cells), stat["num_memory_bits"])

    totals: dict[str, Cells] = {}
    for name in reversed(order := _parents_first(top, inside)):
        totals[name] = sum((totals[child] * count for child, count in inside[name].items()), own[name])
    instances = Counter({top: 1})
    for name in order:
        for child, count in inside[name].items():
            instances[child] += instances[name] * count
    return {name: Block(instances[name], own[name], totals[name]) for name in order}


def _gate_types(module: str, cells: Mapping[str, int]) -> dict[str, int]:
    types = {}
    for key, count in cells.items():
        name = key.removeprefix("$_").removesuffix("_")
        if name in TRANSISTORS:
            types[name] = count
        elif not key.startswith("$mem"):  # ports and initial values of memories
            raise RuntimeError(f"module {module} has {count} cells of type {key}, which have no count")
    return types


def _parents_first(top: str, inside: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Every module below ``top``, each after all that it is in."""
    finished: list[str] = []

    def visit(name: str) -> None:
        for child in reversed(list(inside[name])):
            if child not in finished:
                visit(child)
        finished.append(name)

    visit(top)
    return finished[::-1]


def _statistics(verilog: str, top: str) -> dict[str, dict[str, Any]]:
    """Yosys's statistics of every module."""
    if importlib.util.find_spec("pyosys") is None:
        raise ToolError("pyosys is missing: run `make setup`, or `pip install 'sliceforge[dev]'`")
    script = _SCRIPT.format(top=top)

    def build(folder: Path) -> None:
        (folder / "design.v").write_text(verilog, encoding="utf-8")
        (folder / "cells.ys").write_text(script, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", _RUN], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            found = re.findall(r"^ERROR: .*", done.stdout + done.stderr, re.MULTILINE)
            raise RuntimeError(f"Yosys failed on {top}: {found[-1] if found else done.stderr[-4000:]}")

    key = (verilog, script, version("pyosys"))
    folder = cached_build(key, build, f"cells-{top}")
    modules: dict[str, dict[str, Any]] = json.loads((folder / "stat.json").read_text("utf-8"))["modules"]
    return modules
