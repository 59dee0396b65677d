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

from dataclasses import dataclass

from sliceforge.gen.config import AcceleratorConfig
from sliceforge.gen.synthesis import GATES
from sliceforge.gen.verilog import generate_verilog
from sliceforge.sim.blocks import Block, CellCounts, block_counts, plain_names, synthesize

__all__ = ["TRANSISTORS", "Block", "Cells", "cell_counts", "count_cells"]

TRANSISTORS = {
    "NOT": 2, "NAND": 4, "NOR": 4, "AND": 6, "OR": 6, "AOI3": 6, "OAI3": 6, "XOR": 12, "XNOR": 12, "MUX": 12,
    "DFF_P": 16,
}  # fmt: skip
"""Transistors of each type of cell, by Yosys's names without ``$_`` and ``_``."""

_FLIP_FLOP = "DFF_P"


@dataclass(frozen=True)
class Cells(CellCounts):
    """Numbers of cells by type (keys of TRANSISTORS), and bits of memory beside them."""

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


def cell_counts(config: AcceleratorConfig) -> dict[str, Block[Cells]]:
    """Each module of ``config``'s Verilog, from the whole down: a block before the blocks in it.

    The keys are the modules' names without ``config.module``, as ``lane__operator`` for the operator that is
    elaborated within the lane; the whole is ``accelerator``. Shares of the whole are ``block.all`` over
    ``blocks["accelerator"].total``. Preset panacea takes a minute the first time; the counts are kept.
    Raises ToolError if pyosys is missing.
    """
    return plain_names(count_cells(generate_verilog(config), config.module), config.module)


def count_cells(verilog: str, top: str) -> dict[str, Block[Cells]]:
    """Each module of ``verilog`` by name, from ``top`` down; what ``top`` does not need is left out.

    Raises ToolError if pyosys is missing, RuntimeError for Verilog that Yosys refuses and for cells that have
    no count here (a latch, a flip-flop with an asynchronous reset).
    """
    return block_counts(synthesize(verilog, top, GATES), top, GATES, Cells)
